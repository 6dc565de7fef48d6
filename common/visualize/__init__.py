"""Pictures of predictions and training curves."""

from .curves import training_curves
from .densify import densify_figure, next_figure
from .palette import background_classes, class_colour
from .planes import FilledVolume
from .prediction import prediction_figure
from .projection import surface_view
from .rotating import rotating_projections

__all__ = [
    "FilledVolume",
    "background_classes",
    "class_colour",
    "densify_figure",
    "next_figure",
    "prediction_figure",
    "rotating_projections",
    "surface_view",
    "training_curves",
]
