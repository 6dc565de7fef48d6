from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from common.visualize import annotation_curves as module
from common.visualize.annotation_curves import annotation_curves

CURVES = {"gain": [[(3, 0.5), (6, 0.7)], [(3, 0.4), (6, 0.8)]], "random": [[(3, 0.5), (6, 0.6)], [(3, 0.4)]]}


@pytest.fixture
def panels(monkeypatch) -> list:
    """The panels of what is drawn."""
    kept, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: kept.extend(self.axes) or save(self, *args, **kw))
    return kept


def test_means_and_their_spread_are_drawn_as_far_as_all_repeats_go(tmp_path, panels):
    assert annotation_curves(CURVES, tmp_path / "curves.png", "a title")
    (panel,) = panels
    thick = [bars.lines[0] for bars in panel.containers]
    np.testing.assert_allclose(thick[0].get_ydata(), [0.45, 0.75])
    np.testing.assert_allclose(thick[1].get_ydata(), [0.45])
    half = [segment[1, 1] - segment[0, 1] for segment in panel.containers[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(half, [2 * np.std([0.5, 0.4], ddof=1), 2 * np.std([0.7, 0.8], ddof=1)])
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        "gain, mean of 2 ± std",
        "random, mean of 2 ± std",
    ]
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 300


def test_one_repeat_has_no_spread_and_nothing_no_picture(tmp_path, panels):
    assert annotation_curves({"even": [[(3, 0.5), (6, 0.6)]]}, tmp_path / "curves.png")
    assert panels[0].get_legend().get_texts()[0].get_text() == "even"
    assert not annotation_curves({"even": [[]], "gain": []}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_without_matplotlib_there_are_no_curves_but_a_word(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(module, "has_matplotlib", False)
    assert not annotation_curves(CURVES, tmp_path / "curves.png") and "pip install matplotlib" in caplog.text
