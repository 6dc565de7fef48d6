"""The first bundle on recorded volumes: it learns, beats a trivial answer, and answers on the volume's own grid."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from common.data import convert_hdf5

# narrow enough for half a minute on one core
SETTINGS = {
    "in_channels": 1,
    "num_classes": 2,
    "class_names": ["background", "nucleus"],
    "class_weights": [1.0, 2.0],
    "widths": [4, 8, 16],
    "patch_size": [32, 32, 32],
    "tile_overlap": 0.0,
}


def run(repository: Path, configs: list[str], **settings) -> None:
    folder = repository / "bundles" / "unet3d_sparse" / "configs"
    workflow = ConfigWorkflow(
        config_file=[str(folder / f"{name}.json") for name in configs],
        logging_file=False,
        workflow_type=None,
        **settings,
    )
    workflow.initialize()
    workflow.run()


@pytest.mark.slow
def test_nuclei_from_every_fifth_slice(repository, real_data, tmp_path):
    convert_hdf5(real_data / "microscopy" / "1135_mini.h5", tmp_path / "nuclei", classes="binary")
    places = {"output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    common = {"dataset_dir": str(tmp_path / "nuclei"), **places, **SETTINGS}
    sparse = {"slices": [0, 0, 20], "slice_folds": None}
    training = {"epochs": 1, "iterations_per_epoch": 150, "learning_rate": 0.01, "learning_rate_power": 0.9}
    run(repository, ["train", "small", "demo"], **common, **sparse, **training)
    run(repository, ["train", "small", "evaluate"], **common, **sparse)
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())["summary"]
    # a nucleus everywhere scores its share of the voxels, 0.23; nothing anywhere scores 0
    assert summary["nucleus"]["iou"]["mean"] > 0.35
    assert summary["background"]["iou"]["mean"] > 0.77

    inference = {key: value for key, value in common.items() if key != "class_weights"}
    inference["dataset_dir"] = str(tmp_path / "nuclei" / "imagesTr")
    run(repository, ["inference", "small"], **inference)
    (result,) = (tmp_path / "out").glob("*_seg.nii.gz")
    (source,) = (tmp_path / "nuclei" / "imagesTr").glob("*.nii.gz")
    result, source = nibabel.load(result), nibabel.load(source)
    assert result.shape == source.shape and set(np.unique(result.dataobj)) == {0, 1}
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-6)
