"""What the converters of angiographies share: the Decathlon folder made of their cases, labelled or not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...checks import parse_flag
from .placing import place_image, write_label
from .sources import Case, Dropped, open_volume, read_numbers, read_values, slabs
from .writing import write_cases

__all__ = ["VESSEL", "convert_angiograms"]

VESSEL = ("background", "vessel")


def convert_angiograms(
    cases: Iterable[Case],
    out_dir: str | os.PathLike[str],
    content: Mapping[str, Any],
    *,
    names: Sequence[str] = VESSEL,
    table: Sequence[int | None] | None = None,
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write cases as a Decathlon folder, whole or not at all.

    An image that is a ``.nii.gz`` becomes a hard link (a copy on another disk), a ``.nii`` is compressed: header and
    voxels stay as they are. Labels are made anew, on the image's grid; a case without one is listed under ``test``. A
    case with a fault is left out and listed, with the reason, under ``dropped`` in ``dataset.json``; one case is in
    memory at a time.

    Args:
        cases: what is converted, those already refused included.
        out_dir: folder to make.
        content: name, description, licence, reference, modality and the like for ``dataset.json``.
        names: of the classes, background first.
        table: class of every number in the files, None for a number that is not known; without it every number up to
            255 but 0 is class 1.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report, also written as ``conversion.json``: ``cases`` with shape, range of intensities and, where
        labelled, voxels of each class; ``dropped``.

    Raises:
        InputError: two cases of one name, not one case left, `out_dir` exists or can not be written.
    """
    linked = not parse_flag(copy, "copy")
    classes = [0] + [1] * 255 if table is None else list(table)

    def convert_one(case: Case, folder: Path) -> dict[str, Any]:
        return _convert_one(case, folder, names, classes, linked)

    labels = {str(number): name for number, name in enumerate(names)}
    return write_cases(cases, out_dir, convert_one, content, labels, overwrite=overwrite)


def _convert_one(
    case: Case, folder: Path, names: Sequence[str], table: Sequence[int | None], linked: bool
) -> dict[str, Any]:
    """Check and write one case, and tell what was done."""
    if case.image is None:
        raise Dropped("it has no image")
    image = open_volume(case.image)
    values, slope, intercept = read_values(image)
    low, high = sorted(slope * float(edge) + intercept for edge in (values.min(), values.max()))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Dropped("its image holds values that are not finite")
    if low == high:
        raise Dropped(f"its image is {low:g} everywhere")
    told: dict[str, Any] = {"shape": list(image.shape), "intensities": [low, high]}
    if case.label is None:
        place_image(case.image, folder / "imagesTs" / f"{case.name}.nii.gz", linked)
        return told
    labels = _classes(case.label, read_numbers(case.label, image, len(table) - 1), table)
    voxels = [int(np.count_nonzero(labels == number)) for number in range(len(names))]
    if not any(voxels[1:]):
        raise Dropped("no vessel is labelled in it")
    place_image(case.image, folder / "imagesTr" / f"{case.name}.nii.gz", linked)
    write_label(labels, image, folder / "labelsTr" / f"{case.name}.nii.gz")
    return told | {"voxels": dict(zip(names, voxels, strict=True))}


def _classes(path: Path, numbers: np.ndarray, table: Sequence[int | None]) -> np.ndarray:
    """Classes X Y Z, uint8, of the numbers of a label.

    Raises:
        Dropped: for a number that stands for nothing.
    """
    unknown = [number for number, stands_for in enumerate(table) if stands_for is None]
    found = np.unique(numbers[np.isin(numbers, unknown)]) if unknown else []
    if len(found):
        raise Dropped(f"{path.name} holds the unknown numbers {', '.join(map(str, found))}")
    lookup = np.array([stands_for or 0 for stands_for in table], np.uint8)
    labels = np.empty(numbers.shape, np.uint8)
    for slab in slabs(numbers.shape):
        labels[slab] = lookup[numbers[slab]]
    return labels
