"""The 2D rival of `unet3d_sparse` under each recipe that it is laid over, in miniature: trained, scored, predicting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser

from common.data.phantoms import phantom_dataset
from common.networks import PlanarUNet

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "unet3d_sparse" / "configs"
SHORT = {"device": "cpu", "widths": [2, 4], "epochs": 1, "iterations_per_epoch": 2, "val_interval": 1}
RECIPES = {
    "paper": (["slice2d"], {"patch_size": [28, 24, 7]}),
    "paper without norm": (["slice2d"], {"patch_size": [28, 24, 7], "norm": None}),
    "small": (["small", "slice2d"], {"patch_size": [16, 12, 5]}),
    "densify": (["densify", "slice2d"], {"patch_size": [16, 12, 1], "held_out": [[10], [9], [8]]}),
    "laid below": (["slice2d", "densify"], {"patch_size": [16, 12, 5], "held_out": [[10], [9], [8]]}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(phantom_dataset("kidney", cases=1, size=[30, 28, 24], cache_dir=tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize(("overlays", "flags"), RECIPES.values(), ids=RECIPES.keys())
def test_trained_scored_and_predicting(data, tmp_path, overlays, flags):
    def parsed(*files: str, **more: Any) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / f"{name}.json") for name in files])
        places = {"dataset_dir": data, "output_dir": str(tmp_path), "model_path": str(tmp_path / "model.pt")}
        parser.update({**SHORT, **flags, **places, **more})
        return parser

    training = parsed("train", *overlays)
    training.get_parsed_content("initialize")
    network = training.get_parsed_content("network_def")
    assert isinstance(network, PlanarUNet) and network.stride == (2, 2, 1)
    training.get_parsed_content("run")
    assert json.loads((tmp_path / "training.json").read_text())

    parsed("train", *overlays, "evaluate").get_parsed_content("run")
    summary = json.loads((tmp_path / "metrics.json").read_text())["summary"]
    assert set(summary) == {"inside", "tubule", "background", "all classes"}

    inference = parsed("inference", *overlays, output_dir=str(tmp_path / "out"))
    inference.get_parsed_content("run")
    source = nibabel.load(next(Path(data, "imagesTr").iterdir()))
    result = nibabel.load(next((tmp_path / "out").glob("*_seg.nii.gz")))
    assert result.shape == source.shape[:3]
    np.testing.assert_allclose(result.affine, source.affine)
    assert set(np.unique(result.dataobj)) <= {0, 1, 2}
