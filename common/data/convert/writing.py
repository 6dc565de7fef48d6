"""The Decathlon folder that a conversion makes of cases: whole or not at all, with what was left out and why."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from ...checks import InputError, parse_flag, problem
from ...files import write_json
from ..decathlon import atomic_folder, write_dataset
from .sources import Case, Dropped

tqdm, _ = optional_import("tqdm", name="tqdm")

__all__ = ["tell", "write_cases"]


def write_cases(
    cases: Iterable[Case],
    out_dir: str | os.PathLike[str],
    convert_one: Callable[[Case, Path], dict[str, Any]],
    content: Mapping[str, Any],
    labels: Mapping[str, str],
    *,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Convert cases one by one into a Decathlon folder; one with a fault is left out and listed with the reason.

    Each case counts as a patient of its own, unless it says whose it is. An interrupted conversion is begun again:
    nothing of it stays, so that a folder that is there is always complete.

    Args:
        cases: what is converted, those already refused included.
        out_dir: folder to make.
        convert_one: writes image and label of a case below a folder, as ``imagesTr/NAME.nii.gz`` and
            ``labelsTr/NAME.nii.gz``, and tells what was done, ``voxels`` of each class by name in it; or raises
            `Dropped`. A case that it tells no ``voxels`` of has no label: its image alone lies in ``imagesTs``.
        content: name, description, licence, reference and the like for ``dataset.json``.
        labels: names by number, background included, for ``dataset.json``.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report, also written as ``conversion.json``: ``labels``, ``cases`` by name, ``dropped``.

    Raises:
        InputError: two cases of one name, not one case left, `out_dir` exists or can not be written.
    """
    cases, labels = list(cases), dict(labels)
    _check_names([case.name for case in cases if not case.refused])
    kept, dropped, fields = {}, [], {}
    with atomic_folder(out_dir, overwrite=parse_flag(overwrite, "overwrite")) as folder:
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / part).mkdir()
        for case in tqdm(cases, desc="converting", unit="case", disable=None):
            try:
                if case.refused:
                    raise Dropped(case.refused)
                kept[case.name] = convert_one(case, folder)
            except Dropped as reason:
                dropped.append({"case": case.name, "why": str(reason)})
                continue
            fields[case.name] = {"patient": case.patient or case.name} | ({"split": case.split} if case.split else {})
        if not kept:
            raise InputError(_nothing(dropped))
        head = {"name": Path(out_dir).name, "modality": {"0": "CT"}, **content, "labels": labels, "dropped": dropped}
        training = [name for name, told in kept.items() if "voxels" in told]
        write_dataset(folder, head, training, [name for name in kept if name not in training], fields=fields)
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            with contextlib.suppress(OSError):  # only an empty one goes
                (folder / part).rmdir()
        report = {"labels": labels, "cases": kept, "dropped": dropped}
        write_json(folder / "conversion.json", report)
    return report


def _check_names(names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            problem(
                f"several cases are called '{twice[0]}'", "each has its own name", "rename one, or convert them apart"
            )
        )


def _nothing(dropped: list[dict[str, str]]) -> str:
    reasons = [f"{case['case']}: {case['why']}" for case in dropped[:10]]
    more = f"; and {len(dropped) - 10} more" if len(dropped) > 10 else ""
    came = f"not one of {len(dropped)} cases can be converted ({'; '.join(reasons)}{more})"
    return problem(came, "at least one must be whole", "check that the source is the data set as published")


def tell(report: Mapping[str, Any], out_dir: str) -> None:
    """Print what was converted and what was not, for the command line."""
    cases, dropped = report["cases"], report["dropped"]
    for case in dropped:
        print(f"dropped {case['case']}: {case['why']}")
    for number, name in report["labels"].items():
        if number != "0":
            print(f"{name}: in {sum(case.get('voxels', {}).get(name, 0) > 0 for case in cases.values())} cases")
    if unlabelled := sum("voxels" not in case for case in cases.values()):
        print(f"without labels, to predict on: {unlabelled} cases")
    for name, case in cases.items():
        for note in case.get("notes", ()):
            print(f"{name}: {note}")
    if overlap := sum(case.get("overlap", 0) for case in cases.values()):
        touched = sum(case.get("overlap", 0) > 0 for case in cases.values())
        print(f"{overlap} voxels of {touched} cases were in several masks and went to the thinner structure")
    print(
        f"wrote {out_dir}: {len(cases)} cases, {len(dropped)} dropped, all listed in dataset.json; "
        "what was done is in conversion.json"
    )
