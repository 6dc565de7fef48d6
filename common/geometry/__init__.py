"""Pure tensor functions: boxes, components, grids, labels, B-splines. No modules, no files."""

from .boxes import Box, bounding_box, crop, enlarge, paste
from .components import Component, connected_components, fill_holes, keep_largest
from .grids import argmax_on_grid, first_argmax, read_window

__all__ = [
    "Box",
    "Component",
    "argmax_on_grid",
    "bounding_box",
    "connected_components",
    "crop",
    "enlarge",
    "fill_holes",
    "first_argmax",
    "keep_largest",
    "paste",
    "read_window",
]
