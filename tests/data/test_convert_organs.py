"""The organs that the converters of abdominal CT share."""

from __future__ import annotations

import json

from organ_sets import MASKS

from common.data.convert import amos, btcv, totalsegmentator
from common.data.convert.organs import CLASSES


def test_the_classes_are_those_of_the_bundle(repository):
    config = json.loads((repository / "bundles" / "cascaded_multiorgan" / "configs" / "train.json").read_text())
    assert list(CLASSES) == config["class_names"]
    for table in (btcv.NUMBERS, amos.NUMBERS, *(one for one, _ in totalsegmentator.NUMBERS.values())):
        assert set(table.values()) <= set(CLASSES[1:]) and len(set(table.values())) == len(table)
    assert set(totalsegmentator._MASKS) == set(CLASSES[1:]) == set(MASKS)
