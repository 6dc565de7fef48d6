"""What weights were trained on is not scored as if they had never seen it."""

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.fl.client.monai_algo import disable_ckpt_loaders

from common.checks import InputError
from common.data.overlap import Contents
from common.handlers.scored_checkpoint import ScoredCheckpointLoader
from common.weights import save_weights


def trained(tmp_path, network, **info):
    path = tmp_path / "models" / "model.pt"
    save_weights(network, path, info)
    return path


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
    engine = evaluator([cube_case("a")], [ScoredCheckpointLoader(network, path, evaluated)], network)
    with pytest.raises(InputError, match=f"'model.pt' was trained on this data set with {came}: .*{remedy}"):
        engine.run()
    assert engine.state.iteration == 0


def test_nor_is_what_their_training_started_from(tmp_path, cube_case, evaluator, threshold):
    network = threshold()
    start = {"fingerprint": "a", "split": SPLIT}
    path = trained(tmp_path, network, fingerprint="b", split=SPLIT, started_from={"started_from": start})
    engine = evaluator(
        [cube_case("a")], [ScoredCheckpointLoader(network, path, {"fingerprint": "a", "split": SPLIT})], network
    )
    engine.run()
    evaluated = {"fingerprint": "a", "split": OTHER_FOLD}
    engine = evaluator([cube_case("a")], [ScoredCheckpointLoader(network, path, evaluated)], network)
    text = "'model.pt' started from weights that were trained on this data set with slice_fold 1"
    with pytest.raises(InputError, match=text):
        engine.run()


@pytest.mark.parametrize(
    ("info", "evaluated", "warned"),
    [
        ({"fingerprint": "a", "split": SPLIT}, {"fingerprint": "a", "split": dict(SPLIT)}, False),
        ({"fingerprint": "a", "split": SPLIT}, {"fingerprint": "b", "split": OTHER_FOLD}, False),
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
    engine = evaluator([cube_case("a")], [ScoredCheckpointLoader(network, path, evaluated)], network)
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
    engine = evaluator(
        [cube_case("one"), cube_case("two")], [ScoredCheckpointLoader(network, path, evaluated)], network
    )
    for _ in range(2):
        caplog.clear()
        engine.run()
        assert (engine.state.warning or "").startswith(told) and bool(engine.state.warning) == bool(told)
        assert not told or caplog.text.count(told) == 1
    if contents is None:
        assert evaluated["contents"]._found is None  # nothing to compare with: nothing is read


def test_federated_learning_knows_it_by_its_name():
    handlers = [{"_target_": f"common.handlers.{ScoredCheckpointLoader.__name__}"}, {"_target_": "StatsHandler"}]
    parser = ConfigParser({"validate": {"handlers": handlers}})
    disable_ckpt_loaders(parser)
    assert [handler.get("_disabled_") for handler in parser["validate#handlers"]] == [True, None]
