"""Files of annotated slices, brought to the grid of the image that they belong to."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import numpy as np

from ..checks import InputError, problem
from ..geometry.lattice import LatticeMap, OffLattice, lattice_map
from .volume_file import VolumeFile, read_volume
from .volume_hdf5 import LABEL_KEYS

__all__ = ["DrawnFile", "looks_like_labels", "no_labels", "read_drawn"]

_MOST_VALUES = 255
_FEW_VALUES = 32
_MM = {"micron": 1e-3, "mm": 1.0, "meter": 1e3}


@dataclass(frozen=True)
class DrawnFile:
    """A file of annotated slices on the image's grid.

    Args:
        name: of the file.
        values: A B C, whole numbers, the part of the file that lies inside of the image, in the image's axes.
        start: X Y Z, where in the image its first voxel lies.
        counts: how many voxels have each value.
    """

    name: str
    values: np.ndarray
    start: tuple[int, int, int]
    counts: dict[int, int]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of the image that the file covers."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.values.shape, strict=True))  # type: ignore[return-value]


def read_drawn(path: str | os.PathLike[str], image: VolumeFile, key: str | None = None) -> tuple[DrawnFile, list[str]]:
    """Read a file of annotated slices and bring it to the image's grid, by permuting, flipping and placing alone.

    A file that states where its voxels lie, beside an image that does, is found by that: its voxels must lie on the
    image's lattice, but may be fewer, and come in another order. Otherwise its shape must be the image's.

    Args:
        path: the file.
        image: the volume.
        key: data set of an HDF5 file.

    Returns:
        the drawn slices and what was done to them, one sentence each.

    Raises:
        InputError: an unreadable file, another shape, orientation, spacing or position, or values that are no labels.
    """
    drawn = read_volume(path, key=key, prefer=LABEL_KEYS)
    name = drawn.path.name
    notes = [note for note in drawn.notes if "edges" not in note]
    if drawn.channels > 1:
        raise InputError(
            problem(
                f"'{name}' has {drawn.channels} channels",
                "a label has one number a voxel (no colours, no layers that overlap)",
                "save the label's numbers as a single layer",
            )
        )
    values = _whole(drawn, image)
    if drawn.placed and image.placed:
        values, start = _place(values, drawn, image, notes)
    else:
        _check_shape(drawn, image)
        start = (0, 0, 0)
        if drawn.placed or image.placed:
            lacking = image.path.name if drawn.placed else name
            notes.append(f"'{lacking}' does not say where it lies: '{name}' was placed by its shape alone.")
    found, counts = _counts(values)
    if len(found) > _MOST_VALUES:
        raise InputError(no_labels(f"'{name}' holds {len(found)} different values", name, image))
    tally = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return DrawnFile(name, values, start, tally), notes


def looks_like_labels(array: np.ndarray) -> bool:
    """Whether a volume holds few different whole numbers, as labels do and grey values do not."""
    found = np.unique(array)
    return len(found) <= _FEW_VALUES and bool(np.all(np.isfinite(found)) and np.all(found == np.rint(found)))


def _whole(drawn: VolumeFile, image: VolumeFile) -> np.ndarray:
    """The values as whole numbers."""
    array, name = drawn.array, drawn.path.name
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind in "iu":
        return array
    good = np.isfinite(array)
    np.equal(array, np.rint(array), out=good, where=good)
    if good.all():
        return array.astype(np.int64)
    first = tuple(int(index) for index in np.unravel_index(np.argmin(good), good.shape))
    came = f"'{name}' holds {array[first]:g} at voxel {first}, which is no whole number"
    raise InputError(no_labels(came, name, image))


def _counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values, rising, and how many voxels have each."""
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 16:
        return np.unique(values, return_counts=True)
    counts = np.zeros(high - low + 1, np.int64)
    for slab in values:  # counting needs a wider copy, which is small for one plane
        counts += np.bincount(slab.ravel().astype(np.int64) - low, minlength=len(counts))
    found = np.flatnonzero(counts)
    return found + low, counts[found]


