"""The table of LiTS scores: every case counts, means are told with what they are of."""

import csv
import json
import math

import pytest
import torch

from common.metrics.lits import lits_scores
from common.metrics.lits_table import LitsTable

SPACING = (1.0, 1.0, 2.0)


def volume(organ, *lesions):
    """1 10 4 4 with an organ over some positions of the first axis and lesions over others."""
    made = torch.zeros(1, 10, 4, 4, dtype=torch.uint8)
    for number, places in ((1, [organ]), (2, lesions)):
        for start, stop in places:
            made[:, start:stop] = number
    return made


PAIRS = {  # prediction, reference
    "good": (volume((0, 8), (2, 5)), volume((0, 8), (2, 5))),
    "poor": (volume((0, 8), (0, 1)), volume((0, 8), (6, 8))),  # Dice of the lesion is 0: below any limit
    "none": (volume((0, 6)), volume((0, 6))),
    "false": (volume((0, 8), (3, 4)), volume((0, 8))),
    "missed": (volume((0, 8)), volume((0, 8), (1, 2), (4, 6))),
    "lost": (volume((0, 0)), volume((0, 4), (1, 2))),  # no organ found at all
}


@pytest.fixture
def table():
    made = LitsTable()
    for name, (pred, label) in PAIRS.items():
        made.add(name, lits_scores(pred, label, SPACING), {"box_recall": 0.5 if name != "none" else math.nan})
    return made


def test_no_case_is_left_out(table):
    """Neither a case of Dice below 0.02, which the released evaluation of jin2020raunet drops, nor an empty one."""
    summary = table.summary()
    lesion, organ = summary["tumour"], summary["liver"]
    assert (lesion["dice_per_case"]["n"], lesion["jaccard"]["n"], lesion["voe"]["n"]) == (6, 6, 6)
    assert lesion["dice_per_case"]["mean"] == pytest.approx((1 + 0 + 1 + 0 + 0 + 0) / 6)
    assert lesion["status"] == {"scored": 2, "absent": 1, "false find": 1, "missed": 2}
    assert organ["dice_per_case"]["mean"] == pytest.approx(5 / 6) and organ["status"] == {"scored": 5, "missed": 1}
    assert len(table.rows()) == 6 and summary["tumour_burden"]["n"] == 6


def test_dice_global_is_that_of_all_voxels(table):
    found, true, both = [], [], 0
    for pred, label in PAIRS.values():
        found.append((pred == 2).sum().item())
        true.append((label == 2).sum().item())
        both += ((pred == 2) & (label == 2)).sum().item()
    summary = table.summary()
    assert summary["tumour"]["dice_global"] == pytest.approx(2 * both / (sum(found) + sum(true)))
    assert summary["tumour"]["dice_global"] != pytest.approx(summary["tumour"]["dice_per_case"]["mean"])


def test_scores_that_are_undefined_stay_out_of_their_means_only(table):
    lesion = table.summary()["tumour"]
    assert lesion["msd_mm"]["n"] == 2 and lesion["msd_mm"]["mean"] == pytest.approx((0 + 7) / 2)
    assert lesion["rvd"]["n"] == 5  # not the false find
    assert lesion["rvd"]["mean"] == pytest.approx((0 - 0.5 + 0 - 1 - 1) / 5)


def test_lesions_are_counted_over_all_cases(table):
    found = table.summary()["detection"]
    assert (found["reference"], found["predicted"]) == (5, 3)
    for name in ("iou > 0", "iou > 0.5"):
        assert found[name] == {
            "matched": 1,
            "precision": pytest.approx(1 / 3),
            "recall": pytest.approx(1 / 5),
            "f1": pytest.approx(2 / 8),
        }


def test_tumour_burden(table):
    errors = [0, 1 / 8 - 2 / 8, 0, 1 / 8, -3 / 8, -1 / 4]
    burden = table.summary()["tumour_burden"]
    assert burden["rmse"] == pytest.approx(math.sqrt(sum(error**2 for error in errors) / 6))
    assert burden["max_error"] == pytest.approx(3 / 8)


def test_markdown_is_a_table_for_people(table):
    text = table.markdown()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    cells = {line[0]: line[1:] for line in lines}
    assert lines[0] == ["", "liver", "tumour"]
    assert list(cells)[2:10] == [
        "Dice per case",
        "Dice global",
        "Jaccard",
        "VOE",
        "RVD",
        "ASSD, mm",
        "RMSD, mm",
        "MSD, mm",
    ]
    assert cells["Dice per case"][1].startswith("0.333 [") and "of" not in cells["Dice per case"][1]
    assert cells["MSD, mm"][1].startswith("3.50 [") and cells["MSD, mm"][1].endswith("(2 of 6)")
    assert cells["cases, missed"] == ["1", "2"] and cells["cases, absent"] == ["0", "1"]
    assert cells["cases, false find"] == ["0", "1"] and cells["cases"] == ["6", "6"]
    assert cells["IoU > 0.5"] == ["1", "0.333", "0.200", "0.250"]
    assert "5 in the references, 3 predicted." in text and "RMSE 0.198, maximum error 0.375." in text


def test_files(table, tmp_path):
    text = table.write(tmp_path, ["# More\n"], ["**Warning:** loud"], failed=["x"])
    assert (tmp_path / "lits.md").read_text() == text and text.endswith("\n# More\n\n**Warning:** loud\n")
    rows = list(csv.DictReader((tmp_path / "lits.csv").open()))
    assert [row["case"] for row in rows] == list(PAIRS)
    assert (rows[3]["tumour_status"], rows[3]["tumour_rvd"], rows[3]["tumour_dice"]) == ("false find", "", "0.0")
    assert (rows[4]["tumour_lesions_label"], rows[4]["tumour_lesions_pred"]) == ("2", "0")
    assert (rows[0]["tumour_lesions_iou > 0.5"], rows[0]["box_recall"], rows[2]["box_recall"]) == ("1", "0.5", "")
    content = json.loads((tmp_path / "lits.json").read_text())
    assert content["failed"] == ["x"] and content["cases"][3]["tumour_rvd"] is None
    assert content["summary"]["tumour"]["status"]["missed"] == 2 and len(content["rules"]) == 3


def test_without_lesions_and_of_one_case(tmp_path):
    """A single case has no interval; a reference without lesions' labels says nothing of lesions."""
    table = LitsTable("kidney", None)
    table.add("a", lits_scores(*PAIRS["good"], SPACING, lesions=False))
    text = table.write(tmp_path)
    assert set(table.summary()) == {"kidney"} and "[" not in text and "esion" not in text and "burden" not in text
    assert len(json.loads((tmp_path / "lits.json").read_text())["rules"]) == 1


def test_of_no_lesions_anywhere():
    table = LitsTable()
    table.add("a", lits_scores(*PAIRS["none"], SPACING))
    summary = table.summary()
    assert summary["tumour"]["dice_per_case"]["mean"] == summary["tumour"]["dice_global"] == 1.0
    assert summary["detection"]["iou > 0"] == {"matched": 0, "precision": None, "recall": None, "f1": None}
    lines = [line.split("|") for line in table.markdown().splitlines() if line.startswith("| ASSD")]
    assert lines[0][3].strip() == "-"
