"""Tables of scores."""

import csv
import json
import math

import numpy as np
import pytest

from common.metrics.scores import METRICS, NOT_DENSE
from common.metrics.table import ScoreTable, mean_interval, summarise


def row(dice, status="scored"):
    values = dict.fromkeys(METRICS, math.nan) | {"dice": dice}
    return {**values, "status": status, "pred_voxels": 1, "label_voxels": 1}


def test_summary_by_hand():
    found = summarise([0.2, math.nan, 0.4, 0.9])
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(0.5)
    assert found["std"] == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert (found["median"], found["min"], found["max"]) == (0.4, 0.2, 0.9)
    assert 0.2 <= found["ci95"][0] < 0.5 < found["ci95"][1] <= 0.9


@pytest.mark.parametrize("values, n", [([], 0), ([math.nan], 0), ([0.5], 1)])
def test_no_interval_from_fewer_than_two(values, n):
    found = summarise(values)
    assert found["n"] == n and found["ci95"] is None and found["std"] is None


def test_interval_is_a_bootstrap_of_the_mean():
    values = np.random.default_rng(1).normal(0.7, 0.1, 200)
    low, high = mean_interval(values.tolist())
    half = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert mean_interval(values.tolist()) == (low, high)
    assert mean_interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3))


@pytest.fixture
def table():
    made = ScoreTable(["wall", "lumen"], nsd_tolerance=2.0)
    made.add("a", [row(0.8), row(math.nan, "absent")])
    made.add("b", [row(0.6), row(0.0, "false find")], dense=False)
    made.add("c", [row(1.0), row(0.5)], dense=False)
    return made


def test_means_over_cases_and_classes(table):
    summary = table.summary()
    assert summary["wall"]["dice"]["mean"] == pytest.approx(0.8)
    assert summary["lumen"]["dice"] | {"ci95": 0} == pytest.approx(
        {"mean": 0.25, "std": math.sqrt(0.125), "median": 0.25, "min": 0.0, "max": 0.5, "ci95": 0, "n": 2}
    )
    # over classes first, within the case: 0.8, 0.3, 0.75
    assert summary["all classes"]["dice"]["mean"] == pytest.approx((0.8 + 0.3 + 0.75) / 3)
    assert summary["wall"]["assd_mm"]["n"] == 0
    assert table.statuses()["lumen"] == {"absent": 1, "false find": 1, "scored": 1}


def test_files(table, tmp_path):
    table.write(tmp_path / "out" / "metrics.csv", tmp_path / "out" / "metrics.json", warning="loud")
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert [(one["case"], one["class"], one["dice"], one["hd95_mm"]) for one in rows[:2]] == [
        ("a", "wall", "0.8", ""),
        ("a", "lumen", "", ""),
    ]
    text = (tmp_path / "out" / "metrics.json").read_text()
    assert "NaN" not in text
    content = json.loads(text)
    assert content["warning"] == "loud" and content["nsd_tolerance_mm"] == 2.0
    assert content["notes"] == [NOT_DENSE]
    assert len(content["cases"]) == 6 and content["cases"][1]["dice"] is None


def test_plain_text_shows_what_was_scored(table):
    text = str(table)
    assert "all classes" in text and "dice" in text and "hd95_mm" not in text
    assert text.count(NOT_DENSE) == 1
    assert "0.800 [0.6" in text


def test_a_row_for_every_class():
    with pytest.raises(ValueError, match="zip"):
        ScoreTable(["one", "two"]).add("a", [row(0.1)])


def test_small_distances_are_shown():
    made = ScoreTable(["wall"])
    made.add("a", [{**row(0.8), "hd95_mm": 0.00352, "assd_mm": 0.00123}])
    assert "0.800" in str(made) and "0.00352" in str(made) and "0.00123" in str(made)
