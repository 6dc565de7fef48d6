"""Files of a converted data set: images as they are, labels on their grid."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage

__all__ = ["grid_header", "place_image", "write_label"]

_GRID = ("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d")
_GRID += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


def place_image(source: Path, target: Path, linked: bool) -> None:
    """Put an image as it is into a data set: a ``.nii.gz`` by a hard link or a copy, a ``.nii`` compressed.

    Args:
        source: the file.
        target: where to, a ``.nii.gz``.
        linked: whether a link will do where the disk allows one.
    """
    source = source.resolve()
    if not source.name.lower().endswith(".gz"):
        with open(source, "rb") as stream, gzip.GzipFile(target, "wb", compresslevel=3, mtime=0) as packed:
            shutil.copyfileobj(stream, packed)
        return
    if linked:
        with contextlib.suppress(OSError):  # another disk, or one without links
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def grid_header(header: nibabel.Nifti1Header) -> nibabel.Nifti1Header:
    """A header with the grid of another, field for field, and nothing else of it."""
    grid = nibabel.Nifti1Header()
    for field in _GRID:
        grid[field] = header[field]
    return grid


def write_label(labels: np.ndarray, image: SpatialImage, path: Path) -> None:
    """Write classes with the grid of the image, field for field, and nothing else of its header."""
    header = grid_header(image.header)
    header.set_data_dtype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, None, header), path)
