"""How long a training and a prediction will take."""

from __future__ import annotations

import pytest
import torch

from common.cli.densify import pace as pace_module
from common.cli.densify.pace import Pace, minutes_text, pace_of, tiles_of
from common.cli.densify.steps import Line
from common.inferers import VotingInferer

SMALL = {"in_channels": 1, "num_classes": 2, "widths": "[2,4]", "patch_size": "[16,16,16]", "batch_size": "2"}


@pytest.mark.parametrize("size", [(64, 64, 64), (65, 64, 30), (100, 100, 100), (20, 200, 90)])
@pytest.mark.parametrize(("patch", "overlap"), [((64, 64, 64), 0.5), ((32, 64, 24), 0.25), ((48, 48, 48), 0.0)])
def test_about_as_many_tiles_as_there_are(size, patch, overlap):
    inferer = VotingInferer(patch, overlap=overlap, align=8)
    inferer(torch.zeros(1, 1, *size), lambda window: window.expand(-1, 2, -1, -1, -1))
    assert 0.6 * inferer.windows <= tiles_of(size, patch, overlap) <= 1.7 * inferer.windows


def test_a_network_is_tried(repository):
    pace = pace_of(Line(repository / "bundles" / "unet3d_sparse", ("train", "densify"), SMALL))
    assert 0 < pace.tile < 5 and 0 < pace.step < 20


def test_what_can_not_be_tried_has_no_pace(repository):
    settings = {**SMALL, "patch_size": "[2,2,2]"}  # one voxel in its lowest level can not be normalised
    assert pace_of(Line(repository / "bundles" / "unet3d_sparse", ("train", "densify"), settings)) is None


def test_the_first_try_does_not_count(monkeypatch):
    now, spent = [0.0], iter([9.0, 3.0])
    monkeypatch.setattr(pace_module.time, "perf_counter", lambda: now[0])

    def work():
        now[0] += next(spent)

    assert pace_module._seconds(work, torch.device("cpu")) == 3.0


def test_steps_and_validations_add_up():
    pace = Pace(step=2.0, tile=0.5)
    without = pace.training(100)
    assert pace.training(200) - without == pytest.approx(without - pace.training(0))
    assert pace.training(100, validations=3, tiles=8) - without == pytest.approx(12.0)
    assert pace.prediction(20) - pace.prediction(0) == pytest.approx(10.0)


def test_durations_in_words():
    assert [minutes_text(s) for s in (0.4, 89, 91, 5399, 5401)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h"]
