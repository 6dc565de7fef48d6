"""From the abdomen of BTCV, "Beyond the Cranial Vault", to a Decathlon folder of the cascade's organs.

Landman et al., "MICCAI Multi-Atlas Labeling Beyond the Cranial Vault - Workshop and Challenge", 2015, doi
10.7303/syn3193805 (Synapse, after registration): 30 labelled portal-venous CT, 13 organs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .organs import convert_organs, mapped_reader
from .pairs import numbered_cases, only_source
from .writing import tell

__all__ = ["NUMBERS", "btcv_command", "convert_btcv"]

# 1 spleen, 2 right kidney, 3 left kidney, 4 gallbladder, 5 esophagus, 6 liver, 7 stomach, 8 aorta,
# 9 inferior vena cava, 10 portal vein and splenic vein, 11 pancreas, 12 right adrenal gland, 13 left adrenal gland
NUMBERS = {
    8: "artery",
    10: "portal vein",
    6: "liver",
    1: "spleen",
    7: "stomach",
    4: "gallbladder",
    11: "pancreas",
}
_HIGHEST = 13
_LAYOUTS = {
    ("img", "label"): None,
    ("imagesTr", "labelsTr"): None,
    ("averaged-training-images", "averaged-training-labels"): None,
}


def convert_btcv(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    copy: bool | str = False,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write the labelled cases of BTCV's abdomen as a Decathlon folder, whole or not at all.

    Artery is the aorta, portal vein is "portal vein and splenic vein". Images and labels are paired by their number:
    ``img0001`` with ``label0001``, ``DET0000101_avg`` with ``DET0000101_avg_seg``. `organs.convert_organs` says what is
    checked and written.

    Args:
        source: the unpacked data set, at any level above ``img`` and ``label``; also ``imagesTr`` and ``labelsTr``, and
            ``averaged-training-images`` and ``averaged-training-labels``.
        out_dir: folder to make.
        name: of the data set; the folder's name by default.
        copy: whether images are copied where they could be linked.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report of `organs.convert_organs`.

    Raises:
        InputError: no such folders, several of them, organs of other numbers, no case left, an existing `out_dir`.
    """
    content = {
        "description": "BTCV abdomen, seven of its 13 organs; see conversion.json",
        "licence": "terms of use of Synapse syn3193805 (registration)",
        "reference": "Landman et al., Multi-Atlas Labeling Beyond the Cranial Vault, 2015, doi 10.7303/syn3193805",
        **({"name": name} if name else {}),
    }
    cases = numbered_cases(only_source(source), _LAYOUTS, NUMBERS)
    reader = mapped_reader(NUMBERS, _HIGHEST)
    return convert_organs(cases, out_dir, reader, content, copy=copy, overwrite=overwrite)


def btcv_command(sources: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert and print what was done: the body of ``volseg convert btcv``.

    Args:
        sources: the data set's folder.
        out_dir: folder to make.
        options: further arguments of `convert_btcv`.
    """
    tell(convert_btcv(sources, out_dir, **options), out_dir)