def no_labels(came: str, name: str, image: VolumeFile) -> str:
    """The error text for slices that look like grey values.

    Args:
        came: what was found.
        name: of their file.
        image: the volume, which is looked at: it may be the label.
    """
    if looks_like_labels(image.array):
        return problem(
            f"{came}, and '{image.path.name}' holds a few whole numbers",
            "the image comes first and the slices that were drawn after it",
            f"swap '{image.path.name}' and '{name}'",
        )
    return problem(
        f"{came}: they look like grey values, or like a number for each object",
        f"a label holds a whole number for each class, at most {_MOST_VALUES} of them",
        "give the file of the classes that were drawn, or say with --unlabelled which of these values is none of them",
    )


def _place(
    values: np.ndarray, drawn: VolumeFile, image: VolumeFile, notes: list[str]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The part inside of the image, in the image's axes, and where it begins."""
    name = drawn.path.name
    try:
        found = _in_one_unit(drawn, image)
    except OffLattice as error:
        raise InputError(
            problem(
                f"'{name}' has {error} (shape {_by(drawn.shape)}, the image '{image.path.name}' {_by(image.shape)})",
                "slices must lie on the image's own voxels",
                "draw on this very image, or resample the label to it by nearest neighbour",
            )
        ) from error
    turned, start = found.turn(values), found.start(values.shape)
    low = [max(first, 0) for first in start]
    high = [min(first + size, whole) for first, size, whole in zip(start, turned.shape, image.shape, strict=True)]
    if any(first >= last for first, last in zip(low, high, strict=True)):
        raise InputError(
            problem(
                f"'{name}' lies outside of '{image.path.name}' (its first voxel would be voxel {start})",
                "slices must lie in the image",
                "check that both belong to the same scan",
            )
        )
    inside = turned[tuple(slice(f - s, t - s) for f, t, s in zip(low, high, start, strict=True))]
    _tell_placing(name, found, inside.shape, turned.shape, image, low, notes)
    return inside, tuple(low)  # type: ignore[return-value]


def _in_one_unit(drawn: VolumeFile, image: VolumeFile) -> LatticeMap:
    """The map, with the affines in one unit where both files state theirs, else by their bare numbers.

    Tools built on ITK turn micrometres into millimetres when they save; others keep the numbers and drop the unit.
    """
    scale = np.diag([_MM.get(drawn.unit, 1.0) / _MM.get(image.unit, 1.0)] * 3 + [1.0])
    stated = drawn.unit in _MM and image.unit in _MM
    try:
        return lattice_map(scale @ drawn.affine if stated else drawn.affine, image.affine, drawn.shape)
    except OffLattice:
        if not stated or drawn.unit == image.unit:
            raise
        return lattice_map(drawn.affine, image.affine, drawn.shape)


def _tell_placing(
    name: str,
    found: LatticeMap,
    inside: tuple[int, ...],
    turned: tuple[int, ...],
    image: VolumeFile,
    low: list[int],
    notes: list[str],
) -> None:
    done = []
    if found.permuted:
        done.append("its axes were put in the image's order")
    if found.flipped:
        done.append(f"it was flipped along {' and '.join('xyz'[axis] for axis in found.flipped)}")
    if inside != tuple(image.shape):
        done.append(f"its {_by(inside)} voxels were placed at voxel {tuple(low)}")
    if inside != turned:
        done.append(f"{int(np.prod(turned) - np.prod(inside))} voxels outside of the image were left out")
    if done:
        notes.append(f"'{name}' does not have the image's grid, but lies on its voxels: {', '.join(done)}.")


def _check_shape(drawn: VolumeFile, image: VolumeFile) -> None:
    if drawn.shape == image.shape:
        return
    name, came = drawn.path.name, f"'{drawn.path.name}' has shape {_by(drawn.shape)} (x y z)"
    beside = f"the image '{image.path.name}' has {_by(image.shape)}"
    orders = [
        order for order in itertools.permutations(range(3)) if tuple(drawn.shape[a] for a in order) == image.shape
    ]
    if orders:
        raise InputError(
            problem(
                f"{came} and {beside}: the same axes in another order",
                "without an affine in both files a label must have the image's order of axes",
                f"transpose it to {''.join('xyz'[axis] for axis in orders[0])}, or save both as NIfTI",
            )
        )
    raise InputError(
        problem(
            f"{came} and {beside}",
            "a label without an affine must have the image's shape, unlabelled where nothing was drawn",
            f"save '{name}' as a whole volume, or both as NIfTI",
        )
    )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
