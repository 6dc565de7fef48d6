"""From the TotalSegmentator data set, or label volumes of its class map, to a Decathlon folder of the cascade's organs.

Wasserthal et al., "TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images", Radiology:
Artificial Intelligence 2023, doi 10.1148/ryai.230024, arXiv 2208.05868; data: doi 10.5281/zenodo.6802613.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage

from ...checks import InputError, problem
from ...files import case_name
from .organs import CLASSES, convert_organs, mapped_reader, select_split
from .pairs import only_source, pair_files, plain_name, volume_files
from .sources import Case, Dropped, read_numbers
from .writing import tell

__all__ = ["NUMBERS", "convert_totalsegmentator", "totalsegmentator_command"]

# structures by class; of a voxel in several masks the later, thinner structure keeps it
_MASKS = {
    "liver": "liver",
    "stomach": "stomach",
    "spleen": "spleen",
    "pancreas": "pancreas",
    "gallbladder": "gallbladder",
    "portal vein": "portal_vein_and_splenic_vein",
    "artery": "aorta",
}
_SHARED = {5: "liver", 1: "spleen", 6: "stomach", 4: "gallbladder"}
# organs by number in the class maps of version 2 and later, and of version 1; with the highest number of each
NUMBERS = {
    "total": ({52: "artery", 64: "portal vein", 7: "pancreas", **_SHARED}, 117),
    "total_v1": ({7: "artery", 9: "portal vein", 10: "pancreas", **_SHARED}, 104),
}
_REFERENCE = "Wasserthal et al., Radiology: Artificial Intelligence 2023, doi 10.1148/ryai.230024"


def convert_totalsegmentator(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    labels: str = "masks",
    split: str | None = None,
    name: str | None = None,
    licence: str | None = None,
    reference: str | None = None,
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write cases of the TotalSegmentator data set as a Decathlon folder, whole or not at all.

    Artery is ``aorta`` (the class map has no branch of it in the abdomen), portal vein is
    ``portal_vein_and_splenic_vein``, the others keep their names. A voxel in several masks goes to the thinner
    structure: aorta, portal vein, gallbladder, pancreas, spleen, stomach, liver. Scans without any of the seven are
    left out. `organs.convert_organs` says what is checked and written.

    Args:
        source: the unpacked data set, ``s0000/ct.nii.gz`` with ``s0000/segmentations/*.nii.gz`` and ``meta.csv``, or
            one case of it; for label volumes two files or folders, images and labels, paired by name.
        out_dir: folder to make.
        labels: ``"masks"``, or the class map of label volumes: ``"total"`` (version 2 and later), ``"total_v1"``.
        split: take only the cases that ``meta.csv`` gives to this part (train, val, test).
        name: of the data set; the folder's name by default.
        licence: of the data, where it is not that of the data set.
        reference: where the data come from, where it is not the data set.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report of `organs.convert_organs`; a case of masks has ``overlap``, its voxels in several masks.

    Raises:
        InputError: no case in `source`, a ``meta.csv`` of another form, no case left, an existing `out_dir`.
    """
    if labels not in ("masks", *NUMBERS):
        raise InputError(
            problem(f"labels is {labels!r}", f"it must be one of masks, {', '.join(NUMBERS)}", "choose one of them")
        )
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if len(given) != (1 if labels == "masks" else 2):
        wanted = "one folder, the unpacked data set" if labels == "masks" else "two: the images, then the label volumes"
        raise InputError(
            problem(f"{len(given)} sources were named", f"with --labels {labels} it is {wanted}", "name these")
        )
    published = labels == "masks"
    cases = _cases(only_source(given)) if published else _volumes(*map(_existing, given))
    content = {
        "description": f"TotalSegmentator ({labels}), seven abdominal organs; see conversion.json",
        "licence": licence or ("CC BY 4.0" if published else "not stated"),
        "reference": reference or (f"{_REFERENCE}; data doi 10.5281/zenodo.6802613" if published else "not stated"),
        **({"name": name} if name else {}),
    }

    reader = _read_masks if published else mapped_reader(*NUMBERS[labels])
    return convert_organs(select_split(cases, split), out_dir, reader, content, copy=copy, overwrite=overwrite)


def totalsegmentator_command(sources: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert and print what was done: the body of ``volseg convert totalsegmentator``.

    Args:
        sources: the data set, or images and label volumes.
        out_dir: folder to make.
        options: further arguments of `convert_totalsegmentator`.
    """
    tell(convert_totalsegmentator(sources, out_dir, **options), out_dir)


def _existing(place: str | os.PathLike[str]) -> Path:
    path = Path(place).expanduser()
    if not path.exists():
        raise InputError(problem(f"'{place}' does not exist", "it must be a file or a folder", "check the path"))
    return path


def _read_masks(case: Case, image: SpatialImage) -> tuple[np.ndarray, dict[str, Any]]:
    labels, overlap = np.zeros(image.shape, np.uint8), 0
    for organ, structure in _MASKS.items():
        path = case.label / f"{structure}.nii.gz"
        if not path.is_file():
            raise Dropped(f"its segmentations have no {path.name}")
        mask = read_numbers(path, image, 1).astype(bool)
        overlap += int(np.count_nonzero(labels[mask]))
        labels[mask] = CLASSES.index(organ)
    return labels, {"overlap": overlap}


def _cases(source: Path) -> list[Case]:
    """The cases at `source` or up to two levels below; what is missing is told case by case."""
    level = [source.resolve()]
    for _ in range(3):
        if folders := [one for one in level if (one / "segmentations").is_dir() or (one / "ct.nii.gz").is_file()]:
            break
        level = [one for base in level for one in sorted(base.iterdir()) if one.is_dir() and one.name[0] != "."]
    if not folders:
        raise InputError(
            problem(
                f"'{source}' holds no case",
                "a case is a folder such as s0000 with ct.nii.gz and segmentations/",
                "name the folder of the unpacked data set",
            )
        )
    splits = _splits(folders[0].parent / "meta.csv")
    cases = []
    for folder in folders:
        missing = None if (folder / "ct.nii.gz").is_file() else "it has no ct.nii.gz"
        split = splits.get(folder.name)
        cases.append(Case(folder.name, folder / "ct.nii.gz", folder / "segmentations", split, missing))
    return cases


def _splits(path: Path) -> dict[str, str]:
    """The part of each case by ``meta.csv``; nothing where there is no such file."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8-sig", newline="") as stream:
        table = csv.DictReader(stream, delimiter=";")
        if not {"image_id", "split"} <= set(table.fieldnames or ()):
            raise InputError(
                problem(
                    f"'{path}' has the columns {', '.join(table.fieldnames or ())}",
                    "image_id and split must be among them, between semicolons",
                    "take the file as published, or move it elsewhere to convert without splits",
                )
            )
        return {row["image_id"].strip(): row["split"].strip() for row in table if row["split"]}


def _volumes(images: Path, labels: Path) -> list[Case]:
    """Images and label volumes of one name; two files belong together whatever they are called."""
    if images.is_file() and labels.is_file():
        return [Case(plain_name(case_name(images)), images, labels)]
    cases = pair_files(volume_files(images), volume_files(labels), plain_name)
    if not cases:
        raise InputError(
            problem(f"'{images}' holds no volume", "images and labels end in .nii.gz or .nii", "name other folders")
        )
    return cases
