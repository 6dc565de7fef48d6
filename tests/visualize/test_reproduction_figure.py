"""The picture of a reproduced experiment."""

from __future__ import annotations

import math

import matplotlib.image
import numpy as np
import pytest

from common.checks import InputError
from common.visualize.reproduction import reproduction_figure

ROWS = ["1", "2", "average"]
OURS = {"": {"a": [0.2, 0.4, 0.3], "b": [0.5, math.nan, math.nan]}}


def test_a_picture_is_written_and_the_paper_is_in_it(tmp_path):
    assert reproduction_figure(OURS, {}, ROWS, tmp_path / "without.png", "IoU")
    assert reproduction_figure(OURS, {"": {"a": [0.9, 0.8, 0.85]}}, ROWS, tmp_path / "with.png", "IoU", "slices")
    without, beside = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("without", "with"))
    assert without.shape[2] == 4 and without.std() > 0
    assert without.shape != beside.shape or not np.array_equal(without, beside)


def test_more_columns_make_a_wider_picture(tmp_path):
    for number in (1, 3):
        panels = {f"S{k}": OURS[""] for k in range(number)}
        assert reproduction_figure(panels, {}, ROWS, tmp_path / f"{number}.png", "IoU")
    widths = [matplotlib.image.imread(tmp_path / f"{number}.png").shape[1] for number in (1, 3)]
    assert widths[1] > 2 * widths[0]


def test_nothing_measured_is_no_picture(tmp_path):
    assert not reproduction_figure({"": {"a": [math.nan]}}, {"": {"a": [0.5]}}, ["1"], tmp_path / "x.png", "IoU")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_there_is_a_warning_and_no_picture(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("common.visualize.reproduction.has_matplotlib", False)
    assert not reproduction_figure(OURS, {}, ROWS, tmp_path / "x.png", "IoU")
    assert "pip install matplotlib" in caplog.text


def test_a_file_that_can_not_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can not be written"):
        reproduction_figure(OURS, {}, ROWS, tmp_path / "file" / "x.png", "IoU")
