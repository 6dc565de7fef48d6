"""Digests of weights and settings: equal for equal things, in whatever object or process, and different for others."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, Orientationd, ScaleIntensityRanged, Spacingd
from torch import nn

from common.engines.signature import settings_digest, settings_of, state_digest
from common.inferers import VotingInferer

STATE = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(3),
    "c": torch.zeros(0),
    "d": torch.ones(2, dtype=torch.bfloat16),
}


class Kind(Enum):
    ONE = "one"


class Localiser:
    """It keeps its arguments, and further what calls have found."""

    def __init__(self, dilation, tiles=None):
        self.dilation, self.tiles = dilation, tiles
        self.report = {"seconds": np.random.rand()}
        self._cache = object()


class Turned:
    """It keeps its argument in another form."""

    def __init__(self, degrees):
        self.radians = degrees / 100
        self._calls = np.random.rand()


class Bare:
    """It has no argument."""

    size = 3

    def __init__(self):
        self.level = 1


def preprocessing(pixdim=1.0, axcodes="RAS"):
    return Compose(
        [
            LoadImaged(keys=["image", "label"], ensure_channel_first=True),
            Orientationd(keys="image", axcodes=axcodes, labels=None),
            Spacingd(keys="image", pixdim=(pixdim,) * 3),
            ScaleIntensityRanged(keys="image", a_min=-500, a_max=500, b_min=0, b_max=1, clip=True),
        ]
    )


class TestWeights:
    def test_equal_states_have_one_digest(self):
        turned = {name: value.clone() for name, value in reversed(STATE.items())}
        turned["a"] = STATE["a"].t().contiguous().t()
        assert state_digest(STATE) == state_digest(turned)

    @pytest.mark.parametrize(
        "change",
        [
            {"a": STATE["a"] + 1e-6},
            {"a": STATE["a"].reshape(3, 2)},
            {"a": STATE["a"].double()},
            {"b": torch.tensor(4)},
            {"c": torch.zeros(0, 1)},
            {"d": torch.ones(2, dtype=torch.float16)},
            {"e": torch.zeros(0)},
        ],
    )
    def test_any_change_shows(self, change):
        assert state_digest(STATE) != state_digest({**STATE, **change})

    def test_names_count(self):
        assert state_digest({"a": STATE["a"]}) != state_digest({"b": STATE["a"]})

    def test_networks(self):
        torch.manual_seed(0)
        network, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        assert state_digest(network.state_dict()) == state_digest(other.state_dict())
        other(torch.randn(4, 3))
        assert state_digest(network.state_dict()) != state_digest(other.state_dict())


class TestSettings:
    def test_plain_values(self):
        value = {
            "numbers": (1, 2.5, True, None),
            "array": np.float32(0.5),
            "kind": Kind.ONE,
            "type": Kind,
            "function": len,
            "set": {"b", "a"},
            "device": torch.device("cpu"),
            "path": Path("x"),
        }
        assert settings_of(value) == {
            "numbers": [1, 2.5, True, None],
            "array": 0.5,
            "kind": "one",
            "type": "Kind",
            "function": "len",
            "set": ["a", "b"],
            "device": "cpu",
            "path": "x",
        }

    def test_arguments_where_they_are_kept(self):
        assert settings_of(Localiser(3)) == {"class": "Localiser", "dilation": 3, "tiles": None}
        assert settings_of(Localiser(3)) != settings_of(Localiser(4))

    def test_public_attributes_where_they_are_not(self):
        assert settings_of(Turned(5)) == {"class": "Turned", "radians": 0.05}
        assert settings_of(Bare()) == {"class": "Bare", "level": 1}
        assert settings_of(np.random.RandomState(0)) == {"class": "RandomState"}

    def test_an_inferer_that_has_run_has_the_settings_that_it_had(self):
        inferer = VotingInferer(4, overlap=0.25)
        before = settings_of(inferer)
        inferer(torch.rand(1, 1, 9, 8, 7), lambda x: torch.cat([x, 1 - x], dim=1))
        assert settings_of(inferer) == before and before["overlap"] == 0.25

    def test_nested_inferers(self):
        first, second = (Localiser(3, VotingInferer(64, overlap=share)) for share in (0.0, 0.25))
        assert settings_of(first)["tiles"]["class"] == "VotingInferer"
        assert settings_of(first) != settings_of(second)
        assert settings_of(first) == settings_of(Localiser(3, VotingInferer(64, overlap=0.0)))

    def test_arrays(self):
        assert settings_of(np.eye(3)) == settings_of(torch.eye(3, dtype=torch.float64)) != settings_of(2 * np.eye(3))

    def test_transforms_of_monai(self):
        digest = settings_digest(settings_of(preprocessing()))
        assert digest == settings_digest(settings_of(preprocessing()))
        for other in (preprocessing(pixdim=2.0), preprocessing(axcodes="LPS"), Compose([])):
            assert settings_digest(settings_of(other)) != digest

    def test_no_address_and_no_order_of_a_process_gets_in(self):
        line = (
            "import sys, json; sys.path[:0] = sys.argv[1:]; import test_signature as t; "
            "print(json.dumps(t.settings_of([t.preprocessing(), t.Localiser(3, {'b', 'a', 'c'})])))"
        )
        here = Path(__file__).resolve()
        done = subprocess.run(
            [sys.executable, "-c", line, str(here.parent), str(here.parents[2])],
            capture_output=True,
            text=True,
            check=True,
        )
        expected = settings_of([preprocessing(), Localiser(3, {"b", "a", "c"})])
        assert json.loads(done.stdout) == json.loads(json.dumps(expected))
