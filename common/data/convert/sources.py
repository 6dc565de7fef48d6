"""One case of a data set as others hand it out: its label numbers, its grid, its grey values.

What is wrong with a case is a `Dropped` with the reason, so that a conversion goes on with the others.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

__all__ = ["Case", "Dropped", "hounsfield_fault", "open_volume", "read_numbers", "read_values", "slabs"]

_UNREADABLE = (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, ValueError, TypeError)
_SLAB = 16  # slices
_SHIFT = 0.05  # shares of a voxel's edge that a label may lie beside its image: what headers lose by rounding


class Dropped(Exception):
    """Why a case is left out of a conversion."""


@dataclass(frozen=True)
class Case:
    """One case of the source.

    Args:
        name: what its files will be called.
        image: file of its image; None where there is none.
        label: file or folder of its labels; None where there is none.
        split: the part that the data set's authors gave it to.
        refused: why it is left out without being read.
        patient: whom it is of, where several cases may be of one; None for a patient of its own.
    """

    name: str
    image: Path | None = None
    label: Path | None = None
    split: str | None = None
    refused: str | None = None
    patient: str | None = None


def open_volume(path: Path) -> SpatialImage:
    """A NIfTI volume with its header read.

    Raises:
        Dropped: when it can not be read or has not three axes.
    """
    try:
        volume = nibabel.load(path)
    except _UNREADABLE as error:
        raise Dropped(f"{path.name} can not be read ({_first_line(error)})") from error
    if len(volume.shape) != 3 or 0 in volume.shape:
        raise Dropped(f"{path.name} has shape {volume.shape}, not three axes")
    return volume


def read_values(volume: SpatialImage) -> tuple[np.ndarray, float, float]:
    """Stored values with the slope and intercept of the header, which take a volume's memory fewer than scaled ones.

    Returns:
        the values X Y Z in the dtype of the file, slope, intercept.

    Raises:
        Dropped: when they can not be read or are no numbers.
    """
    name = Path(volume.get_filename()).name
    try:
        values = np.asanyarray(volume.dataobj.get_unscaled())
    except _UNREADABLE as error:
        raise Dropped(f"{name} can not be read ({_first_line(error)})") from error
    if values.dtype.kind not in "iuf":
        raise Dropped(f"{name} holds {values.dtype}, not numbers")
    return values, float(volume.dataobj.slope), float(volume.dataobj.inter)


def read_numbers(path: Path, image: SpatialImage, highest: int) -> np.ndarray:
    """A label volume on the grid of its image, after the checks.

    Args:
        path: its file.
        image: the image.
        highest: numbers go from 0 to this.

    Returns:
        X Y Z, whole numbers.

    Raises:
        Dropped: another shape than the image, another place, values that are no whole numbers or not in the range.
    """
    volume = open_volume(path)
    if volume.shape != image.shape:
        raise Dropped(f"{path.name} has shape {volume.shape}, its image {image.shape}")
    shift = _shift(volume.affine, image.affine, image.shape)
    edge = float(np.linalg.norm(image.affine[:3, :3], axis=0).min())
    if not shift <= _SHIFT * edge:
        raise Dropped(f"{path.name} lies up to {shift:.3g} mm beside its image")
    values, slope, intercept = read_values(volume)
    if (slope, intercept) != (1.0, 0.0):
        values = values * slope + intercept
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int32)
        if not np.array_equal(whole, values):
            raise Dropped(f"{path.name} holds fractions, not the numbers of a label")
        values = whole
    unknown = _unknown(values, highest)
    if unknown:
        raise Dropped(f"{path.name} holds the unknown numbers {', '.join(map(str, unknown))}")
    return values


def slabs(shape: Sequence[int]) -> list[tuple[Any, ...]]:
    """Indices of a volume X Y Z, some slices at a time, for what would take many times its memory at once."""
    return [(..., slice(start, start + _SLAB)) for start in range(0, shape[2], _SLAB)]


def _unknown(values: np.ndarray, highest: int) -> list[int | str]:
    """The first numbers outside 0 to `highest`."""
    if values.min() >= 0 and values.max() <= highest:
        return []
    found: set[int] = set()
    for part in slabs(values.shape):
        slab = values[part]
        found.update(np.unique(slab[(slab < 0) | (slab > highest)]).tolist())
    known = sorted(found)
    return known if len(known) <= 8 else [*known[:8], "..."]


def _shift(first: np.ndarray, second: np.ndarray, shape: Sequence[int]) -> float:
    """The farthest way in mm between the places that two affines give a corner of the volume."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())


def hounsfield_fault(
    values: np.ndarray,
    slope: float,
    intercept: float,
    organ: np.ndarray,
    *,
    name: str = "liver, spleen and pancreas",
    air: float = -500.0,
    least: int = 100,
) -> str | None:
    """Why grey values are no Hounsfield units; None where nothing speaks against it.

    Three signs are looked for: values that do not differ or are not finite, no air anywhere (an offset that is not in
    the header, values cut off at a window, another modality), soft organs whose median is not that of tissue.

    Args:
        values: X Y Z, as stored.
        slope: of the header.
        intercept: of the header.
        organ: X Y Z bool, soft organs.
        name: what they are called.
        air: HU below which some voxel of a scan must lie.
        least: voxels of `organ` that a median is taken of.
    """
    low, high = sorted(slope * float(edge) + intercept for edge in (values.min(), values.max()))
    if not (np.isfinite(low) and np.isfinite(high)):
        return "its image holds values that are not finite"
    if low == high:
        return f"its image is {low:g} everywhere"
    if low > air:
        return f"its image has no air (its values are {low:g} to {high:g}), so they are no Hounsfield units"
    tissue = values[organ]
    if tissue.size >= least:
        median = slope * float(np.median(tissue)) + intercept
        if not -100 <= median <= 300:
            return f"the median of its {name} is {median:g}, which is not that of tissue in HU"
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return re.sub(r"(/[^\s'\"]*/)", "", lines[0])  # folders may name people
