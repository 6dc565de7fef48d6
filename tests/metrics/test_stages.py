"""The table of stages: the paper's own numbers come out of it."""

import csv
import json
import math

import numpy as np
import pytest

from common.metrics.stages import StageTable


def row(dice, status="scored"):
    return {"dice": dice, "status": status, "pred_voxels": 3, "label_voxels": 4}


@pytest.fixture
def table():
    """Two cases, the pancreas absent from the first and found where it is not in the second."""
    made = StageTable(["liver", "pancreas"], ["stage 1", "stage 2"])
    made.add(
        "a",
        {"stage 1": [row(0.8), row(math.nan, "absent")], "stage 2": [row(0.9), row(math.nan, "absent")]},
        {"candidate_recall": 0.993, "c2_share": 0.1, "seconds stage1": 12.5},
    )
    made.add(
        "b",
        {"stage 1": [row(0.6), row(0.5)], "stage 2": [row(0.7), row(0.0, "false find")]},
        {"candidate_recall": math.nan, "c2_share": 0.2},
    )
    return made


def test_the_average_is_that_of_the_papers_columns():
    """Stage 1 of the paper: the average of every line is the mean over organs of that line."""
    minima = (41.0, 34.5, 84.4, 70.9, 8.4, 13.8, 23.5)
    maxima = (75.7, 76.0, 92.6, 91.4, 94.8, 86.8, 72.0)
    table = StageTable([str(k) for k in range(7)], ["stage 1"])
    for case, values in (("low", minima), ("high", maxima)):
        table.add(case, {"stage 1": [row(value / 100) for value in values]}, {})
    average = table.statistics()["stage 1"]["average"]
    assert round(average["min"], 1) == 39.5 and round(average["max"], 1) == 84.2 and average["classes"] == 7
    spread = np.std([minima, maxima], axis=0, ddof=1)
    assert average["std"] == pytest.approx(spread.mean())


def test_statistics_leave_out_what_is_absent_and_count_what_is_false(table):
    found = table.statistics()
    liver, pancreas = found["stage 1"]["liver"], found["stage 1"]["pancreas"]
    assert [liver[name] for name in ("mean", "median", "min", "max", "n")] == pytest.approx([70, 70, 60, 80, 2])
    assert liver["std"] == pytest.approx(math.sqrt(200))
    assert (pancreas["mean"], pancreas["std"], pancreas["n"]) == (50.0, None, 1)
    assert pancreas["status"] == {"absent": 1, "scored": 1}
    assert found["stage 2"]["pancreas"]["mean"] == 0.0
    average = found["stage 1"]["average"]
    assert (average["mean"], average["std"]) == (pytest.approx(60.0), pytest.approx(math.sqrt(200)))


def test_an_organ_that_no_case_has_is_in_no_average():
    table = StageTable(["liver", "pancreas"], ["stage 1"])
    table.add("a", {"stage 1": [row(0.8), row(math.nan, "absent")]}, {})
    columns = table.statistics()["stage 1"]
    assert columns["pancreas"]["mean"] is None and columns["pancreas"]["n"] == 0
    assert (columns["average"]["mean"], columns["average"]["classes"]) == (80.0, 1)
    assert "Regions and time" not in table.markdown()


def test_markdown_is_a_table_for_people(table):
    text = table.markdown()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["stage", "", "liver", "pancreas", "average"]
    assert lines[2:8] == [
        ["stage 1", "mean", "70.0", "50.0", "60.0"],
        ["", "std", "14.1", "-", "14.1"],
        ["", "median", "70.0", "50.0", "60.0"],
        ["", "min", "60.0", "50.0", "55.0"],
        ["", "max", "80.0", "50.0", "65.0"],
        ["", "cases", "2", "1", ""],
    ]
    assert "- stage 1, pancreas: absent in 1" in text and "- stage 2, pancreas: absent in 1, false find in 1" in text
    assert lines[-5:] == [
        ["case", "candidate recall, %", "c2 share, %", "seconds stage1"],
        ["----", "------------------:", "----------:", "-------------:"],
        ["a", "99.3", "10.0", "12.5"],
        ["b", "-", "20.0", "-"],
        ["mean", "99.3", "15.0", "12.5"],
    ]
    widths = {len(line) for line in text.split("# Regions")[0].splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_files(table, tmp_path):
    text = table.write(tmp_path, ["**Warning:** loud"], failed=["c"])
    assert (tmp_path / "stages.md").read_text() == text and text.endswith("**Warning:** loud\n")
    rows = list(csv.DictReader((tmp_path / "stages.csv").open()))
    assert [(line["case"], line["stage"], line["class"]) for line in rows[:3]] == [
        ("a", "stage 1", "liver"),
        ("a", "stage 1", "pancreas"),
        ("a", "stage 2", "liver"),
    ]
    assert float(rows[0]["dice_percent"]) == pytest.approx(80.0) and rows[1]["dice_percent"] == ""
    content = json.loads((tmp_path / "stages.json").read_text())
    assert content["failed"] == ["c"] and content["dice_percent"]["stage 2"]["liver"]["mean"] == pytest.approx(80.0)
    assert content["cases"][1] == {"case": "b", "candidate_recall": None, "c2_share": 0.2}
    assert len(content["scores"]) == 8


def test_members_of_an_ensemble_and_their_regions(tmp_path):
    """One class, no tumour in the second case and none found: named as the method does, without an average."""
    legend = {"share": "roi_share: voxels in any region.", "recall": "roi_recall: of the tumour.", "window": "unused"}
    table = StageTable(["tumour"], ["RF64", "ensemble"], "network", legend)
    figures = {"roi_recall": 0.875, "rois RF64": 2, "roi_share": 0.125}
    table.add("a", {"RF64": [row(0.5)], "ensemble": [row(0.75)]}, figures)
    absent = [row(math.nan, "absent")]
    table.add("b", {"RF64": absent, "ensemble": absent}, {"roi_recall": math.nan, "rois RF64": 0, "roi_share": 0.0})
    text = table.write(tmp_path)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("# Dice in percent, by network\n") and "verage" not in text and "organ" not in text
    assert (
        lines[0] == ["network", "", "tumour"] and lines[2] == ["RF64", "mean", "50.0"] and ["", "cases", "1"] in lines
    )
    assert "- ensemble, tumour: absent in 1" in text
    assert lines[-5] == ["case", "roi recall, %", "rois RF64", "roi share, %"]
    assert lines[-3:] == [["a", "87.5", "2", "12.5"], ["b", "-", "0", "0.0"], ["mean", "87.5", "1", "6.2"]]
    assert text.endswith("\n\nroi_share: voxels in any region.\n\nroi_recall: of the tumour.\n")
    assert next(csv.DictReader((tmp_path / "stages.csv").open()))["network"] == "RF64"
    content = json.loads((tmp_path / "stages.json").read_text())
    assert [line["network"] for line in content["scores"]] == ["RF64", "ensemble"] * 2
    assert content["cases"][1]["roi_recall"] is None and content["dice_percent"]["RF64"]["tumour"]["n"] == 1
