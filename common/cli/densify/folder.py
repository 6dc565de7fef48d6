"""The folder of ``volseg densify``: what it was made from, how far it is, and its results.

``densify.json`` is the record: ``inputs`` (names and SHA-256 of the image and of each round's slices), ``settings`` as
they were given, ``values`` and ``class_names`` by class, ``unlabelled``, ``shape``, ``unit``, ``downsample``,
``planes`` (annotated, per array axis of the image, from 0), ``held_out`` (planes on the grid that is worked on, or
null), ``notes``, ``steps`` (seconds of each step that is done), ``files``. Beside it lie ``drawn.nii.gz`` (classes, and
their number where nobody labelled, on the image's grid), ``data`` (the case that is trained on), ``fit`` (the network
that has not seen what is held out), ``model.pt`` (the one that has seen everything), ``predict`` and the results.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...checks import InputError, problem
from ...data.annotation import Annotation
from ...files import read_json, write_json
from ...visualize.planes import FilledVolume
from .case import read_array, refined

__all__ = [
    "DRAWN",
    "NEXT",
    "RECORD",
    "Folder",
    "case_of",
    "check_free",
    "planes_text",
    "read_filled",
    "read_record",
]

RECORD, DRAWN, NEXT = "densify.json", "drawn.nii.gz", "next"
_VERSION = 1
_FOLDERS = ("data", "fit", "finish", "predict", "rivals")
_PREDICTED = ("seg", "uncertainty")
_FILES = ("drawn", "dense", "uncertainty", "densify", "report", "model")  # without their endings


class Folder:
    """One round of filling up: its folder and its record.

    Args:
        path: the folder; that of a round with further slices is ``next`` in the first one's until it is whole.
        record: what ``densify.json`` holds.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, record

    def save(self) -> None:
        """Write the record."""
        write_json(self.path / RECORD, {"version": _VERSION, **self.record})

    def done(self, step: str) -> bool:
        """Whether a step is done."""
        return step in self.record["steps"]

    def finish(self, step: str, seconds: float) -> None:
        """Note that a step is done."""
        self.record["steps"][step] = round(seconds, 1)
        self.save()

    def drawn(self) -> Annotation:
        """The slices, as they were read."""
        record = self.record
        label = read_array(self.path / DRAWN)
        return Annotation(label, tuple(record["values"]), record["planes"], record["unlabelled"], record["notes"])

    def move_to(self, target: Path) -> Folder:
        """Put everything in the place of the round before, the record last; what that one had and this has not, goes.

        A move that was interrupted is finished by another call.

        Args:
            target: the folder of the round before, which holds this one.
        """
        if "contents" not in self.record:
            self.record["contents"] = sorted(path.name for path in self.path.iterdir() if path.name != RECORD)
            self.save()
        contents, before = self.record["contents"], read_json(target / RECORD)
        for name in {*_FOLDERS, *before["files"]} - set(contents):
            _remove(target / name)
        for name in contents:
            if (self.path / name).exists():
                _remove(target / name)
                os.replace(self.path / name, target / name)
        del self.record["contents"]
        moved = Folder(target, self.record)
        moved.save()
        shutil.rmtree(self.path)
        return moved


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_free(folder: Path, made_by: str) -> None:
    """Refuse to begin in a folder that holds something else under a name that would be replaced.

    Args:
        folder: to begin in, new or not.
        made_by: ``name`` of the list in ``data`` when that is the rest of a beginning that was cut short.

    Raises:
        InputError: naming what is there.
    """
    listed = folder / "data" / "dataset.json"
    rest = {"data", DRAWN} if listed.is_file() and read_json(listed).get("name") == made_by else set()
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    replaced = [name for name in there if name in (*_FOLDERS, NEXT) or name.split(".")[0] in _FILES]
    if taken := [name for name in replaced if name not in rest]:
        came = f"'{folder}' holds {', '.join(taken)}, and no {RECORD}"
        raise InputError(problem(came, "what somebody else made is not replaced", "pass a new folder (--out)"))


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The record of a folder of ``volseg densify``.

    Raises:
        InputError: for a folder that is none, or of another version.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        came = f"'{folder}' has no {RECORD}"
        raise InputError(problem(came, "it must be a folder that volseg densify made", "name that (its --out)"))
    record = read_json(path)
    if not isinstance(record, dict) or record.pop("version", None) != _VERSION:
        came = f"'{path}' is of another version"
        raise InputError(problem(came, f"this is version {_VERSION}", "fill the volume up anew, in another folder"))
    return record


def read_filled(folder: str | os.PathLike[str]) -> tuple[FilledVolume, Mapping[str, Any]]:
    """The volume of a folder that is done: image, drawn and dense classes, uncertainty, on the image's own grid.

    Args:
        folder: of ``volseg densify``.

    Returns:
        the volume, and the record, whose ``planes`` are the annotated ones.

    Raises:
        InputError: for a folder that is none, or not done.
    """
    place, record = Path(folder), read_record(folder)
    if "predict" not in record["steps"]:
        came = f"the volume in '{folder}' is not filled up yet"
        raise InputError(problem(came, "all steps of volseg densify must be done", "give its line again; it goes on"))
    shape, factor = record["shape"], record["downsample"]
    image = read_array(place / "data" / "imagesTr" / f"{case_of(record)}.nii.gz")
    channels = image if image.ndim == 4 else image[..., None]
    fine = np.stack([refined(part, factor, shape) for part in np.moveaxis(channels, -1, 0)], -1)
    volume = FilledVolume(
        fine if image.ndim == 4 else fine[..., 0],
        read_array(place / DRAWN),
        *(
            refined(read_array(place / "predict" / f"{case_of(record)}_{name}.nii.gz"), factor, shape)
            for name in _PREDICTED
        ),
        record["class_names"],
        len(record["values"]),
        np.asarray(record["affine"]) if record["placed"] else None,
        record["spacing"],
        record["unit"],
    )
    return volume, record


def case_of(record: Mapping[str, Any]) -> str:
    """The name of the case of a round: another each round, so that weights of the one before are not taken for those of
    another split of the same data.
    """
    return f"volume{len(record['inputs']['slices'])}"


def planes_text(planes: Any) -> str:
    """Planes per axis in words: "x 3, 40; z 12"."""
    return "; ".join(f"{'xyz'[axis]} {', '.join(map(str, of))}" for axis, of in enumerate(planes) if of) or "none"
