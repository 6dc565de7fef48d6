"""Where a set of weights was trained: what its sidecar says of the data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import parse_flag
from .arguments import parse_integers, parse_planes
from .cases import case_places
from .decathlon import read_dataset
from .overlap import IRCADB, Contents

__all__ = ["provenance"]


def provenance(
    dataset_dir: str | os.PathLike[str],
    split: Mapping[str, Any] | None = None,
    cases: Sequence[Mapping[str, Any]] | None = None,
    contents: bool | str = False,
) -> dict[str, Any]:
    """What to remember of a data set beside weights trained on it.

    Neither paths nor file names are in it, since these may name patients; the fingerprint is a SHA-256 over the
    relative names and sizes of the training files, so that two trainings can be compared without telling either. Names
    that LiTS gives its files are known by their numbers, under ``contents``.

    Args:
        dataset_dir: folder with ``dataset.json``.
        split: every setting that decides what is trained on and what is held out, by its name in the config: whole
            numbers, lists of them, or None, as text too; as ``cases`` also names, which become numbers, and as
            ``held_out`` planes for each axis. Where ``NAMEfolds`` is None nothing is dealt to folds, and
            ``NAMEfold`` is dropped; ``seed`` is that of the volumes' folds, and dropped with ``fold``.
        cases: what is trained on, one ``{"image": path, "label": path}`` a case. Callers such as MONAI Label override
            the list and leave `dataset_dir` as it is: where a case lies outside it, nothing that it says is repeated.
        contents: whether the scans of `cases`, or else of the data set, are remembered by their content, so that they
            are known again in another data set; phantoms are not. Reading them waits for
            :func:`~common.data.overlap.resolved`, when a training or an evaluation starts.

    Returns:
        a dictionary with name, licence, reference, phantom, cases, split, fingerprint, and
        :class:`~common.data.overlap.Contents` as ``contents`` where asked for.

    Raises:
        InputError: for a folder that is no data set, or a split of other things than numbers, or of cases that the
            data set does not list.
    """
    folder, content = read_dataset(dataset_dir)
    entries = content.get("training", [])
    looked_at = [folder / entry["image"] for entry in (entries if cases is None else cases)]
    if cases is not None and not all(_within(folder, case) for case in cases):
        # such a list was not dealt to folds here
        content, entries, split = {}, cases, {**(split or {}), "folds": None}
        split.pop("cases", None)  # their numbers mean that other list
    if split and split.get("cases") is not None and content:
        split = {**split, "cases": _places(entries, split["cases"], str(dataset_dir))}
    sizes = []
    for entry in entries:
        for name in (entry["image"], entry["label"]):
            file = folder / name
            known = os.path.normpath(name).replace(os.sep, "/") if content else ""
            sizes.append([known, file.stat().st_size if file.is_file() else None])
    told = {
        "name": str(content.get("name") or "unnamed"),
        "licence": str(content.get("licence") or content.get("license") or "not stated"),
        "reference": str(content.get("reference") or "not stated"),
        "phantom": content.get("phantom") is True,
        "cases": len(entries),
        "split": _split(split or {}),
        "fingerprint": hashlib.sha256(json.dumps(sorted(sizes, key=str)).encode()).hexdigest(),
    }
    if parse_flag(contents, "contents") and not told["phantom"]:
        told["contents"] = Contents(looked_at, _collection(content))
    return told


def _collection(content: Mapping[str, Any]) -> str | None:
    """The public collection that a ``dataset.json`` says it is, where scans of it are in others too."""
    said = " ".join(str(content.get(key, "")) for key in ("collection", "name", "description", "reference"))
    return IRCADB if "ircadb" in said.lower() else None


def _places(entries: Sequence[Mapping[str, Any]], cases: Any, source: str) -> list[int] | None:
    """The places of `cases` in the list, None where these are all of it."""
    places = case_places(entries, cases, source)
    return places if len(places) < len(entries) else None


def _split(split: Mapping[str, Any]) -> dict[str, Any]:
    """The split with every setting in one form, and without those that decide nothing."""
    parse = {"held_out": parse_planes}
    plain = {name: parse.get(name, parse_integers)(value, name) for name, value in split.items()}
    for name in [name for name, value in plain.items() if name.endswith("folds") and value is None]:
        plain.pop(name[:-1], None)
        if name == "folds":
            plain.pop("seed", None)
    return {name: _lists(value) for name, value in plain.items()}


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value


def _within(folder: Path, case: Mapping[str, Any]) -> bool:
    return Path(os.path.abspath(case["image"])).is_relative_to(os.path.abspath(folder))
