"""A volume of three classes, of which slices are drawn and saved."""

from __future__ import annotations

import nibabel
import numpy as np

from common.geometry.planes import on_planes

SHAPE = (24, 20, 16)
AFFINE = np.array([[-0.8, 0, 0.1, 11], [0, -0.9, 0, 22], [0.2, 0, 2.5, -33], [0, 0, 0, 1]])
GRID = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
BALL = ((GRID - (12, 10, 8)) ** 2).sum(-1) <= 36  # the object, labelled 1, in a background of 0
SCATTER = np.random.default_rng(0).random(SHAPE)
CLASSES = np.where(BALL, 1, np.where(GRID[..., 0] < 12, 0, 2)).astype(np.uint8)


def saved(path, array, affine=AFFINE, unit="mm"):
    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def sparse(dense, planes, unlabelled):
    return np.where(on_planes(dense.shape, planes), dense, unlabelled).astype(dense.dtype)
