"""A few slices that somebody drew, as one label of classes on the image's grid, and what was taken them to mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..checks import InputError, problem
from ..geometry.planes import covering_planes, on_planes
from .annotation_files import DrawnFile, no_labels, read_drawn
from .unlabelled import drawn_voxels, parse_unlabelled, read_unlabelled
from .volume_file import VolumeFile

__all__ = ["Annotation", "annotated_planes", "merge", "read_annotation", "to_values"]

DISPUTED = ("error", "unlabelled", "last")
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64")
_MOST_CLASSES = 255
_MANY_VALUES = 64
_NUMBERED = 20  # label values, beyond which they are rather numbers of objects than classes


@dataclass(frozen=True)
class Annotation:
    """What was drawn on an image.

    Args:
        label: X Y Z, uint8; classes 0 .. K - 1, and K where nobody labelled.
        values: for each class the value that the user's files have for it.
        planes: for each array axis the indices of the annotated planes across it, rising.
        unlabelled: how the files are read: the value that is unlabelled, ``"planes"``, or None (all that they cover
            is labelled). Further slices of the same image are read alike by giving it.
        notes: what was found and done, one sentence each; what deserves a second look begins with "Warning:".
    """

    label: np.ndarray
    values: tuple[int, ...]
    planes: list[list[int]]
    unlabelled: int | str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.values)

    @property
    def ignore_index(self) -> int:
        """The label of voxels that nobody labelled, K."""
        return len(self.values)

    @cached_property
    def voxels(self) -> list[int]:
        """How many voxels were labelled as each class."""
        return np.bincount(self.label.ravel(), minlength=self.num_classes)[: self.num_classes].tolist()


def read_annotation(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    image: VolumeFile,
    unlabelled: int | str | None = None,
    classes: Sequence[int] | None = None,
    disputed: str = "error",
    key: str | None = None,
) -> Annotation:
    """Read the slices that somebody drew on an image.

    Args:
        paths: one file or several, on the image's voxels (see :func:`read_drawn`).
        image: the volume.
        unlabelled: the value of voxels that nobody labelled; ``"planes"``: 0 is a class on annotated slices and
            unlabelled elsewhere; None finds out (see :func:`read_unlabelled`). Text is understood.
        classes: label values of classes that are known already, in their order; other values come after them, rising.
        disputed: what becomes of a voxel that two files label differently: ``"error"``, ``"unlabelled"``, or
            ``"last"`` (the later file counts).
        key: data set of HDF5 files.

    Returns:
        the annotation.

    Raises:
        InputError: slices that do not fit the image, that are no label, that can be read in several ways, that
            disagree; nothing labelled, nothing left to label, or one class only.
    """
    if disputed not in DISPUTED:
        raise InputError(
            problem(f"disputed is {disputed!r}", f"it must be one of {', '.join(DISPUTED)}", "choose one of them")
        )
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError(problem("no slices were given", "at least one file of them is needed", "name it"))
    files: list[DrawnFile] = []
    notes: list[str] = []
    for path in given:
        drawn, told = read_drawn(path, image, key)
        files.append(drawn)
        notes += told
    said = parse_unlabelled(unlabelled)
    if said is None:
        _check_values(files, image)
    reading = read_unlabelled(files, said, image.shape)
    notes.append(reading.note)
    masks = [drawn_voxels(drawn, reading.unlabelled) for drawn in files]
    values = _values(files, masks, classes)
    label = _join(files, masks, values, image.shape, disputed, notes)
    found = Annotation(label, values, annotated_planes(label, len(values)), reading.unlabelled, notes)
    _check(found, files, alone=classes is None)
    notes += _describe(found)
    return found


def annotated_planes(label: np.ndarray, ignore_index: int) -> list[list[int]]:
    """The planes that hold what is labelled, wholly or in part; see :func:`covering_planes`.

    Args:
        label: X Y Z.
        ignore_index: label of unlabelled voxels.

    Returns:
        for each axis the indices of the planes across it, rising.
    """
    return covering_planes(np.asarray(label) != ignore_index)


def merge(old: Annotation, new: Annotation) -> Annotation:
    """Add slices that were drawn later; where both label a voxel the new ones count.

    Args:
        old: what was drawn before; its classes keep their numbers.
        new: what was drawn since, on the same grid.

    Returns:
        both; the notes say how many voxels were labelled anew and otherwise.

    Raises:
        InputError: another grid, too many classes, or nothing left to label.
    """
    if old.label.shape != new.label.shape:
        raise InputError(
            problem(
                f"the new slices have shape {new.label.shape} and the old ones {old.label.shape}",
                "both must belong to the same image",
                "start in another folder",
            )
        )
    added = tuple(value for value in new.values if value not in old.values)
    values = (*old.values, *added)
    _check_number(values)
    label = np.where(old.label == old.ignore_index, len(values), old.label).astype(np.uint8)
    fresh = new.label != new.ignore_index
    there = np.array([values.index(value) for value in new.values], np.uint8)[new.label[fresh]]
    before = label[fresh]
    anew, changed = int((before == len(values)).sum()), int(((before != len(values)) & (before != there)).sum())
    label[fresh] = there
    notes = [*new.notes, f"{anew} voxels were labelled that were not before, and {changed} were labelled otherwise."]
    if added:
        notes.append(f"New classes: {', '.join(map(str, added))}.")
    planes = [sorted({*before, *after}) for before, after in zip(old.planes, new.planes, strict=True)]
    merged = Annotation(label, values, planes, old.unlabelled, notes)
    _check_left(merged)
    return merged


def to_values(label: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """The user's label values from numbers of classes.

    Args:
        label: class numbers of any shape, 0 .. K - 1.
        values: for each class its value.

    Returns:
        the values, in the smallest whole dtype that holds them.

    >>> to_values(np.array([0, 1, 1]), (0, 100)).tolist()
    [0, 100, 100]
    """
    dtype = next(name for name in _DTYPES if np.iinfo(name).min <= min(values) and max(values) <= np.iinfo(name).max)
    return np.asarray(values, dtype)[np.asarray(label)]


def _values(files: Sequence[DrawnFile], masks: Sequence[np.ndarray], classes: Sequence[int] | None) -> tuple[int, ...]:
    known = [int(value) for value in classes or ()]
    found = {int(value) for file, mask in zip(files, masks, strict=True) for value in np.unique(file.values[mask])}
    values = (*known, *sorted(found - set(known)))
    _check_number(values)
    return values


def _join(
    files: Sequence[DrawnFile],
    masks: Sequence[np.ndarray],
    values: tuple[int, ...],
    shape: Sequence[int],
    disputed: str,
    notes: list[str],
) -> np.ndarray:
    """One label from all files."""
    nobody = len(values)
    label = np.full(tuple(shape), nobody, np.uint8)
    fought = np.zeros(tuple(shape), bool)
    for number, (file, mask) in enumerate(zip(files, masks, strict=True)):
        order = np.argsort(values)
        classes = order[np.searchsorted(values, file.values[mask], sorter=order)].astype(np.uint8)
        part = label[file.box]
        before = part[mask]
        differs = (before != nobody) & (before != classes)
        if differs.any():
            where = np.argwhere(mask)[differs] + file.start
            first = tuple(int(index) for index in where[0])
            told = f"{int(differs.sum())} voxels, the first at {first}: {values[before[differs][0]]} and then "
            told += f"{values[classes[differs][0]]} in '{file.name}'"
            if disputed == "error":
                raise InputError(
                    problem(
                        f"the slices disagree at {told}",
                        f"a voxel has one label ('{file.name}' is file {number + 1} of {len(files)})",
                        "correct one of them, or pass --disputed unlabelled or --disputed last",
                    )
                )
            notes.append(f"Warning: the slices disagree at {told}; {_SETTLED[disputed]}.")
            fought[tuple(where.T)] = True
        part[mask] = classes
    if disputed == "unlabelled":
        label[fought] = nobody
    return label


_SETTLED = {"unlabelled": "these voxels count as unlabelled", "last": "the later file counts"}


def _check_number(values: Sequence[int]) -> None:
    if len(values) > _MOST_CLASSES:
        raise InputError(
            problem(
                f"the slices hold {len(values)} classes",
                f"there can be at most {_MOST_CLASSES}",
                "give classes, not a number for each object",
            )
        )


def _check_values(files: Sequence[DrawnFile], image: VolumeFile) -> None:
    """Refuse what is more likely an image, or dense numbered objects, while nobody says that it is not."""
    many = max(files, key=lambda file: len(file.counts))
    if len(many.counts) > _MANY_VALUES:
        raise InputError(no_labels(f"'{many.name}' holds {len(many.counts)} different values", many.name, image))


def _check(found: Annotation, files: Sequence[DrawnFile], alone: bool) -> None:
    if not any(found.voxels):
        held = sorted({value for file in files for value in file.counts})
        raise InputError(
            problem(
                f"nothing is labelled: the slices hold {', '.join(map(str, held[:8]))} and unlabelled is "
                f"{found.unlabelled}",
                "some voxels must be labelled",
                "draw some slices, or give another --unlabelled",
            )
        )
    _check_left(found)
    if alone and sum(count > 0 for count in found.voxels) < 2:
        raise InputError(
            problem(
                f"only one class is labelled, value {found.values[0]}",
                "two classes at least must be told apart, background being one",
                "pass --unlabelled planes if the rest of the slices that were drawn is background, or draw a second "
                "class",
            )
        )


def _check_left(found: Annotation) -> None:
    if not (found.label == found.ignore_index).any():
        missing = ""
        if isinstance(found.unlabelled, int):
            missing = f" (no voxel has the unlabelled value {found.unlabelled})"
        raise InputError(
            problem(
                f"every voxel is labelled{missing}, with the values {', '.join(map(str, found.values[:8]))}",
                "some voxels must be left to fill",
                "pass the value that is unlabelled with --unlabelled; a dense label needs no filling",
            )
        )


def _describe(found: Annotation) -> list[str]:
    """What is annotated, and what deserves a second look."""
    counts = [len(of_axis) for of_axis in found.planes]
    used = [axis for axis, count in enumerate(counts) if count]
    share = sum(found.voxels) / found.label.size
    where = "; ".join(f"across {'xyz'[axis]} {_shown(found.planes[axis])}" for axis in used)
    classes = ", ".join(f"{value} ({count})" for value, count in zip(found.values, found.voxels, strict=True))
    notes = [
        f"Annotated slices (counted from 0): {where}; {share:.1%} of the voxels are labelled.",
        f"Label values (voxels): {classes}.",
    ]
    apart = int(((found.label != found.ignore_index) & ~on_planes(found.label.shape, found.planes)).sum())
    if apart:
        notes.append(
            f"Warning: {apart} labelled voxels lie apart from these slices, each slice of theirs with less than a "
            "hundredth of what the fullest holds: they count as drawn, the slices they lie on do not."
        )
    if len(found.values) > _NUMBERED:
        notes.append(
            f"Warning: each of these {len(found.values)} values is learned as a class of its own. Where they number "
            "objects of one kind (cells, nuclei), give them one value before."
        )
    if len(used) == 1:
        notes.append(
            f"Warning: slices were drawn across {'xyz'[used[0]]} only; a slice or two across another axis help to join "
            "them."
        )
    return notes


def _shown(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:12]))
    return shown + (f", ... ({len(indices)})" if len(indices) > 12 else "")
