"""From the angiographies of IXI to a Decathlon folder, to predict on, or to train on with labels made elsewhere.

IXI, "Information eXtraction from Images", EPSRC GR/S21533/02, brain-development.org: nearly 600 healthy persons in
three hospitals, among other sequences time-of-flight angiography; no labels.

Known from public descriptions and programs, not from the files themselves: names of the form
``IXI002-Guys-0828-MRA.nii.gz`` (person, hospital: Guys, HH or IOP, another number, sequence), all in one folder;
``IXI371-IOP-0970-MRA.nii.gz`` is told to be cut off.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...checks import InputError, problem
from ...files import case_name
from .angiograms import convert_angiograms
from .pairs import only_source, pair_files
from .sources import Case
from .writing import tell

__all__ = ["convert_ixi", "ixi_command"]

_SCAN = re.compile(r"^(IXI\d+)-[A-Za-z]+-\d+-MRA\.nii(\.gz)?$", re.IGNORECASE)
_PERSON = re.compile(r"IXI\d+", re.IGNORECASE)


def convert_ixi(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    name: str | None = None,
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write the angiographies of IXI as a Decathlon folder, whole or not at all.

    Other sequences in the folder are passed over. Without labels all cases are listed under ``test``: there is nothing
    to train on or to score. `angiograms.convert_angiograms` says what is checked and written.

    Args:
        source: the folder that ``IXI-MRA.tar`` was unpacked to, or one above it.
        out_dir: folder to make.
        labels: folder of NIfTI labels whose names hold the person's number (``IXI002``), as others have published
            some; every number but 0 is vessel. Scans without a label are listed under ``test``.
        name: of the data set; the folder's name by default.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report of `angiograms.convert_angiograms`.

    Raises:
        InputError: no such scans or labels, two of one person, no case left, an existing `out_dir`.
    """
    folder = only_source(source)
    held = [] if labels is None else _labels(Path(labels).expanduser())
    scans = [path for path in _files(folder, _SCAN) if path not in held]
    if not scans:
        raise InputError(
            problem(
                f"'{folder}' has no angiography of IXI",
                "they are called as IXI002-Guys-0828-MRA.nii.gz",
                "name the folder that IXI-MRA.tar was unpacked to",
            )
        )
    content = {
        "description": "IXI, time-of-flight MR angiography of healthy persons; see conversion.json",
        "licence": "CC BY-SA 3.0; labels under the conditions of who made them",
        "reference": "IXI, Information eXtraction from Images, EPSRC GR/S21533/02, brain-development.org/ixi-dataset",
        "modality": {"0": "MRA"},
        **({"name": name} if name else {}),
    }
    return convert_angiograms(_cases(scans, held), out_dir, content, copy=copy, overwrite=overwrite)


def ixi_command(sources: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert and print what was done: the body of ``volseg convert ixi``.

    Args:
        sources: the data set's folder.
        out_dir: folder to make.
        options: further arguments of `convert_ixi`.
    """
    tell(convert_ixi(sources, out_dir, **options), out_dir)


def _files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """NIfTI files at or below a folder whose name fits, by name."""
    found = (path for path in folder.resolve().rglob("*.nii*") if path.is_file() and not path.name.startswith("."))
    return sorted((path for path in found if pattern.search(path.name)), key=lambda path: (path.name, path))


def _labels(folder: Path) -> list[Path]:
    found = _files(folder, _PERSON) if folder.is_dir() else []
    if not found:
        came = "has no label with a person's number in its name" if folder.is_dir() else "is no folder"
        raise InputError(
            problem(
                f"--labels '{folder}' {came}",
                "labels are NIfTI files whose names hold the person's number, such as IXI002",
                "name their folder, or leave --labels out to convert for prediction only",
            )
        )
    return found


def _cases(scans: Sequence[Path], labels: Sequence[Path]) -> list[Case]:
    """Scans with the label of the same person; one that has none is there to predict on."""
    cases = []
    for case in pair_files(scans, labels, _person):
        if case.image is None:
            cases.append(case)
        else:
            cases.append(Case(case.name, case.image, case.label, patient=_person(case_name(case.image))))
    return cases


def _person(name: str) -> str:
    found = _PERSON.search(name)
    return found.group().upper() if found else name
