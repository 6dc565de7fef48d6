"""What is held out, from the flags of a training to the sidecar of its weights and to the evaluation that follows."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImage

from common.checks import InputError
from common.data.decathlon import _SESSION
from common.data.phantoms import phantom_dataset
from common.weights import read_info, save_weights

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "unet3d_sparse" / "configs"
TINY = {"widths": [2, 4], "padded": True, "patch_size": [16, 16, 16], "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(phantom_dataset("kidney", cases=3, size=[32, 28, 24], cache_dir=tmp_path_factory.mktemp("data")))


def parsed(*names: str, **flags: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in names])
    parser.update({**TINY, **flags})
    return parser


def weights(data: str, path: Path, **flags: Any) -> str:
    """Weights with the sidecar that a training with these flags leaves."""
    parser = parsed("train", dataset_dir=data, output_dir=str(path.parent), model_path=str(path), **flags)
    save_weights(
        parser.get_parsed_content("network_def"), path, parser.get_parsed_content("train::trainer::provenance")
    )
    return str(path)


def test_the_sidecar_has_the_whole_split(data, tmp_path):
    path = weights(data, tmp_path / "model.pt", folds="3", fold=1, seed=4, slices="[2,2,2]", slice_folds="null")
    split = {"folds": 3, "fold": 1, "seed": 4, "slices": [2, 2, 2], "slice_folds": None}
    split |= {"cases": None, "held_out": None}
    assert read_info(path)["split"] == split


FLAGS = [
    ({"slice_fold": 1}, "slice_fold"),
    ({"slice_folds": 2}, "slice_folds"),
    ({"slices": [2, 2, 3]}, "slices"),
    ({"folds": 3, "fold": 2}, "fold"),
    ({"folds": 3, "slice_folds": None}, "slice_folds"),
    ({"folds": 3, "slice_folds": None}, "folds"),
    ({"folds": 2, "seed": 5}, "seed"),
]


@pytest.mark.parametrize(("flags", "forgotten"), FLAGS, ids=str)
def test_another_split_of_the_same_data_is_refused(data, tmp_path, flags, forgotten):
    path = weights(data, tmp_path / "model.pt", **flags)
    flags = {key: value for key, value in flags.items() if key != forgotten}
    parser = parsed("train", "evaluate", dataset_dir=data, output_dir=str(tmp_path), model_path=path, **flags)
    with pytest.raises(InputError, match=f"was trained on this data set with .*{forgotten} .*now.*--{forgotten} "):
        parser.get_parsed_content("validate::evaluator").run()
    assert not (tmp_path / "metrics.json").exists()


def test_the_same_split_and_another_data_set_are_scored(data, tmp_path):
    path = weights(data, tmp_path / "model.pt", slice_fold=1)
    other = str(phantom_dataset("kidney", cases=1, size=[32, 24, 24], cache_dir=tmp_path / "data"))
    for folder, flags in ((data, {"slice_fold": "1", "seed": 9}), (other, {})):
        out = tmp_path / Path(folder).name
        values = {"dataset_dir": folder, "output_dir": str(out), "model_path": path, **flags}
        parsed("train", "evaluate", **values).get_parsed_content("run")
        assert (out / "metrics.json").is_file()


def test_held_out_volumes_show_every_label(data):
    parser = parsed("train", dataset_dir=data, folds=3, slices=[1, 1, 2], slice_folds=None)
    (case,) = parser.get_parsed_content("validate::dataset::data")
    shown = parser.get_parsed_content("validate::preprocessing")(case)["label"]
    assert torch.equal(shown, LoadImage(ensure_channel_first=True)(case["label"]))


def test_the_page_lists_every_ending_that_joins_the_volumes_of_a_patient():
    text = (CONFIGS.parent / "docs" / "README.md").read_text(encoding="utf-8")
    endings = re.search(r"\(\?:([a-z|]+)\)", _SESSION.pattern).group(1).split("|")
    assert len(endings) > 5 and [ending for ending in endings if f"`{ending}`" not in text] == []


@pytest.mark.parametrize("bundle", sorted(path.name for path in CONFIGS.parents[1].iterdir() if path.is_dir()))
@pytest.mark.parametrize("overlays", [(), ("small",)])
def test_the_default_phantom_has_a_case_for_every_fold(bundle, overlays):
    """Without data of one's own, and without a flag, a bundle trains."""
    files = [CONFIGS.parents[1] / bundle / "configs" / f"{name}.json" for name in ("train", *overlays)]
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    cases = parser["dataset_dir"].get("cases", inspect.signature(phantom_dataset).parameters["cases"].default)
    assert cases >= (parser["folds"] or 1)
