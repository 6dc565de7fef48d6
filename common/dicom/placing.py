"""Where a label lies on the images of its series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..checks import InputError, problem
from .headers import Plane
from .series import Series

__all__ = ["on_images"]

_PLACE = 0.3  # of a voxel: by how much a pixel of the series may miss the voxel of the label that is meant
_TURN = 2e-3  # of an edge of a voxel, from one pixel to the next
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS mm to DICOM's mm and back


@dataclass(frozen=True)
class _Step:
    """How to walk through a label to see what an image of the series shows.

    Args:
        axis: of the label, across the image.
        index: of the slice along it.
        columns: axis along which the image's columns are counted, and its direction, 1 or -1.
        rows: likewise for its rows.
    """

    axis: int
    index: int
    columns: tuple[int, int]
    rows: tuple[int, int]


def on_images(label: np.ndarray, affine: np.ndarray, series: Series) -> np.ndarray:
    """What the images of a series show of a label that lies on them: mirrored and permuted, never resampled.

    Args:
        label: X Y Z.
        affine: 4 x 4, voxel to RAS mm.
        series: the images.

    Returns:
        images x rows x columns, in the order of ``series.planes``.

    Raises:
        InputError: the pixels of the images lie on no voxels of the label, or a slice of it on no image.
    """
    return np.stack([_frame(label, step) for step in _steps(label.shape, affine, series)])


def _frame(label: np.ndarray, step: _Step) -> np.ndarray:
    """Rows x columns of what an image of the series shows of the label."""
    (column_axis, column_way), (row_axis, row_way) = step.columns, step.rows
    plane = np.take(label, step.index, axis=step.axis)
    plane = plane if row_axis < column_axis else plane.T
    return plane[::row_way, ::column_way]


def _steps(shape: Sequence[int], affine: np.ndarray, series: Series) -> list[_Step]:
    """The way through the label for every image of a series; every slice of the label belongs to one of them."""
    inverse = np.linalg.inv(_LPS @ np.asarray(affine, np.float64))
    steps = [_step(shape, inverse, plane) for plane in series.planes]
    apart = {(step.axis, step.index) for step in steps if step is not None}
    if None in steps or len(apart) < len(steps) or len(steps) != shape[steps[0].axis]:
        raise InputError(
            problem(
                f"the label of {series.name}, {'x'.join(map(str, shape))} voxels, does not lie on the"
                f" {series.images} images of its series",
                "DICOM SEG is written on the images' own pixels, one slice for each",
                "give the label on the grid of the series, as predict writes it",
            )
        )
    return steps


def _step(shape: Sequence[int], inverse: np.ndarray, plane: Plane) -> _Step | None:
    """The way through a label for one image; None where its pixels lie on no voxels of the label."""
    if plane.position is None or plane.orientation is None or plane.edges is None:
        return None
    start = inverse[:3, :3] @ plane.position + inverse[:3, 3]
    ways = []
    for direction, edge in zip((plane.orientation[:3], plane.orientation[3:]), plane.edges, strict=True):
        move = inverse[:3, :3] @ (np.asarray(direction) * edge)
        axis = int(np.abs(move).argmax())
        way = 1 if move[axis] > 0 else -1
        if np.abs(move - way * np.eye(3)[axis]).max() > _TURN:
            return None
        ways.append((axis, way))
    (first, _), (second, _) = ways
    if first == second:
        return None
    across = 3 - first - second
    for (axis, way), size in zip(ways, plane.size, strict=True):
        if size != shape[axis] or abs(start[axis] - (0 if way > 0 else size - 1)) > _PLACE:
            return None
    index = round(float(start[across]))
    if abs(start[across] - index) > _PLACE or not 0 <= index < shape[across]:
        return None
    return _Step(across, index, *ways)
