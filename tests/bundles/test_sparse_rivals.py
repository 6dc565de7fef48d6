"""Rivals of the sparse 3D U-Net that learn nothing, from config to scores: no training, no weights, the same slices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from common.checks import InputError
from common.data.phantoms import phantom_dataset

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "unet3d_sparse" / "configs"
RIVALS = ["interpolation", "random_walker"]
TINY = {"widths": [2, 4], "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(phantom_dataset("kidney", cases=2, size=[32, 28, 24], cache_dir=tmp_path_factory.mktemp("data")))


def parsed(*names: str, **flags: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in names])
    parser.update({**TINY, **flags})
    return parser


@pytest.mark.parametrize("rival", RIVALS)
def test_there_is_nothing_to_train(data, tmp_path, rival, caplog):
    weights = tmp_path / "model.pt"
    flags = {"dataset_dir": data, "output_dir": str(tmp_path), "model_path": str(weights)}
    with caplog.at_level("INFO"):
        parsed("train", rival, **flags).get_parsed_content("run")
    assert not weights.exists() and "left out" in caplog.text


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("flags", [{}, {"slice_folds": None, "held_out": [[], [], [4, 13]], "cases": 0}], ids=str)
def test_held_out_slices_are_scored_without_weights(data, tmp_path, rival, flags):
    flags = {"dataset_dir": data, "output_dir": str(tmp_path), "model_path": str(tmp_path / "none.pt"), **flags}
    parser = parsed("train", "evaluate", rival, **flags)
    label = parser.get_parsed_content("validate::dataset")[0]["label"]
    if "held_out" in flags:
        assert [index for index in range(24) if (label[..., index] != 3).any()] == [4, 13]
    parser.get_parsed_content("run")
    told = json.loads((tmp_path / "metrics.json").read_text())
    scores = {(row["case"], row["class"]): row["iou"] for row in told["cases"]}
    assert len({case for case, _ in scores}) == (1 if "held_out" in flags else 2)
    assert 0.2 < scores["kidney_01", "tubule"] < 1 and 0.5 < scores["kidney_01", "background"] < 1
    assert not (tmp_path / "failures.json").exists()


@pytest.mark.parametrize("rival", RIVALS)
def test_the_answer_is_that_of_the_inferer_on_the_slices_of_training(data, tmp_path, rival):
    flags = {"dataset_dir": data, "output_dir": str(tmp_path)}
    parser = parsed("train", "evaluate", rival, **flags)
    case = parser.get_parsed_content("validate::dataset")[0]
    train = parsed("train", **flags)
    transforms = train.get_parsed_content("train::preprocessing").transforms[:5]
    seen = {key: parser.get_parsed_content("validate::dataset::data")[0][key] for key in ("image", "label")}
    for transform in transforms:
        seen = transform(seen)
    assert torch.equal(case["seeds"], seen["label"]) and torch.equal(case["image"], seen["image"])
    assert not ((case["seeds"] != 3) & (case["label"] != 3)).any()
    evaluator = parser.get_parsed_content("validate::evaluator")
    batch = evaluator.prepare_batch({key: case[key][None] for key in ("image", "label", "seeds")}, "cpu", False)
    inputs, _, extra, named = batch
    assert extra == () and torch.equal(named["seeds"][0], case["seeds"])
    labels = evaluator.inferer(inputs, evaluator.network, **named)
    drawn = case["seeds"] != 3
    assert torch.equal(labels[0][drawn].float(), case["seeds"][drawn].float()) and labels.max() < 3


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("flags", [{"folds": 2, "slice_folds": None}, {"slice_folds": None}], ids=str)
def test_volumes_without_slices_of_their_own_are_refused(data, tmp_path, rival, flags):
    parser = parsed("train", "evaluate", rival, dataset_dir=data, output_dir=str(tmp_path), **flags)
    with pytest.raises((InputError, RuntimeError)) as caught:
        parser.get_parsed_content("run")
    texts, error = [], caught.value
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    assert any("methods that start from slices can not segment volumes without any" in text for text in texts)
