"""Weights of several runs joined into those of an ensemble: what goes where, what is remembered, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from common.checks import InputError, WeightsError
from common.handlers.scored_checkpoint import _check_split
from common.networks import LiverTumourRAUNet
from common.weights import info_path, join_members, load_weights, read_info, save_weights


class Staged(nn.Module):
    """A network with a part that all members share and one that each has of its own."""

    def __init__(self, members: int = 1, width: int = 2) -> None:
        super().__init__()
        self.members = members
        self.shared = nn.Linear(1, 2)

        def own() -> nn.Module:
            return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))

        self.own = own() if members == 1 else nn.ModuleList(own() for _ in range(members))


SPLIT = {"fold": 0, "folds": 2, "seed": 0}
TOLD = {
    "name": "a set",
    "licence": "CC0",
    "reference": "none",
    "phantom": False,
    "cases": 8,
    "fingerprint": "abc",
    "recipe": "paper",
    "settings": {"window": [-100.0, 200.0]},
    "stages": {"localiser": {}, "liver": {}},
    "run": "token",
}


def runs(folder, *changes, network=Staged):
    """Weights of one run a change, each with numbers of its own."""
    paths = []
    for fold, change in enumerate(changes):
        torch.manual_seed(fold)
        paths.append(folder / f"fold_{fold}" / "model.pt")
        info = {**TOLD, "split": {**SPLIT, "fold": fold}, **change}
        save_weights(network(), paths[-1], {name: value for name, value in info.items() if value is not None})
    return paths


class TestJoined:
    def test_what_goes_where(self, tmp_path):
        paths, network = runs(tmp_path, {}, {}, {}), Staged(3)
        join_members(network, [str(path) for path in paths], tmp_path / "models" / "model.pt")
        joined = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
        states = [torch.load(path, weights_only=True) for path in paths]
        assert joined.keys() == Staged(3).state_dict().keys()
        for index, state in enumerate(states):
            for name in (name for name in state if name.startswith("own.")):
                assert torch.equal(joined[name.replace("own.", f"own.{index}.")], state[name])
        for name in ("shared.weight", "shared.bias"):
            assert torch.equal(joined[name], states[0][name]) and not torch.equal(joined[name], states[1][name])
        assert all(torch.equal(value, joined[name]) for name, value in network.state_dict().items())

    def test_the_ensemble_is_the_mean_of_the_runs(self, tmp_path):
        tiny = {"localiser_width": 1, "width": 1}
        paths = runs(tmp_path, {}, {}, network=lambda: LiverTumourRAUNet(**tiny))
        join_members(LiverTumourRAUNet(**tiny, members=2), paths, tmp_path / "model.pt")
        ensemble, single, x = (
            LiverTumourRAUNet(**tiny, members=2),
            LiverTumourRAUNet(**tiny),
            torch.randn(1, 1, 32, 32, 32),
        )
        load_weights(ensemble, tmp_path / "model.pt")
        with torch.no_grad():
            for stage in ("liver", "tumour"):
                for path, member in zip(paths, getattr(ensemble.eval(), stage), strict=True):
                    load_weights(single, path)
                    assert torch.equal(member(x), single.eval().child(stage)(x))

    def test_what_is_remembered(self, tmp_path):
        contents = [
            {"scans": ["b", "a"], "lits": [3], "collection": None},
            {"scans": ["c", "b"], "lits": [28, 3], "collection": None},
        ]
        paths = runs(tmp_path, *({"contents": each} for each in contents))
        join_members(Staged(2), paths, tmp_path / "model.pt")
        info = read_info(tmp_path / "model.pt")
        kept = ("name", "licence", "reference", "phantom", "cases", "fingerprint", "recipe", "settings")
        assert all(info[name] == TOLD[name] for name in kept)
        assert info["split"] == {"joined": [{**SPLIT, "fold": fold} for fold in (0, 1)]}
        assert info["members"] == [read_info(path)["sha256"] for path in paths]
        assert info["contents"] == {"scans": ["a", "b", "c"], "lits": [3, 28], "collection": None}
        assert "run" not in info and "stages" not in info  # it can not be trained on, nor taken for one of the runs

    @pytest.mark.parametrize("split", [SPLIT, {**SPLIT, "fold": 1}, {"folds": None}, {}])
    def test_it_is_scored_on_no_split_of_its_data_set(self, tmp_path, split):
        join_members(Staged(2), runs(tmp_path, {}, {}), tmp_path / "model.pt")
        info = read_info(tmp_path / "model.pt")
        text = "'model.pt' joins 2 runs on this data set: .* trained on every.*another data set"
        with pytest.raises(InputError, match=text):
            _check_split(info, {"fingerprint": "abc", "split": split}, "model.pt")
        _check_split(info, {"fingerprint": "another", "split": split}, "model.pt")

    def test_earlier_weights_are_set_aside(self, tmp_path):
        save_weights(Staged(2), tmp_path / "model.pt", {"recipe": "earlier"})
        join_members(Staged(2), runs(tmp_path, {}, {}), tmp_path / "model.pt")
        assert read_info(tmp_path / "model_previous.pt")["recipe"] == "earlier"
        assert "members" in read_info(tmp_path / "model.pt")


class TestRefused:
    @pytest.mark.parametrize(("members", "count"), [(2, 3), (2, 1), (1, 1), (1, 0)])
    def test_another_number(self, tmp_path, members, count):
        text = f"there are {count} weights for a network of {members} members.*same number, such as --members 5"
        with pytest.raises(WeightsError, match=text):
            join_members(Staged(members), runs(tmp_path, *[{}] * count), tmp_path / "model.pt")
        assert not (tmp_path / "model.pt").exists()

    def test_one_path_is_not_taken_for_letters(self, tmp_path):
        with pytest.raises(WeightsError, match="there are 1 weights"):
            join_members(Staged(2), str(runs(tmp_path, {})[0]), tmp_path / "model.pt")

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"settings": {"window": [-200.0, 250.0]}}, r"differently, with window \[-100.0, 200.0\] \(now \[-200.0"),
            ({"recipe": "modern"}, r"recipe 'paper' \(now 'modern'\).*with the same config"),
            ({"fingerprint": "xyz"}, r"data set 'abc' \(now 'xyz'\)"),
            ({"stages": {"localiser": {}}}, r"stages localiser, liver \(now localiser\).*to its end"),
            ({"fingerprint": None}, "nothing tells what '.*fold_1.*' was trained on: .*put its sidecar model.json"),
        ],
    )
    def test_runs_that_differ(self, tmp_path, change, text):
        with pytest.raises(WeightsError, match=text):
            join_members(Staged(2), runs(tmp_path, {}, change), tmp_path / "model.pt")
        assert not (tmp_path / "model.pt").exists()

    def test_a_run_without_its_sidecar(self, tmp_path):
        paths = runs(tmp_path, {}, {})
        info_path(paths[0]).unlink()
        with pytest.raises(WeightsError, match="nothing tells what '.*fold_0"):
            join_members(Staged(2), paths, tmp_path / "model.pt")

    def test_weights_that_load_nowhere(self, tmp_path):
        paths = runs(tmp_path, {}, {})
        with pytest.raises(WeightsError, match="there are no weights at '.*missing.pt'"):
            join_members(Staged(2), [paths[0], tmp_path / "missing.pt"], tmp_path / "model.pt")
        paths[1].write_bytes(b"cut short")
        with pytest.raises(WeightsError, match="can not be read as weights"):
            join_members(Staged(2), paths, tmp_path / "model.pt")

    def test_another_network(self, tmp_path):
        paths = runs(tmp_path, {}, {}, network=lambda: Staged(width=3))
        with pytest.raises(WeightsError, match=r"another network \(.* of another shape, such as own.0.weight \(3, 2\)"):
            join_members(Staged(2), paths, tmp_path / "model.pt")

    def test_an_ensemble_is_no_member(self, tmp_path):
        paths = runs(tmp_path, {}, {}, network=lambda: Staged(2))
        with pytest.raises(WeightsError, match="missing, such as own.0.weight; .* foreign, such as own.0.0.weight"):
            join_members(Staged(2), paths, tmp_path / "model.pt")

    def test_one_run_twice(self, tmp_path):
        paths = runs(tmp_path, {}, {})
        with pytest.raises(WeightsError, match="fold_0.* and .*fold_0.* are the same weights.*each fold once"):
            join_members(Staged(2), [paths[0], paths[0]], tmp_path / "model.pt")
        assert json.loads(info_path(paths[0]).read_text())["split"]["fold"] == 0
