"""From TopCoW, arteries of the circle of Willis in MR and CT angiography, to a Decathlon folder.

Yang et al., "Benchmarking the CoW with the TopCoW Challenge: Topology-Aware Anatomical Segmentation of the Circle of
Willis for CTA and MRA", arXiv 2312.17670.

Known from programs of the challenge and of those who took part, not from the files themselves: images
``imagesTr/topcow_mr_001_0000.nii.gz`` and ``topcow_ct_001_0000.nii.gz``, labels of the same name without ``_0000`` in
``cow_seg_labelsTr`` (2024) or ``mul_labelsTr`` and ``bin_labelsTr`` (2023, where the names say ``whole`` or ``roi``, a
crop of the same scan); MR and CT of one number are of one person; 13 arteries, 1 to 12 and 15.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

from ...checks import InputError, nearest, problem
from ...files import case_name
from .angiograms import VESSEL, convert_angiograms
from .pairs import find_base, only_source, pair_files, plain_name, volume_files
from .sources import Case
from .writing import tell

__all__ = ["ARTERIES", "convert_topcow", "topcow_command"]

# by their numbers in the files; in a data set of single arteries the last is class 13
ARTERIES = {
    1: "BA",
    2: "R-PCA",
    3: "L-PCA",
    4: "R-ICA",
    5: "R-MCA",
    6: "L-ICA",
    7: "L-MCA",
    8: "R-Pcom",
    9: "L-Pcom",
    10: "Acom",
    11: "R-ACA",
    12: "L-ACA",
    15: "3rd-A2",
}
_IMAGES = "imagesTr"
_LABELS = ("cow_seg_labelsTr", "mul_labelsTr")  # one class is made of several: bin_labelsTr is not needed
_MODALITIES = {"mr": "MRA", "ct": "CTA", "both": "MRA or CTA"}
_NAME = re.compile(r"^topcow_(mr|ct)_(?:(whole|roi)_)?(\d+)$", re.IGNORECASE)


def convert_topcow(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    modality: str = "mr",
    classes: str = "binary",
    name: str | None = None,
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write TopCoW as a Decathlon folder, whole or not at all.

    Vessels outside the circle of Willis are background in the labels, however bright. MR and CT of one number are one
    patient, so that no fold divides them. `angiograms.convert_angiograms` says what is checked and written.

    Args:
        source: the unpacked data set, at any level above ``imagesTr`` and ``cow_seg_labelsTr`` (or ``mul_labelsTr``).
        out_dir: folder to make.
        modality: scans to take: "mr", "ct" or "both".
        classes: "binary" for one class, vessel; "arteries" for the 13 that the set tells apart, the third A2 segment,
            15 in the files, as the last of them.
        name: of the data set; the folder's name by default.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report of `angiograms.convert_angiograms`.

    Raises:
        InputError: no such folders, several of them, an unknown modality or kind of classes, no case left, an existing
            `out_dir`.
    """
    modality = _choice(modality, "modality", list(_MODALITIES))
    classes = _choice(classes, "classes", ["binary", "arteries"])
    base = find_base(only_source(source), [(_IMAGES, labels) for labels in _LABELS])
    labels = next(base / folder for folder in _LABELS if (base / folder).is_dir())
    pairs = pair_files(volume_files(base / _IMAGES), volume_files(labels), plain_name)
    cases = [_named(case) for case in pairs if modality == "both" or f"_{modality}_" in case.name.lower()]
    if not cases:
        raise InputError(
            problem(
                f"'{base}' has no {modality} scans",
                f"they are called as topcow_{modality}_001_0000.nii.gz",
                "choose another --modality: mr, ct or both",
            )
        )
    order = {number: place for place, number in enumerate(ARTERIES, start=1)}
    binary = classes == "binary"
    table = [0, *((min(order[k], 1) if binary else order[k]) if k in order else None for k in range(1, 16))]
    content = {
        "description": f"TopCoW, {_MODALITIES[modality]}, arteries of the circle of Willis; see conversion.json",
        "licence": "see the conditions of the challenge, topcow24.grand-challenge.org",
        "reference": "Yang et al., arXiv 2312.17670",
        "modality": {"0": "CT" if modality == "ct" else _MODALITIES[modality]},
        **({"name": name} if name else {}),
    }
    names = VESSEL if binary else ("background", *ARTERIES.values())
    return convert_angiograms(cases, out_dir, content, names=names, table=table, copy=copy, overwrite=overwrite)


def topcow_command(sources: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert and print what was done: the body of ``volseg convert topcow``.

    Args:
        sources: the data set's folder.
        out_dir: folder to make.
        options: further arguments of `convert_topcow`.
    """
    tell(convert_topcow(sources, out_dir, **options), out_dir)


def _choice(value: str, option: str, known: Sequence[str]) -> str:
    if value in known:
        return value
    like = nearest(str(value), known) or known[0]
    raise InputError(problem(f"--{option} is '{value}'", f"it is one of {', '.join(known)}", f"pass --{option} {like}"))


def _named(case: Case) -> Case:
    """A case with its patient; refused where its name is not of the set, or says that it is a crop."""
    found = _NAME.match(plain_name(case_name(case.image or case.label or case.name)))
    if found is None:
        return dataclasses.replace(case, refused=case.refused or "its name is not as topcow_mr_001")
    if (found.group(2) or "").lower() == "roi":
        return dataclasses.replace(case, refused="it is a crop of a scan that is there whole")
    return dataclasses.replace(case, patient=f"topcow_{found.group(3)}")
