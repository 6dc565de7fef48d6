"""Pictures of predictions and training curves."""

from .curves import training_curves
from .palette import background_classes, class_colour
from .prediction import prediction_figure
from .projection import surface_view
from .rotating import rotating_projections

__all__ = [
    "background_classes",
    "class_colour",
    "prediction_figure",
    "rotating_projections",
    "surface_view",
    "training_curves",
]
