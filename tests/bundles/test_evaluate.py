"""An evaluation by each bundle's own configs in which single cases are bad."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser

from common.data import phantom_dataset
from common.engines.case_evaluator import CasesFailed
from common.weights import save_weights

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "unet3d_sparse" / "configs"


@pytest.fixture
def data(tmp_path) -> Path:
    """Four cases: one holds NaN, one is truncated, one is gone."""
    return Path(phantom_dataset("kidney", cases=4, size=[32, 28, 24], cache_dir=tmp_path / "data"))


def evaluation(data: Path, out: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "evaluate.json")])
    values = {"dataset_dir": str(data), "output_dir": str(out), "model_path": str(out / "model.pt"), "device": "cpu"}
    parser.update({**values, "widths": [2, 4], "padded": True, "patch_size": [16, 16, 16]})
    save_weights(parser.get_parsed_content("network_def"), out / "model.pt", {"name": "noise", "phantom": True})
    return parser


def test_a_bad_case_does_not_end_an_evaluation(data, tmp_path):
    cases = json.loads((data / "dataset.json").read_text())["training"]
    first, second, third, good = (data / case["image"] for case in cases)
    image = nibabel.load(first)
    nan = np.asarray(image.dataobj).astype(np.float32)
    nan[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(nan, image.affine), first)
    second.write_bytes(second.read_bytes()[:200])
    third.unlink()
    parser = evaluation(data, tmp_path / "out")
    with pytest.raises(RuntimeError) as told:
        parser.get_parsed_content("run")
    assert isinstance(told.value.__cause__, CasesFailed) and "3 of 4 cases failed" in str(told.value.__cause__)
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert [failure["case"] for failure in failures] == [path.name for path in (first, second, third)]
    assert [word in failure["error"] for word, failure in zip(("NaN", "truncated", "exist"), failures)] == [True] * 3
    with open(tmp_path / "out" / "metrics.csv", encoding="utf-8") as stream:
        assert {row["case"] for row in csv.DictReader(stream)} == {good.name.removesuffix(".nii.gz")}


def test_the_tolerance_of_surfaces_is_about_two_voxels(data, tmp_path):
    parser = evaluation(data, tmp_path / "out")
    parser.get_parsed_content("run")
    tolerance = json.loads((tmp_path / "out" / "metrics.json").read_text())["nsd_tolerance_mm"]
    case = json.loads((data / "dataset.json").read_text())["training"][0]
    header = nibabel.load(data / case["label"]).header
    assert header.get_xyzt_units()[0] == "micron"
    assert 1.5 < 1000 * tolerance / max(header.get_zooms()[:3]) < 3
    assert not (tmp_path / "out" / "failures.json").exists()
