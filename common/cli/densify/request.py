"""What ``volseg densify`` was asked for, and how that fits what is in its folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from ...checks import InputError, problem
from ...data.annotation import Annotation, merge, read_annotation
from ...data.faults import file_fault
from ...data.volume_file import VolumeFile, check_finite, read_volume
from ...files import check_writable, sha256
from ...geometry.blocks import block_majority
from ...geometry.planes import on_planes
from .case import MADE_BY, class_names, coarse_planes, read_array, save_grid, write_case
from .folder import DRAWN, NEXT, RECORD, Folder, case_of, check_free, planes_text, read_record
from .split import beside_training, hold_out, trained_on

__all__ = ["Request", "open_folder"]

# what further slices of an image can not change
_FIXED = ("downsample", "spacing", "key")
_ONE_AXIS = "Warning: slices were drawn across"


@dataclass(frozen=True)
class Request:
    """What is to be filled up, and how.

    Args:
        bundle: its folder.
        image: the volume's file.
        slices: files of drawn slices.
        out: folder of everything that is written.
        go_on: whether the slices are to be added to those before.
        settings: what decides the result, by option: ``unlabelled``, ``disputed``, ``spacing``, ``key``, ``label_key``,
            ``class_names``, ``hold_out``, ``downsample``, ``finish_epochs``, ``overlays`` and ``overrides``; what was
            not given is left out.
        keep_drawn: whether voxels that were drawn stay as drawn.
        rivals: recipes to be scored on the same slices.
        verbose: show whole tracebacks.
    """

    bundle: Path
    image: str
    slices: tuple[str, ...]
    out: Path
    go_on: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep_drawn: bool = True
    rivals: str = ""
    verbose: bool = False


def open_folder(request: Request) -> Folder:
    """The folder to work in: begun, or taken up where it was left.

    Raises:
        InputError: for what can not be read or filled up, and for a folder of another image, other slices or settings.
    """
    prints = [{"name": Path(path).name, "sha256": _print(path)} for path in request.slices]
    image = {"name": Path(request.image).name, "sha256": _print(request.image)}
    if not (request.out / RECORD).is_file():
        if request.go_on:
            came = f"--continue was given and '{request.out}' holds nothing to go on from"
            raise InputError(problem(came, "it goes on from a folder that densify made", "leave --continue out"))
        return _begin(request, image, prints)
    before, waiting = Folder(request.out, read_record(request.out)), request.out / NEXT
    begun = Folder(waiting, read_record(waiting)) if (waiting / RECORD).is_file() else None
    if begun is not None and begun.done("write"):  # stopped while it was put in its place
        before, begun = begun.move_to(request.out), None
    inputs = before.record["inputs"]
    if inputs["image"]["sha256"] != image["sha256"]:
        came = f"'{request.out}' was made from another image, '{inputs['image']['name']}'"
        raise InputError(problem(came, "one folder is for one image", "pass another --out"))
    if _same(inputs["slices"][-1], prints):
        _check_settings(before, request)
        return before
    if not request.go_on:
        came = f"'{request.out}' was made from other slices, {', '.join(one['name'] for one in inputs['slices'][-1])}"
        remedy = "pass --continue true to add these to them, or another --out"
        raise InputError(problem(came, "further slices are taken up when that is asked for", remedy))
    if not before.done("write"):
        came = f"'{request.out}' is not done with the slices before"
        raise InputError(problem(came, "further slices are taken up by what is done", "give the line before again"))
    if begun is not None and _same(begun.record["inputs"]["slices"][-1], prints):
        _check_settings(begun, request)
        return begun
    shutil.rmtree(waiting, ignore_errors=True)  # of other slices, which were not taken up in the end
    return _go_on(request, before, prints)


def _begin(request: Request, image: dict[str, str], prints: list[dict[str, str]]) -> Folder:
    check_free(request.out, MADE_BY)
    settings = dict(request.settings)
    volume = read_volume(request.image, settings.get("spacing"), settings.get("key"))
    check_finite(volume)
    drawn = _read(request, volume, settings)
    inputs = {"image": image, "slices": [prints]}
    return _write(request.out, request.bundle, volume, drawn, inputs, settings)


def _go_on(request: Request, before: Folder, prints: list[dict[str, str]]) -> Folder:
    """A round with further slices, in a folder of its own until it is done."""
    record = before.record
    fixed = [name for name in _FIXED if name in request.settings and request.settings[name] != _given(record, name)]
    if fixed:
        came = f"--{fixed[0]} is {request.settings[fixed[0]]} and was {_given(record, fixed[0])}"
        raise InputError(
            problem(came, "a folder keeps the grid that it works on", "leave it out, or pass another --out")
        )
    settings = {**record["settings"], **request.settings}
    volume = read_volume(request.image, settings.get("spacing"), settings.get("key"))
    old = before.drawn()
    drawn = merge(old, _read(request, volume, settings, old))
    drawn = replace(drawn, notes=_together(drawn))
    inputs = {"image": record["inputs"]["image"], "slices": [*record["inputs"]["slices"], prints]}
    return _write(request.out / NEXT, request.bundle, volume, drawn, inputs, settings, before)


def _together(drawn: Annotation) -> list[str]:
    """The notes on further slices, with what all of them come to; what was said of the further ones alone may not be so
    of all.
    """
    several = sum(map(bool, drawn.planes)) > 1
    notes = [note for note in drawn.notes if not (several and note.startswith(_ONE_AXIS))]
    share = sum(drawn.voxels) / drawn.label.size
    return [
        *notes,
        f"All slices (counted from 0): {planes_text(drawn.planes)}; {share:.1%} of the voxels are labelled.",
    ]


def _read(
    request: Request, volume: VolumeFile, settings: Mapping[str, Any], old: Annotation | None = None
) -> Annotation:
    unlabelled = settings.get("unlabelled")
    return read_annotation(
        request.slices,
        volume,
        unlabelled if unlabelled is not None or old is None else old.unlabelled,
        None if old is None else old.values,
        settings.get("disputed", "error"),
        settings.get("label_key"),
    )


def _write(
    path: Path,
    bundle: Path,
    volume: VolumeFile,
    drawn: Annotation,
    inputs: Mapping[str, Any],
    settings: Mapping[str, Any],
    before: Folder | None = None,
) -> Folder:
    """Make the case and the record."""
    factor = int(settings.get("downsample", 1))
    old_names = before.record["class_names"] if before else ()
    names = class_names(drawn.values, settings.get("class_names", ""), old_names)
    check_writable(path)
    label, notes = write_case(path / "data", volume, drawn, names, factor, case_of({"inputs": inputs}))
    planes = coarse_planes(drawn.planes, factor)
    held_out, told = _held_out(label, drawn, planes, float(settings.get("hold_out", 0.2)), before, factor)
    if before is not None and held_out is not None and before.record["values"] == list(drawn.values):
        told += _leave_out_seen(path / "data", case_of({"inputs": inputs}), label, drawn, held_out, before)
    save_grid(path / DRAWN, drawn.label, volume.affine, volume.unit)
    record = {
        "bundle": bundle.name,
        "inputs": inputs,
        "settings": settings,
        "values": list(drawn.values),
        "class_names": names,
        "unlabelled": drawn.unlabelled,
        "shape": list(volume.shape),
        "spacing": list(volume.spacing),
        "affine": np.asarray(volume.affine, float).tolist(),
        "placed": volume.placed,
        "unit": volume.unit,
        "downsample": factor,
        "planes": drawn.planes,
        "held_out": held_out,
        "notes": [*volume.notes, *drawn.notes, *notes, *told],
        "steps": {},
        "files": [],
    }
    folder = Folder(path, record)
    folder.save()
    return folder


def _held_out(
    label: np.ndarray,
    drawn: Annotation,
    planes: Sequence[Sequence[int]],
    share: float,
    before: Folder | None,
    factor: int,
) -> tuple[list[list[int]] | None, list[str]]:
    """The planes that are not trained on, and what is to be said of them."""
    offered, kept = None, ((), (), ())
    if before is not None:
        seen = coarse_planes(before.record["planes"], factor)
        # the network that is trained further has seen the planes before: only new ones can be held out beside those
        offered = [sorted(set(now) - set(old)) for now, old in zip(planes, seen, strict=True)]
        kept = before.record["held_out"] or kept
    held_out = hold_out(label, drawn.ignore_index, planes, share, offered, kept)
    if held_out is None:
        why = "as asked for" if share == 0 else "they are too few, or each is needed in training"
        return None, [f"No slice is held out ({why}): there is no score, and training takes all its epochs."]
    grid = "" if factor == 1 else f" on the grid of blocks of {factor} voxels"
    notes = [f"Held out of training, and scored (counted from 0{grid}): {planes_text(held_out)}."]
    if beside_training(planes, held_out):
        notes.append("Warning: slices held out lie beside slices that are trained on, so that their score leans high.")
    return held_out, notes


def _leave_out_seen(
    data: Path, case: str, label: np.ndarray, drawn: Annotation, held_out: Sequence[Sequence[int]], before: Folder
) -> list[str]:
    """Take from the case what lies on slices held out now and was trained on before: where slices of both rounds cross.

    The network goes on from weights that have seen it. It stays drawn.
    """
    record, old = before.record, before.drawn()
    earlier = read_array(before.path / "data" / "labelsTr" / f"{case_of(record)}.nii.gz")
    blocks = block_majority(torch.from_numpy(np.ascontiguousarray(old.label)), record["downsample"], old.ignore_index)
    seen = trained_on(blocks.numpy(), earlier, old.ignore_index, record["held_out"])
    scored = (label != drawn.ignore_index) & on_planes(label.shape, held_out)
    count = int((scored & seen).sum())
    if not count or count == int(scored.sum()):  # all of it: then there would be no score at all
        return [] if not count else ["Warning: all voxels held out were trained on before: their score leans high."]
    path = data / "labelsTr" / f"{case}.nii.gz"
    grid = nibabel.load(path)
    left = np.where(scored & seen, drawn.ignore_index, label).astype(label.dtype)
    save_grid(path, left, grid.affine, grid.header.get_xyzt_units()[0])
    return [f"{count} voxels held out are not scored, since the network was trained on them before."]


def _check_settings(folder: Folder, request: Request) -> None:
    """Refuse other settings than those that a folder was begun with; what was not given stays as it was."""
    was = folder.record["settings"]
    for name, value in request.settings.items():
        if was.get(name) != value:
            came = f"'{folder.path}' was begun with {name} {was.get(name, 'not given')}, not {value}"
            raise InputError(problem(came, "what decides the result stays as it was", "pass another --out"))


def _given(record: Mapping[str, Any], name: str) -> Any:
    return record["settings"].get(name, "not given")


def _same(one: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]]) -> bool:
    return sorted(part["sha256"] for part in one) == sorted(part["sha256"] for part in other)


def _print(path: str) -> str:
    """SHA-256 of a file; of a folder (a DICOM series), of its files' names and contents."""
    source = Path(path).expanduser()
    if source.is_dir():
        told = [f"{file.name} {sha256(file)}" for file in sorted(source.iterdir()) if file.is_file()]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()
    if fault := file_fault(source):
        raise InputError(fault)
    return sha256(source)
