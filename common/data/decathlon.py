"""The Medical Segmentation Decathlon folder: its list read and checked, its writing."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ..checks import InputError, problem
from ..files import case_name, read_json, write_json

__all__ = ["atomic_folder", "patient_of", "read_dataset", "write_dataset", "write_volume"]

_SESSION = re.compile(r"[_-](?:scan|visit|ses|session|time|tp|week|day|part|crop|tile)[_-]?[0-9]+$", re.IGNORECASE)
_CHANNEL = re.compile(r"_0{3}[0-9]$")
_BIDS_SUBJECT = re.compile(r"^sub-[A-Za-z0-9]+(?=_)")


def read_dataset(dataset_dir: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Any]]:
    """The folder and the content of its ``dataset.json``, after the checks that do not need its images.

    Args:
        dataset_dir: a folder in the layout of the Medical Segmentation Decathlon.

    Returns:
        the absolute folder, and the dictionary.

    Raises:
        InputError: missing or empty argument, no such folder, no ``dataset.json``, JSON that is not valid, lists of
            another form, an entry whose path leaves the folder.
    """
    if dataset_dir is None or not str(dataset_dir).strip():
        raise InputError(
            problem("dataset_dir is empty", "it must name a folder that holds dataset.json", "pass --dataset_dir PATH")
        )
    folder = Path(dataset_dir).expanduser().absolute()
    if not folder.is_dir():
        came = "is a file" if folder.exists() else "does not exist"
        raise InputError(
            problem(
                f"dataset_dir '{dataset_dir}' {came}",
                "it must be a folder that holds dataset.json",
                "pass --dataset_dir PATH",
            )
        )
    path = folder / "dataset.json"
    if not path.is_file():
        what = "is an empty folder" if not any(folder.iterdir()) else "has no dataset.json"
        raise InputError(
            problem(
                f"dataset_dir '{dataset_dir}' {what}",
                "a data set has the layout of the Medical Segmentation Decathlon",
                "name the folder that holds dataset.json, imagesTr and labelsTr, or convert the data first",
            )
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(
            problem(
                f"'{path}' holds no JSON object",
                "it must hold an object with a list 'training'",
                "mend or remake the file",
            )
        )
    for key, fields in (("training", ("image", "label")), ("test", ("image",))):
        _check_entries(path, folder, key, content.get(key, []), fields)
    return folder, content


def _check_entries(path: Path, folder: Path, key: str, entries: Any, fields: Sequence[str]) -> None:
    if not isinstance(entries, list):
        raise InputError(
            problem(f"'{key}' in '{path}' is no list", "it must be a list of cases", "mend or remake the file")
        )
    for number, entry in enumerate(entries):
        entry = {"image": entry} if key == "test" and isinstance(entry, str) else entry
        for field in fields:
            value = entry.get(field) if isinstance(entry, dict) else None
            if not isinstance(value, str) or not value:
                raise InputError(
                    problem(
                        f"entry {number} of '{key}' in '{path}' has no path for '{field}' (it is {entry!r})",
                        f"each entry must name its {' and '.join(fields)}",
                        "mend the entry",
                    )
                )
            # Compared as text: a link inside the folder may well lead to another disk.
            inside = os.path.normpath(folder / value)
            if os.path.commonpath([inside, os.path.normpath(folder)]) != os.path.normpath(folder):
                raise InputError(
                    problem(
                        f"entry {number} of '{key}' in '{path}' lists '{value}'",
                        "listed files must lie inside the data set's folder",
                        "move the file into the folder and list its relative path",
                    )
                )


def patient_of(entry: dict[str, Any], content: dict[str, Any]) -> str:
    """The patient of a training entry, so that no patient is on both sides of a fold.

    In this order: the entry's own field ``"patient"``; the list's ``"patients"``, an object from case name to patient;
    a BIDS subject (``sub-01_...``); else the case name without a channel number (``_0000``) and without endings that
    number the scans of one patient (``_scan2``, ``-visit1``, ``_ses-2``, ``_time3``, ``_part1``, ...).

    >>> patient_of({"image": "imagesTr/case01_visit2.nii.gz"}, {})
    'case01'
    """
    name = case_name(entry["image"])
    patients = content.get("patients")
    if entry.get("patient") is not None:
        return str(entry["patient"])
    if isinstance(patients, dict) and name in patients:
        return str(patients[name])
    if subject := _BIDS_SUBJECT.match(name):
        return subject.group()
    name = _CHANNEL.sub("", name)
    while (shorter := _SESSION.sub("", name)) not in (name, ""):
        name = shorter
    return name


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Args:
        path: the folder to make.
        overwrite: whether a folder already there is replaced, once the new one is complete.

    Raises:
        InputError: when it exists and `overwrite` is false, or can not be written.
    """
    target = Path(path).expanduser().absolute()
    if target.exists() and not overwrite:
        raise InputError(
            problem(
                f"'{target}' already exists",
                "what is there is not overwritten",
                "choose another folder or pass --overwrite true",
            )
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    retired = temporary.with_name(temporary.name + ".old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if overwrite and target.exists():
            os.replace(target, retired)
        try:
            os.replace(temporary, target)
        except OSError:
            if retired.exists():
                os.replace(retired, target)
            raise
    except OSError as error:
        raise InputError(
            problem(
                f"'{target}' can not be written ({error.strerror or error})",
                "its folder must be writable and have space",
                "choose another folder, free some space or change its permissions; what was there before is untouched",
            )
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def write_volume(
    path: str | os.PathLike[str],
    volume: np.ndarray,
    spacing: Sequence[float],
    units: str = "mm",
    orientation: str = "RAS",
    first: Sequence[float] = (0.0, 0.0, 0.0),
) -> None:
    """Write a volume as NIfTI with an affine that only scales, permutes and flips.

    Args:
        path: file to write, ``.nii.gz`` or ``.nii``.
        volume: X Y Z, or X Y Z C with the channels last as in the Decathlon; kept in its dtype.
        spacing: voxel edges along the three axes of the volume, in `units`.
        units: ``"mm"`` or ``"micron"``. The header's numbers are in this unit and its ``xyzt_units`` field
            says so; readers that know millimetres only (MONAI's among them) take the bare numbers: ratios stay right.
        orientation: where the axes point, as ``nibabel.aff2axcodes`` says it: ``"ASR"`` for front, head, right.
        first: where the centre of the first voxel lies, RAS, in `units`.
    """
    affine = np.zeros((4, 4))
    affine[:, 3] = *first, 1
    for axis, (world, sign) in enumerate(nibabel.orientations.axcodes2ornt(orientation)):
        affine[int(world), axis] = sign * spacing[axis]
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume), affine, dtype=volume.dtype)
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)


def write_dataset(
    folder: str | os.PathLike[str],
    content: dict[str, Any],
    training: Sequence[str],
    test: Sequence[str] = (),
    fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write ``dataset.json``, its lists and counts made from case names.

    Args:
        folder: the data set's folder.
        content: the other fields: name, description, reference, licence, modality, labels, ...
        training: names of the cases in ``imagesTr`` and ``labelsTr``, without ``.nii.gz``.
        test: names of the cases in ``imagesTs``.
        fields: further fields of training entries, such as ``patient``, by case name.
    """
    fields = fields or {}
    lists = {
        "tensorImageSize": "3D",
        "numTraining": len(training),
        "numTest": len(test),
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz", **fields.get(name, {})}
            for name in training
        ],
        "test": [f"./imagesTs/{name}.nii.gz" for name in test],
    }
    write_json(Path(folder) / "dataset.json", {**content, **lists})
