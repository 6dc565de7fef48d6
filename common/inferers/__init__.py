"""Inferers that run a whole method on a whole volume."""

from .cascade import CascadeInferer
from .voting import VotingInferer

__all__ = ["CascadeInferer", "VotingInferer"]
