"""Weights come first, and phantom weights on real data are called out."""

import json

import nibabel
import numpy as np
import pytest
import torch

from common.checks import InputError, WeightsError
from common.data.overlap import Contents
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


SPLIT = {"folds": None, "slices": None, "slice_fold": 1, "slice_folds": 3}
OTHER_FOLD = SPLIT | {"slice_fold": 0}


@pytest.mark.parametrize(
    ("split", "came", "remedy"),
    [
        (OTHER_FOLD, r"slice_fold 1 \(now 0\)", "pass --slice_fold 1, or train anew"),
        (SPLIT | {"slices": [7, 5, 21]}, r"slices None \(now \[7,5,21\]\)", "pass --slices None, or"),
        (SPLIT | {"folds": 2, "fold": 0, "seed": 0}, r"folds None \(now 2\)", "pass --folds None, or"),
        (
            {"folds": None, "slices": None, "slice_folds": None},
            r"slice_fold 1 \(now None\), slice_folds 3 \(now None\)",
            "pass --slice_fold 1 --slice_folds 3, or",
        ),
    ],
)
def test_what_was_trained_on_is_not_scored(tmp_path, cube_case, evaluator, threshold, split, came, remedy):
    network = threshold()
    path = trained(tmp_path, network, fingerprint="a", split=SPLIT)
    evaluated = {"fingerprint": "a", "split": split}
    engine = evaluator([cube_case("a")], [WeightsLoader(network, path, evaluated)], network)
    with pytest.raises(InputError, match=f"'model.pt' was trained on this data set with {came}: .*{remedy}"):
        engine.run()
    assert engine.state.iteration == 0


def test_nor_is_what_their_training_started_from(tmp_path, cube_case, evaluator, threshold):
    network = threshold()
    start = {"fingerprint": "a", "split": SPLIT}
    path = trained(tmp_path, network, fingerprint="b", split=SPLIT, started_from={"started_from": start})
    engine = evaluator([cube_case("a")], [WeightsLoader(network, path, {"fingerprint": "a", "split": SPLIT})], network)
    engine.run()
    evaluated = {"fingerprint": "a", "split": OTHER_FOLD}
    engine = evaluator([cube_case("a")], [WeightsLoader(network, path, evaluated)], network)
    text = "'model.pt' started from weights that were trained on this data set with slice_fold 1"
    with pytest.raises(InputError, match=text):
        engine.run()


@pytest.mark.parametrize(
    ("info", "evaluated", "warned"),
    [
        ({"fingerprint": "a", "split": SPLIT}, {"fingerprint": "a", "split": dict(SPLIT)}, False),
        ({"fingerprint": "a", "split": SPLIT}, {"fingerprint": "b", "split": OTHER_FOLD}, False),
        ({"fingerprint": "a", "split": SPLIT}, None, False),
        ({}, {"fingerprint": "a", "split": SPLIT}, False),
        (
            {"fingerprint": "a", "split": {**SPLIT, "cases": [0, 1]}},
            {"fingerprint": "a", "split": {**OTHER_FOLD, "cases": [2]}},
            False,
        ),
        ({"fingerprint": "a"}, {"fingerprint": "a", "split": SPLIT}, True),
    ],
)
def test_the_same_split_and_other_data_are_scored(
    tmp_path, cube_case, evaluator, threshold, caplog, info, evaluated, warned
):
    network = threshold()
    path = trained(tmp_path, network, **info)
    engine = evaluator([cube_case("a")], [WeightsLoader(network, path, evaluated)], network)
    engine.run()
    assert engine.state.iteration == 1
    assert ("does not say how its data were split" in caplog.text) == warned


NUMBERED = {"scans": [], "lits": [26, 27, 30], "collection": None}


@pytest.mark.parametrize(
    ("seen", "scored", "collection", "told"),
    [
        (
            ["a", "b"],
            ["b", "c"],
            None,
            "1 of the 2 scans scored here are among the 2 that these weights were trained on",
        ),
        (["a"], ["c"], None, ""),
        (None, ["a"], "3D-IRCADb-01", ""),
        (NUMBERED, ["c"], "3D-IRCADb-01", "2 of the LiTS cases 27 to 48 were trained on"),
        (NUMBERED, ["c"], None, ""),
    ],
)
def test_scans_that_were_trained_on_are_called_out(
    tmp_path, cube_case, evaluator, threshold, caplog, monkeypatch, seen, scored, collection, told
):
    """By what is in the files: these are of another data set, whose fingerprint says nothing."""
    monkeypatch.setenv("VOLSEG_CACHE", str(tmp_path / "cache"))
    files = {}
    for number, name in enumerate("abc"):
        files[name] = tmp_path / f"{name}.nii"
        values = np.random.default_rng(number).integers(-100, 200, (6, 7, 8)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values[::-1] if name in scored else values, np.eye(4)), files[name])
    contents = Contents([files[name] for name in seen])() if isinstance(seen, list) else seen
    for name in scored:  # another file of the same scan
        files[name] = files[name].rename(tmp_path / f"again_{name}.nii")
    network = threshold()
    path = trained(tmp_path, network, fingerprint="x", split={}, **({"contents": contents} if contents else {}))
    evaluated = {
        "fingerprint": "y",
        "split": {},
        "contents": Contents([files[name] for name in scored], collection),
    }
    engine = evaluator([cube_case("one"), cube_case("two")], [WeightsLoader(network, path, evaluated)], network)
    for _ in range(2):
        caplog.clear()
        engine.run()
        assert (engine.state.warning or "").startswith(told) and bool(engine.state.warning) == bool(told)
        assert not told or caplog.text.count(told) == 1
    if contents is None:
        assert evaluated["contents"]._found is None  # nothing to compare with: nothing is read


def test_the_nearest_data_set_counts(tmp_path):
    inner = tmp_path / "outer" / "inner" / "imagesTr"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "dataset.json").write_text(json.dumps({"phantom": True}))
    (inner.parent / "dataset.json").write_text("not json")
    assert not is_phantom_file(inner / "a.nii.gz")
    assert is_phantom_file(tmp_path / "outer" / "a.nii.gz")
    assert not is_phantom_file(tmp_path / "a.nii.gz")
    assert not is_phantom_file("")
