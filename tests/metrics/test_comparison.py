"""Methods compared on the same cases."""

import csv
import math

import numpy as np
import pytest

from common.checks import InputError
from common.metrics.comparison import Comparison, paired_difference

METRICS = {"dice": ("Dice", ".3f"), "hd95_mm": ("HD95, mm", ".1f")}
NAN = math.nan


@pytest.fixture
def found():
    """The second method misses a case, so that this has no distance there; the third has no distances at all."""
    made = Comparison(METRICS)
    for case, dice, distance in (("b", 0.5, 10.0), ("a", 0.75, 6.0), ("c", 0.25, 8.0)):
        made.add("ensemble", case, {"dice": dice, "hd95_mm": distance}, fold=1)
    for case, dice, distance in (("a", 0.5, 9.0), ("b", 0.625, 4.0), ("c", 0.0, NAN)):
        made.add("U-Net", case, {"dice": dice, "hd95_mm": distance}, fold=1)
    made.add("RF64", "a", {"dice": 0.7})
    return made


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_means_over_cases(found):
    lines = cells(found.means())
    assert lines[0] == ["", "cases", "Dice", "HD95, mm"] and [line[0] for line in lines[2:]] == found.methods
    assert lines[2][1] == "3" and lines[2][2].startswith("0.500 ± 0.250 [") and lines[2][3].startswith("8.0 ± 2.0 [")
    # the missed case is in the mean of Dice, and its distance in none
    assert lines[3][2].startswith("0.375 ± 0.331 [")
    assert lines[3][3].startswith("6.5 ± 3.5 [") and lines[3][3].endswith("] (n = 2)")
    assert lines[4] == ["RF64", "1", "0.700", "-"]


def test_differences_are_paired_by_name_and_not_by_order(found):
    first, second = np.array([0.75, 0.5, 0.25]), np.array([0.5, 0.625, 0.0])
    difference = paired_difference(found.scores("ensemble", "dice"), found.scores("U-Net", "dice"))
    assert difference["mean"] == pytest.approx((first - second).mean())
    assert difference["std"] == pytest.approx((first - second).std(ddof=1))
    assert (difference["n"], difference["higher"], difference["lower"]) == (3, 2, 1)
    low, high = difference["ci95"]
    assert -0.125 <= low < difference["mean"] < high <= 0.25
    distance = paired_difference(found.scores("ensemble", "hd95_mm"), found.scores("U-Net", "hd95_mm"))
    assert (distance["mean"], distance["n"]) == (pytest.approx(1.5), 2)
    lines = cells(found.differences([("ensemble", "U-Net"), ("ensemble", "RF64")]))
    assert lines[2][0] == "ensemble - U-Net"
    assert lines[2][1].startswith("+0.125 ± 0.217 [-0.125, +0.250]")
    assert lines[2][1].endswith("; higher in 2, lower in 1")
    assert lines[3] == ["ensemble - RF64", "+0.050; higher in 1, lower in 0", "-"]


def test_equal_scores_are_neither_higher_nor_lower():
    found = paired_difference({"a": 0.5, "b": 0.007}, {"a": 0.5, "b": 0.007 * 100 / 100})
    assert (found["mean"], found["n"], found["higher"], found["lower"]) == (pytest.approx(0.0), 2, 0, 0)
    assert paired_difference({"a": NAN}, {"b": 1.0})["mean"] is None


def test_case_by_case(found):
    lines = cells(found.cases())
    assert lines[2:6] == [
        ["a", "ensemble", "0.750", "6.0"],
        ["", "U-Net", "0.500", "9.0"],
        ["", "RF64", "0.700", "-"],
        ["b", "ensemble", "0.500", "10.0"],
    ]
    assert lines[-1] == ["", "U-Net", "0.000", "-"]


def test_csv_has_a_row_a_case_and_method(found, tmp_path):
    found.write_csv(tmp_path / "cases.csv")
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert len(rows) == 7 and list(rows[0]) == ["method", "case", "fold", "dice", "hd95_mm"]
    assert rows[0] == {"method": "ensemble", "case": "b", "fold": "1", "dice": "0.5", "hd95_mm": "10.0"}
    assert (rows[5]["case"], rows[5]["hd95_mm"], rows[6]["fold"]) == ("c", "", "")


def test_a_case_that_comes_twice(found):
    with pytest.raises(InputError, match="'a' was scored twice by U-Net: every case is held out once"):
        found.add("U-Net", "a", {"dice": 1.0})
