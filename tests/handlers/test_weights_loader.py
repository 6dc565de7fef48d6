"""Weights come first, and phantom weights on real data are called out."""

import json

import pytest
import torch

from common.checks import WeightsError
from common.handlers.weights_loader import PHANTOM_WARNING, WeightsLoader, is_phantom_file
from common.weights import save_weights


def trained(tmp_path, network, **info):
    path = tmp_path / "models" / "model.pt"
    save_weights(network, path, info)
    return path


def test_loads_and_remembers(tmp_path, cube_case, evaluator, threshold):
    path = trained(tmp_path, threshold(0.125), dataset="kidney", phantom=False)
    network = threshold()
    engine = evaluator([cube_case("a")], [WeightsLoader(network, path)], network)
    engine.run()
    assert network.level.item() == 0.125
    assert engine.state.weights["dataset"] == "kidney" and engine.state.warning is None


def test_no_weights_no_run(tmp_path, cube_case, evaluator):
    engine = evaluator([cube_case("a")], [WeightsLoader(torch.nn.Identity(), tmp_path / "none.pt")])
    with pytest.raises(WeightsError, match="no weights at .*none.pt.*train the bundle first, or pass --model_path"):
        engine.run()


@pytest.mark.parametrize(
    "weights, data, loud",
    [(True, None, True), (True, False, True), (True, True, False), (False, None, False), (None, None, False)],
)
def test_phantom_weights_on_real_data(tmp_path, cube_case, evaluator, threshold, caplog, weights, data, loud):
    network = threshold()
    path = trained(tmp_path, network, **({} if weights is None else {"phantom": weights}))
    cases = [cube_case("data/imagesTr/a", phantom=data), cube_case("data/imagesTr/b")]
    engine = evaluator(cases, [WeightsLoader(network, path)], network)
    engine.run()
    assert engine.state.warning == (PHANTOM_WARNING if loud else None)
    assert caplog.text.count(PHANTOM_WARNING) == int(loud)


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({"grid": [2, 2, 2], "dilation": 3}, {"grid": (2, 2, 1), "dilation": 3}, "grid [2, 2, 2] (now [2, 2, 1])"),
        ({"grid": [2, 2, 2], "spacing": None}, {"grid": (2, 2, 2), "spacing": None}, ""),
        ({"spacing": None}, {"spacing": [1.5, 1.5, 1.5]}, "spacing null (now [1.5, 1.5, 1.5])"),
        ({"dilation": 3}, None, ""),
        (None, {"dilation": 3}, ""),
    ],
)
def test_other_settings_than_those_of_the_training_are_called_out(
    tmp_path, cube_case, evaluator, threshold, caplog, then, now, told
):
    network = threshold()
    path = trained(tmp_path, network, phantom=True, **({} if then is None else {"settings": then}))
    cases = [cube_case("data/imagesTr/a"), cube_case("data/imagesTr/b")]
    engine = evaluator(cases, [WeightsLoader(network, path, settings=now)], network)
    engine.run()
    said = f"these weights were trained with {told}. " * bool(told)
    assert engine.state.warning == said + PHANTOM_WARNING
    assert caplog.text.count("trained with") == bool(told) and caplog.text.count(PHANTOM_WARNING) == 1


def test_the_nearest_data_set_counts(tmp_path):
    inner = tmp_path / "outer" / "inner" / "imagesTr"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "dataset.json").write_text(json.dumps({"phantom": True}))
    (inner.parent / "dataset.json").write_text("not json")
    assert not is_phantom_file(inner / "a.nii.gz")
    assert is_phantom_file(tmp_path / "outer" / "a.nii.gz")
    assert not is_phantom_file(tmp_path / "a.nii.gz")
    assert not is_phantom_file("")
