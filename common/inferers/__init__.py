"""Inferers that run a whole method on a whole volume."""

from .cascade import CascadeInferer
from .liver_tumour import LiverTumourInferer
from .roi import RoIInferer
from .roi_training import RoITrainingInferer
from .seeded import RandomWalkerInferer, ShapeInterpolationInferer
from .two_path import TwoPathInferer
from .voting import VotingInferer

__all__ = [
    "CascadeInferer",
    "LiverTumourInferer",
    "RoIInferer",
    "RoITrainingInferer",
    "RandomWalkerInferer",
    "ShapeInterpolationInferer",
    "TwoPathInferer",
    "VotingInferer",
]
