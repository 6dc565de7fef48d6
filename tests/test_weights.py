"""Weights, their sidecar, and what is said when they do not fit."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from common.checks import WeightsError
from common.weights import info_path, load_weights, read_info, save_weights


def network(width: int = 3) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv3d(1, width, 3), torch.nn.BatchNorm3d(width))


def test_round_trip_with_sidecar(tmp_path):
    first, second = network(), network()
    save_weights(first, tmp_path / "model.pt", {"dataset": "phantom kidney", "phantom": True})
    info = load_weights(second, tmp_path / "model.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert info["phantom"] is True and info["dataset"] == "phantom kidney"
    assert {"versions", "made", "sha256"} <= info.keys()


def test_the_file_is_a_plain_state_dict_for_strict_consumers(tmp_path):
    save_weights(network(), tmp_path / "model.pt", {})
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert network().load_state_dict(state, strict=True)


def test_no_weights(tmp_path):
    with pytest.raises(WeightsError, match="no weights at '.*model.pt'.*train the bundle first"):
        load_weights(network(), tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04cut short"])
def test_unreadable_weights(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="model.pt' can not be read as weights"):
        load_weights(network(), tmp_path / "model.pt")


class Evil:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    torch.save({"weight": Evil()}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="can not be read as weights"):
        load_weights(network(), tmp_path / "model.pt")


def test_weights_of_another_network_say_what_differs_and_how_they_were_trained(tmp_path):
    save_weights(network(5), tmp_path / "model.pt", {"recipe": "small"})
    with pytest.raises(
        WeightsError, match=r"another network \(.* of another shape, such as 0.weight \(5, .*recipe 'small'"
    ):
        load_weights(network(3), tmp_path / "model.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"missing, such as 0.weight; 1 foreign, such as a"):
        load_weights(network(), tmp_path / "other.pt")


def test_a_resume_checkpoint_is_not_taken_for_weights(tmp_path):
    torch.save({"network": network().state_dict(), "epoch": 3}, tmp_path / "resume_model.pt")
    with pytest.raises(WeightsError, match="holds no plain state dict.*not a resume checkpoint"):
        load_weights(network(), tmp_path / "resume_model.pt")


def test_a_sidecar_of_other_weights_is_not_believed(tmp_path, caplog):
    save_weights(network(), tmp_path / "model.pt", {"phantom": False})
    torch.save(network().state_dict(), tmp_path / "model.pt")
    with caplog.at_level(logging.WARNING):
        assert read_info(tmp_path / "model.pt") == {}
    assert "describes other weights" in caplog.text
    info_path(tmp_path / "model.pt").unlink()
    with caplog.at_level(logging.WARNING):
        assert load_weights(network(), tmp_path / "model.pt") == {}
    assert "has no sidecar model.json" in caplog.text


def test_the_sidecar_lies_beside(tmp_path):
    save_weights(network(), tmp_path / "model.pt", {})
    assert json.loads((tmp_path / "model.json").read_text())["sha256"]
