"""Which value of drawn slices means that nobody has labelled a voxel, told by the user or found from what was drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..checks import InputError, problem
from ..geometry.planes import covering_planes, on_planes
from .annotation_files import DrawnFile
from .arguments import parse_integer

__all__ = ["PLANES", "Reading", "drawn_voxels", "parse_unlabelled", "read_unlabelled"]

PLANES = "planes"
_FULL = 0.9  # share of the annotated planes' voxels that must differ from the unlabelled value
_BESIDE = 0.5  # share of the planes with a neighbour among them, above which a label looks dense
_CANDIDATES = 4
_RARE = 0.2  # share of all voxels; with _FULL this leaves at least half of the value on no annotated plane


@dataclass(frozen=True)
class Reading:
    """How files of drawn slices are read.

    Args:
        unlabelled: the value of voxels that nobody labelled; `PLANES`: 0 is a class on the annotated planes, and
            unlabelled elsewhere; None: all that the files cover is labelled.
        note: how that was found, one sentence.
    """

    unlabelled: int | str | None
    note: str


def parse_unlabelled(value: int | str | None) -> int | str | None:
    """A label value, the word ``"planes"``, or None (to be found), from an argument or text.

    >>> parse_unlabelled("255"), parse_unlabelled("Planes"), parse_unlabelled("none")
    (255, 'planes', None)
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null", "auto")):
        return None
    if isinstance(value, str) and value.strip().lower() == PLANES:
        return PLANES
    try:
        return parse_integer(value, "unlabelled")
    except InputError as error:
        raise InputError(
            problem(
                f"unlabelled is {value!r}",
                "it must be the label value of voxels that nobody labelled, or the word planes (0 is a class on the "
                "slices that were drawn, and unlabelled elsewhere)",
                "pass for example --unlabelled 0",
            )
        ) from error


def read_unlabelled(files: Sequence[DrawnFile], given: int | str | None, shape: Sequence[int]) -> Reading:
    """Which value is unlabelled.

    Where it is not given, it is found from the planes that hold all voxels that differ from a candidate, the commonest
    values first, down to a fifth of all voxels. A candidate is unlabelled when these planes are full (nine tenths of
    their voxels differ from it), so that at least half of its own voxels lie elsewhere; of two values only the
    commoner, when they are full to the last voxel. When no value is and there is 0, the slices are read as drawn over a
    background of 0 that was annotated where something was drawn: 0 is a class on these planes. Files without 0 that
    cover a part of the image only may be labelled throughout.

    Args:
        files: the drawn slices.
        given: what `parse_unlabelled` made of the user's word.
        shape: X Y Z, of the image.

    Returns:
        the reading.

    Raises:
        InputError: when nothing fits, or when a label looks dense, so that the user must say it.
    """
    if given is not None:
        said = "0 is a class on annotated slices and unlabelled elsewhere" if given == PLANES else f"value {given}"
        return Reading(given, f"Unlabelled, as given: {said}.")
    counts: Counter[int] = Counter()
    for file in files:
        counts.update(file.counts)
    for rank, (value, count) in enumerate(counts.most_common(_CANDIDATES)):
        # with two values, one unlabelled leaves one class: rather the other was drawn around, if ever so little
        if count < _RARE * counts.total() or (rank and len(counts) == 2):
            break
        full, planes = _fit(files, value)
        if full >= (1 if len(counts) == 2 else _FULL):
            note = f"Unlabelled was found to be value {value}: the {planes} annotated slices are full of other values."
            return Reading(value, note)
    if 0 in counts:
        return _read_planes(files)
    if all(file.values.shape != tuple(shape) for file in files):
        return Reading(None, "No value was found to be unlabelled: all that the files cover is labelled, and no more.")
    raise InputError(
        problem(
            f"the slices hold the values {_shown(counts)} and none of them looks unlabelled",
            "one value must mark the voxels that nobody labelled",
            "name it with --unlabelled VALUE; where every voxel is labelled, there is nothing to fill up",
        )
    )


def drawn_voxels(file: DrawnFile, unlabelled: int | str | None) -> np.ndarray:
    """The voxels of a file that somebody labelled.

    Args:
        file: the drawn slices.
        unlabelled: as in a `Reading`.

    Returns:
        A B C, bool, of the file's own part of the image.
    """
    if unlabelled is None:
        return np.ones(file.values.shape, bool)
    if unlabelled != PLANES:
        return file.values != unlabelled
    drawn = file.values != 0
    return drawn | on_planes(drawn.shape, covering_planes(drawn))


def _fit(files: Sequence[DrawnFile], value: int) -> tuple[float, int]:
    """How full of other values the planes are that hold these, and how many planes there are."""
    held = filled = planes = 0
    for file in files:
        drawn = file.values != value
        found = covering_planes(drawn)
        planes += sum(map(len, found))
        on = on_planes(drawn.shape, found)
        held += int(on.sum())
        filled += int((drawn & on).sum())
    return filled / max(held, 1), planes


def _read_planes(files: Sequence[DrawnFile]) -> Reading:
    planes: list[set[int]] = [set(), set(), set()]
    for file in files:
        for axis, indices in enumerate(covering_planes(file.values != 0)):
            planes[axis] |= {index + file.start[axis] for index in indices}
    total = sum(map(len, planes))
    beside = sum(bool({index - 1, index + 1} & of_axis) for of_axis in planes for index in of_axis)
    if total > 2 and beside / total > _BESIDE:
        raise InputError(
            problem(
                f"what is not 0 lies on {total} slices, {beside} of them side by side, as in a dense label",
                "it must be known whether 0 on these slices was looked at, or is unlabelled",
                "pass --unlabelled planes if 0 on these slices is background and all other slices are unlabelled, or "
                "--unlabelled 0 if nothing is labelled but what is not 0",
            )
        )
    note = (
        f"What was drawn lies on {total} of the slices and does not fill them: 0 is read as a class (background) "
        "there and as unlabelled elsewhere; pass --unlabelled 0 if 0 is unlabelled everywhere."
    )
    return Reading(PLANES, note)


def _shown(values: Counter[int]) -> str:
    some = sorted(values)[:8]
    return ", ".join(map(str, some)) + (", ..." if len(values) > len(some) else "")
