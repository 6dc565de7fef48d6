"""What the converters of abdominal CT share: the seven organs of the cascade, and the Decathlon folder made of cases.

Organs: roth2017hierarchical, section 3 (artery, portal vein, liver, spleen, stomach, gallbladder, pancreas).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage

from ...checks import InputError, parse_flag, problem
from .placing import place_image, write_label
from .sources import Case, Dropped, hounsfield_fault, open_volume, read_numbers, read_values, slabs
from .writing import write_cases

__all__ = ["CLASSES", "Reader", "convert_organs", "mapped_reader", "select_split"]

CLASSES = ("background", "artery", "portal vein", "liver", "spleen", "stomach", "gallbladder", "pancreas")
# the classes of a case (X Y Z, uint8, on the grid of its image), and what else is to be remembered of it
Reader = Callable[[Case, SpatialImage], tuple[np.ndarray, dict[str, Any]]]
_SOFT = [CLASSES.index(name) for name in ("liver", "spleen", "pancreas")]


def convert_organs(
    cases: Iterable[Case],
    out_dir: str | os.PathLike[str],
    read_label: Reader,
    content: Mapping[str, Any],
    *,
    labelled: Iterable[int] = range(1, len(CLASSES)),
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write cases as a Decathlon folder, whole or not at all.

    An image that is a ``.nii.gz`` becomes a hard link (a copy on another disk), a ``.nii`` is compressed: header and
    voxels stay as they are. Labels are made anew, on the image's grid. A case with a fault is left out and listed, with
    the reason, under ``dropped`` in ``dataset.json``; one case is in memory at a time. Each case counts as a patient of
    its own, since these data sets do not say otherwise.

    An interrupted conversion is begun again: nothing of it stays, so that a folder that is there is always complete.

    Args:
        cases: what is converted, those already refused included.
        out_dir: folder to make.
        read_label: gives the classes of a case and what else is to be remembered of it, or raises `Dropped`.
        content: name, description, licence, reference and the like for ``dataset.json``.
        labelled: the classes that the data set has labels of; ``labels`` in ``dataset.json`` lists no others, and an
            evaluation scores no others.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report, also written as ``conversion.json``: ``cases`` with shape, range of HU and voxels of each class,
        ``dropped``.

    Raises:
        InputError: when not one case is left, or `out_dir` exists or can not be written.
    """
    linked = not parse_flag(copy, "copy")
    labels = {str(number): CLASSES[number] for number in [0, *sorted(labelled)]}

    def convert_one(case: Case, folder: Path) -> dict[str, Any]:
        return _convert_one(case, folder, read_label, linked)

    return write_cases(cases, out_dir, convert_one, content, labels, overwrite=overwrite)


def _convert_one(
    case: Case,
    folder: Path,
    read_label: Callable[[Case, SpatialImage], tuple[np.ndarray, dict[str, Any]]],
    linked: bool,
) -> dict[str, Any]:
    """Check and write one case, and tell what was done."""
    if case.refused or case.image is None:
        raise Dropped(case.refused or "it has no image")
    image = open_volume(case.image)
    labels, notes = read_label(case, image)
    voxels = np.array([np.count_nonzero(labels == number) for number in range(len(CLASSES))])
    if not voxels[1:].any():
        raise Dropped("none of the seven organs is labelled in it")
    values, slope, intercept = read_values(image)
    if fault := hounsfield_fault(values, slope, intercept, np.isin(labels, _SOFT)):
        raise Dropped(fault)
    bounds = sorted(slope * float(edge) + intercept for edge in (values.min(), values.max()))
    place_image(case.image, folder / "imagesTr" / f"{case.name}.nii.gz", linked)
    write_label(labels, image, folder / "labelsTr" / f"{case.name}.nii.gz")
    return {
        "shape": list(image.shape),
        "hounsfield": bounds,
        "voxels": dict(zip(CLASSES, voxels.tolist(), strict=True)),
        **notes,
    }


def mapped_reader(numbers: Mapping[int, str], highest: int) -> Reader:
    """A function for `convert_organs` that reads one volume of another numbering.

    Args:
        numbers: names out of `CLASSES` by number; every other number becomes background.
        highest: the highest number that the data set has; beyond it a case is dropped.
    """
    table = np.zeros(highest + 1, np.uint8)
    table[list(numbers)] = [CLASSES.index(organ) for organ in numbers.values()]

    def read(case: Case, image: SpatialImage) -> tuple[np.ndarray, dict[str, Any]]:
        values = read_numbers(case.label, image, highest)
        labels = np.empty(values.shape, np.uint8)
        for slab in slabs(values.shape):
            labels[slab] = table[values[slab]]
        return labels, {}

    return read


def select_split(cases: list[Case], split: str | None) -> list[Case]:
    """The cases that the authors gave to one part; all of them for None.

    Raises:
        InputError: when there is no such part.
    """
    if split is None:
        return cases
    chosen = [case for case in cases if case.split == split]
    if not chosen:
        known = sorted({case.split for case in cases if case.split})
        has = f"the data set has {', '.join(known)}" if known else "the data set names none"
        raise InputError(problem(f"no case belongs to the split '{split}'", has, "choose another or leave --split out"))
    return chosen
