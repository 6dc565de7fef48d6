"""From the CT scans of AMOS 2022 to a Decathlon folder of the cascade's organs, all but the portal vein.

Ji et al., "AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image Segmentation", NeurIPS 2022
(Datasets and Benchmarks), arXiv 2206.08023; data: doi 10.5281/zenodo.7262581: 500 CT and 100 MR, 15 organs; labels of
300 CT are public.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from .organs import CLASSES, convert_organs, mapped_reader, select_split
from .pairs import case_number, numbered_cases, only_source
from .sources import Case
from .writing import tell

__all__ = ["NUMBERS", "amos_command", "convert_amos"]

# 1 spleen, 2 right kidney, 3 left kidney, 4 gallbladder, 5 esophagus, 6 liver, 7 stomach, 8 aorta,
# 9 inferior vena cava, 10 pancreas, 11 right adrenal gland, 12 left adrenal gland, 13 duodenum, 14 bladder,
# 15 prostate or uterus
NUMBERS = {8: "artery", 6: "liver", 1: "spleen", 7: "stomach", 4: "gallbladder", 10: "pancreas"}
_HIGHEST = 15
_LAST_CT = 500  # the set's readme says "less than 500"; 500 CT make it 500
_LAYOUTS = {("imagesTr", "labelsTr"): "train", ("imagesVa", "labelsVa"): "val"}


def convert_amos(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    split: str | None = None,
    name: str | None = None,
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write the labelled CT scans of AMOS 2022 as a Decathlon folder, whole or not at all.

    Artery is the aorta. The portal vein has no label here: its voxels are background in the files, and ``labels`` in
    ``dataset.json`` leaves the class out, so that an evaluation does not score it. MR scans, those with a number above
    500, are left out. `organs.convert_organs` says what is checked and written.

    Args:
        source: the unpacked data set, at any level above ``imagesTr``, ``labelsTr``, ``imagesVa`` and ``labelsVa``.
        out_dir: folder to make.
        split: take only the cases of ``imagesTr`` (train) or ``imagesVa`` (val).
        name: of the data set; the folder's name by default.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report of `organs.convert_organs`.

    Raises:
        InputError: no such folders, several of them, organs of other numbers, no case left, an existing `out_dir`.
    """
    content = {
        "description": "AMOS 2022, CT, six of its 15 organs; the portal vein is not labelled; see conversion.json",
        "licence": "CC BY 4.0",
        "reference": "Ji et al., NeurIPS 2022, arXiv 2206.08023; data doi 10.5281/zenodo.7262581",
        **({"name": name} if name else {}),
    }
    cases = numbered_cases(only_source(source), _LAYOUTS, NUMBERS)
    cases = [_without_mr(case) for case in select_split(cases, split)]
    labelled = [CLASSES.index(organ) for organ in NUMBERS.values()]
    reader = mapped_reader(NUMBERS, _HIGHEST)
    return convert_organs(cases, out_dir, reader, content, labelled=labelled, copy=copy, overwrite=overwrite)


def amos_command(sources: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert and print what was done: the body of ``volseg convert amos``.

    Args:
        sources: the data set's folder.
        out_dir: folder to make.
        options: further arguments of `convert_amos`.
    """
    tell(convert_amos(sources, out_dir, **options), out_dir)


def _without_mr(case: Case) -> Case:
    mr = (case_number(case.name) or 0) > _LAST_CT
    return dataclasses.replace(case, refused=f"it is MR: its number is above {_LAST_CT}") if mr else case
