"""Where a set of weights was trained: what its sidecar says of the data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arguments import parse_integer, parse_optional_integer
from .decathlon import read_dataset

__all__ = ["provenance"]


def provenance(
    dataset_dir: str | os.PathLike[str],
    fold: int | str | None = None,
    folds: int | str | None = None,
    cases: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What to remember of a data set beside weights trained on it.

    Neither paths nor file names are in it, since these may name patients; the fingerprint is a SHA-256 over the
    relative names and sizes of the training files, so that two trainings can be compared without telling either.

    Args:
        dataset_dir: folder with ``dataset.json``.
        fold: the fold held out; dropped where `folds` is None, since nothing was held out then.
        folds: number of folds, or None.
        cases: what is trained on, one ``{"image": path, "label": path}`` a case. Callers such as MONAI Label override
            the list and leave `dataset_dir` as it is: where a case lies outside it, nothing that it says is repeated.

    Returns:
        a dictionary with name, licence, reference, phantom, cases, fold, folds, fingerprint.

    Raises:
        InputError: for a folder that is no data set.
    """
    folder, content = read_dataset(dataset_dir)
    entries = content.get("training", [])
    if cases is not None and not all(_within(folder, case) for case in cases):
        content, folds, entries = {}, None, cases
    count = parse_optional_integer(folds, "folds")
    sizes = []
    for entry in entries:
        for name in (entry["image"], entry["label"]):
            file = folder / name
            known = os.path.normpath(name).replace(os.sep, "/") if content else ""
            sizes.append([known, file.stat().st_size if file.is_file() else None])
    return {
        "name": str(content.get("name") or "unnamed"),
        "licence": str(content.get("licence") or content.get("license") or "not stated"),
        "reference": str(content.get("reference") or "not stated"),
        "phantom": content.get("phantom") is True,
        "cases": len(entries),
        "fold": None if count is None or fold is None else parse_integer(fold, "fold"),
        "folds": count,
        "fingerprint": hashlib.sha256(json.dumps(sorted(sizes, key=str)).encode()).hexdigest(),
    }


def _within(folder: Path, case: Mapping[str, Any]) -> bool:
    return Path(os.path.abspath(case["image"])).is_relative_to(os.path.abspath(folder))
