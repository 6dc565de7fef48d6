"""The converter of AMOS on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from organ_sets import content, dropped, expected, label, numbers, save, scan

from common.checks import InputError
from common.data import convert_amos, inference_cases, training_cases
from common.data.decathlon import patient_of, read_dataset

AMOS = ["", "spleen", "", "", "gallbladder", "", "liver", "stomach", "artery", "", "pancreas", "", "", "", "", ""]


@pytest.fixture
def amos_set(tmp_path):
    root = tmp_path / "amos22"
    for part, cases in (("Tr", (1, 4, 500, 501)), ("Va", (8, 507))):
        for number in cases:
            save(root / f"images{part}" / f"amos_{number:04}.nii.gz", scan())
            save(root / f"labels{part}" / f"amos_{number:04}.nii.gz", numbers(15, number))
    save(root / "imagesTs" / "amos_0002.nii.gz", scan())
    names = {"0": "background", "4": "gall bladder", "6": "liver", "8": "arota", "10": "pancreas"}
    (root / "dataset.json").write_text(json.dumps({"labels": names}))
    return root


def test_amos_lists_the_classes_that_it_has(amos_set, tmp_path):
    convert_amos(amos_set.parent, tmp_path / "out")
    made = content(tmp_path / "out")
    assert sorted(made["labels"]) == ["0", "1", "3", "4", "5", "6", "7"]
    np.testing.assert_array_equal(label(tmp_path / "out", "amos_0004"), expected(numbers(15, 4), AMOS))
    parts = {Path(entry["image"]).name[5:9]: entry["split"] for entry in made["training"]}
    assert parts == {"0001": "train", "0004": "train", "0500": "train", "0008": "val"}
    mr = "it is MR: its number is above 500"
    assert dropped(tmp_path / "out") == {"amos_0501": mr, "amos_0507": mr}


def test_every_case_of_amos_is_a_patient(amos_set, tmp_path):
    convert_amos(amos_set, tmp_path / "out")
    _, listed = read_dataset(tmp_path / "out")
    assert len({patient_of(entry, listed) for entry in listed["training"]}) == 4
    assert len(training_cases(tmp_path / "out", "validation", 0, 4)) == 1
    assert len(inference_cases(tmp_path / "out")) == 4


def test_amos_by_split(amos_set, tmp_path):
    report = convert_amos(amos_set, tmp_path / "out", split="val", name="validation")
    assert list(report["cases"]) == ["amos_0008"] and content(tmp_path / "out")["name"] == "validation"


def test_two_cases_of_one_name(amos_set, tmp_path):
    for part in ("images", "labels"):
        held = amos_set / f"{part}Tr" / "amos_0001.nii.gz"
        (amos_set / f"{part}Va" / held.name).write_bytes(held.read_bytes())
    with pytest.raises(InputError, match="several cases are called 'amos_0001'"):
        convert_amos(amos_set, tmp_path / "out")
