"""From COSTA, time-of-flight angiographies of several centres, to a Decathlon folder.

Mou et al., "COSTA: A Multi-center TOF-MRA Dataset and A Style Self-Consistency Network for Cerebrovascular
Segmentation", IEEE Trans. Med. Imaging 43(12), 2024, doi 10.1109/TMI.2024.3424976; data on request: doi
10.5281/zenodo.11025761.

Known from the authors' program, not from the files themselves: folders imagesTr, labelsTr, imagesTs and labelsTs, image
and label of one name, labels 0 and 1; ``_0001`` and folders ending in ``_normed`` are intensities that their program
has standardised. How names tell the centre or the person is not known.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...files import case_name
from .angiograms import convert_angiograms
from .organs import select_split
from .pairs import find_bases, only_source, pair_files, plain_name, volume_files
from .sources import Case
from .writing import tell

__all__ = ["convert_costa", "costa_command"]

_LAYOUTS = {("imagesTr", "labelsTr"): "train", ("imagesTs", "labelsTs"): "test"}


def convert_costa(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    split: str | None = None,
    name: str | None = None,
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write COSTA as a Decathlon folder, whole or not at all.

    Training and test cases of the authors are both listed under ``training`` where they are labelled, with their
    ``split``; a test case without a label is listed under ``test``. Each case counts as a patient of its own. Several
    folders of this form beside each other, such as one for each centre, are joined; their cases then bear the folder's
    name. Part of COSTA comes from other public sets (IXI among them): cases of both must not be on two sides of a
    fold. `angiograms.convert_angiograms` says what is checked and written.

    Args:
        source: the unpacked data set, at any level above ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``labelsTs``.
        out_dir: folder to make.
        split: take only the cases of ``imagesTr`` (train) or ``imagesTs`` (test).
        name: of the data set; the folder's name by default.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report of `angiograms.convert_angiograms`.

    Raises:
        InputError: no such folders, two files of one name, no case left, an existing `out_dir`.
    """
    folder = only_source(source)
    bases = find_bases(folder, list(_LAYOUTS))
    cases = [case for base in bases for case in _cases(base, "" if len(bases) == 1 else f"{base.name}_")]
    content = {
        "description": "COSTA, time-of-flight MR angiography of several centres; see conversion.json",
        "licence": "on request from its authors, for academic research",
        "reference": "Mou et al., IEEE Trans. Med. Imaging 43(12), 2024; data doi 10.5281/zenodo.11025761",
        "modality": {"0": "MRA"},
        **({"name": name} if name else {}),
    }
    return convert_angiograms(select_split(cases, split), out_dir, content, copy=copy, overwrite=overwrite)


def costa_command(sources: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert and print what was done: the body of ``volseg convert costa``.

    Args:
        sources: the data set's folder.
        out_dir: folder to make.
        options: further arguments of `convert_costa`.
    """
    tell(convert_costa(sources, out_dir, **options), out_dir)


def _cases(base: Path, prefix: str) -> list[Case]:
    """Cases of one folder; of the test part also those without a label."""
    cases = []
    for (images, labels), split in _LAYOUTS.items():
        if not (base / images).is_dir():
            continue
        scans = [path for path in volume_files(base / images) if not case_name(path).endswith("_0001")]
        held = volume_files(base / labels) if (base / labels).is_dir() else []
        for case in pair_files(scans, held, plain_name, split):
            to_predict = split == "test" and case.image is not None and case.label is None
            refused = None if to_predict else case.refused
            cases.append(dataclasses.replace(case, name=prefix + case.name, refused=refused))
    return cases
