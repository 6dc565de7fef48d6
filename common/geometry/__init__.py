"""Pure tensor functions: boxes, components, grids, labels, B-splines. No modules, no files."""

from .boxes import Box, bounding_box, crop, enlarge, paste
from .bspline import bspline_basis, control_positions, control_shape, evaluate_bspline
from .components import Component, connected_components, fill_holes, keep_largest
from .grids import argmax_on_grid, first_argmax, read_window
from .labels import check_labels, labelled_slices, split_ignore
from .sampling import LabelledVoxels, crop_patch, mirror_positions, sample_positions

__all__ = [
    "Box",
    "Component",
    "LabelledVoxels",
    "argmax_on_grid",
    "bounding_box",
    "bspline_basis",
    "check_labels",
    "connected_components",
    "control_positions",
    "control_shape",
    "crop",
    "crop_patch",
    "enlarge",
    "evaluate_bspline",
    "fill_holes",
    "first_argmax",
    "keep_largest",
    "labelled_slices",
    "mirror_positions",
    "paste",
    "read_window",
    "sample_positions",
    "split_ignore",
]
