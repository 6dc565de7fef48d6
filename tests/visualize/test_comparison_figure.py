"""The picture of several methods on the same cases."""

from __future__ import annotations

import itertools
import math

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from common.visualize import comparison
from common.visualize.comparison import comparison_figure


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are drawn."""
    made: list[Figure] = []

    def figure(*args, **kwargs) -> Figure:
        made.append(Figure(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(comparison, "Figure", figure)
    return made


SCORES = {"a": {"x": 0.5, "y": 0.7, "z": 0.9}, "b": {"x": 0.6, "z": math.nan}}


def test_bars_are_means_and_their_whiskers_deviations(tmp_path, figures):
    assert comparison_figure({"Dice": SCORES}, tmp_path / "a.png", spread=True)
    (axes,) = figures[0].axes
    bars = [line for line in axes.lines if line.get_linewidth() == 2.5]
    assert [list(bar.get_ydata()) for bar in bars] == [pytest.approx([0.7, 0.7]), pytest.approx([0.6, 0.6])]
    (whisker,) = axes.containers  # one score has no deviation
    assert whisker.lines[2][0].get_segments()[0][:, 1] == pytest.approx([0.5, 0.9])
    assert axes.get_ylim() == (-0.02, 1.02)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]
    assert imread(tmp_path / "a.png").shape[0] > 100


def test_a_line_a_case_broken_where_it_was_not_scored(tmp_path, figures):
    assert comparison_figure({"Dice": SCORES}, tmp_path / "a.png")
    lines = {
        line.get_label(): line.get_ydata() for line in figures[0].axes[0].lines if not line.get_label().startswith("_")
    }
    assert list(lines) == ["x", "y", "z"]
    assert lines["x"] == pytest.approx([0.5, 0.6]) and lines["y"][0] == 0.7 and math.isnan(lines["y"][1])


def test_a_panel_a_metric_with_a_scale_of_its_own(tmp_path, figures):
    panels = {"Dice": SCORES, "error": {"a": {"x": 12.0}, "b": {"x": 3.0}}, "none": {}, "more": SCORES}
    assert comparison_figure(panels, tmp_path / "a.png")
    shown = [axes for axes in figures[0].axes if axes.axison]
    assert len(shown) == 4 and shown[1].get_ylim()[1] > 12


@pytest.mark.parametrize(
    "methods",
    [
        ["paper", "unet3d"],
        ["unet3d", "fixed_directions", "paper:sectors=4;directions=8"],
        [f"level {k}" for k in range(13)],
    ],
)
def test_names_of_methods_do_not_overlap(tmp_path, figures, methods):
    scores = {method: {"x": 0.5} for method in methods}
    assert comparison_figure({"Dice": scores, "IU": scores}, tmp_path / "a.png")
    for axes in figures[0].axes:
        boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_nothing_scored_nothing_drawn(tmp_path):
    assert not comparison_figure({"Dice": {"a": {}}}, tmp_path / "a.png")
    assert not comparison_figure({}, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(comparison, "has_matplotlib", False)
    assert not comparison_figure({"Dice": SCORES}, tmp_path / "a.png")
    assert "pip install matplotlib" in caplog.text
