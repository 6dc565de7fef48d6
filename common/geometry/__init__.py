"""Pure tensor functions: boxes, components, morphology, grids, labels, B-splines. No modules, no files."""

from .blocks import block_majority, block_mean
from .body import body_mask
from .boxes import Box, at_least, bounding_box, crop, enlarge, paste
from .bspline import bspline_basis, control_positions, control_shape, evaluate_bspline
from .components import Component, connected_components, fill_holes, keep_largest
from .contour import inner_contour
from .grids import argmax_on_grid, first_argmax, read_window
from .labels import check_labels, labelled_slices, split_ignore
from .lattice import LatticeMap, lattice_map
from .morphology import dilate, erode
from .next_slice import RankedPlane, even_planes, random_planes, rank_planes
from .otsu import otsu_body
from .planes import covering_planes, on_planes
from .projection import (
    back_project,
    check_angles,
    detector_width,
    direction_angles,
    project,
    ramp_filter,
    sector_angles,
)
from .rois import locate_rois, normalised_heat, pooled_label, pyramid_crop, pyramid_crops, scaled_box
from .sampling import LabelledVoxels, crop_patch, mirror_positions, sample_positions
from .slice_groups import split_slices, spread_slices
from .slice_interpolation import interpolate_slices, signed_distances
from .slices import resize_slices
from .subsampling import subsample, upsample_nearest
from .thinning import skeleton

__all__ = [
    "Box",
    "Component",
    "LabelledVoxels",
    "LatticeMap",
    "RankedPlane",
    "argmax_on_grid",
    "at_least",
    "back_project",
    "block_majority",
    "block_mean",
    "body_mask",
    "bounding_box",
    "bspline_basis",
    "check_angles",
    "check_labels",
    "connected_components",
    "control_positions",
    "control_shape",
    "covering_planes",
    "crop",
    "crop_patch",
    "detector_width",
    "dilate",
    "direction_angles",
    "enlarge",
    "erode",
    "even_planes",
    "evaluate_bspline",
    "fill_holes",
    "first_argmax",
    "inner_contour",
    "interpolate_slices",
    "keep_largest",
    "labelled_slices",
    "lattice_map",
    "locate_rois",
    "mirror_positions",
    "normalised_heat",
    "on_planes",
    "otsu_body",
    "paste",
    "pooled_label",
    "project",
    "pyramid_crop",
    "pyramid_crops",
    "ramp_filter",
    "random_planes",
    "rank_planes",
    "read_window",
    "resize_slices",
    "sample_positions",
    "scaled_box",
    "sector_angles",
    "signed_distances",
    "skeleton",
    "split_ignore",
    "split_slices",
    "spread_slices",
    "subsample",
    "upsample_nearest",
]
