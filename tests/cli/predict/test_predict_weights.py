"""Weights that ``volseg predict`` refuses before it stages anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from predicted import Line, study, volume

from common.checks import WeightsError
from common.cli.commands import main
from common.cli.predict import command
from common.cli.predict.weights import check_weights
from common.weights import save_weights

NAME = "random25d_mra"
_LINEAR = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": "@width"}


@pytest.fixture
def line(repository, monkeypatch) -> Line:
    monkeypatch.chdir(repository)
    made = Line()
    monkeypatch.setattr(command, "launch", made)
    return made


def _weights(path: Path, network: torch.nn.Module) -> Path:
    save_weights(network, path, {"recipe": "other"})
    return path


def _config(**more: object) -> ConfigParser:
    return ConfigParser({"width": 2, "network_def": _LINEAR, "loader": {"path": "@model_path"}, **more})


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["--model_path", "nowhere.pt"],
            "WeightsError: there are no weights at 'nowhere.pt': a network without trained weights predicts noise. "
            "To mend it, train the bundle first, or pass --model_path FILE.",
        ),
        (["--bundle_root", "nowhere"], "there are no weights at 'nowhere/models/model.pt'"),
        (["--model_path", "OTHER"], "are of another network .*; they were trained with the recipe 'other'"),
        (["--model_path", "OTHER", "--workers", "2", "--device", "cpu"], "are of another network"),
        (["--model_path", "NONE"], "can not be read as weights"),
    ],
)
def test_refused_before_a_series_is_staged(line, tmp_path, monkeypatch, capsys, words, text):
    pytest.importorskip("distributed")
    monkeypatch.setattr("common.cli.predict.stage.stage_series", lambda *_: pytest.fail("staged in vain"))
    places = {"OTHER": _weights(tmp_path / "other.pt", torch.nn.Linear(2, 3)), "NONE": tmp_path / "none.pt"}
    places["NONE"].write_bytes(b"no checkpoint")
    words = [str(places.get(word, word)) for word in words]
    assert main(["predict", NAME, str(study(tmp_path / "ct")), "--out", str(tmp_path / "seg"), *words]) == 2
    assert re.search(text, capsys.readouterr().err)
    assert line.commands == [] and not (tmp_path / "seg").exists()


def test_weights_of_the_network_as_it_is_overridden(line, repository, tmp_path, capsys):
    parser = ConfigParser()
    parser.read_config(repository / "bundles" / NAME / "configs" / "inference.json")
    parser["network_def::widths"] = [4, 8, 16, 16, 16]
    model = _weights(tmp_path / "model.pt", parser.get_parsed_content("network_def"))
    words = ["predict", NAME, str(volume(tmp_path / "a.nii.gz")), "--model_path", str(model)]
    words += ["--out", str(tmp_path / "seg")]
    assert main(words) == 2 and line.commands == []
    assert "of another shape" in capsys.readouterr().err
    for number, name in enumerate(("widths", "network_def::widths"), 1):
        assert main([*words, f"--{name}", "[4,8,16,16,16]"]) == 0 and len(line.commands) == number


@pytest.mark.parametrize("form", ["new", "old"])
def test_weights_that_fit(tmp_path, form):
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "model.pt", _use_new_zipfile_serialization=form == "new")
    check_weights(_config(), tmp_path / "model.pt")
    torch.save({**state, "more": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="1 foreign, such as more"):
        check_weights(_config(), tmp_path / "model.pt")


@pytest.mark.parametrize(
    "more",
    [
        {"loader": {"path": "elsewhere"}},
        {"loader": {"path": "@model_path", "_disabled_": "true"}},
        {"loader": [{"path": "@model_path", "_disabled_": True}]},
    ],
)
def test_where_nothing_reads_weights_none_are_asked_for(tmp_path, more):
    check_weights(_config(**more), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="there are no weights at"):
        check_weights(_config(), tmp_path / "model.pt")


@pytest.mark.parametrize("network", [{"_target_": "nowhere.Network"}, None, "$1 / 0"])
def test_a_network_that_can_not_be_built_here_is_left_to_the_line(tmp_path, network):
    (tmp_path / "model.pt").write_bytes(b"weights")
    check_weights(_config(network_def=network), tmp_path / "model.pt")
