"""The packed bundle `random25d_mra` where the repository is not on the path."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from packed import annotated, check_export, infer, python, request_training, run_bundle, train_copy, turned_scans

from common.weights import read_info

NAME = "random25d_mra"
SIZE = [24, 40, 32]
TINY = {
    "recipe": "small",
    "dataset_dir": {"_target_": "common.data.phantom_dataset", "name": "head_neck_mra", "cases": 2, "size": SIZE},
    "widths": [2, 4, 8],
    "sectors": 3,
    "directions": 6,
    "folds": 2,
    "threshold": 0.01,  # of noise, which starts from few vessels, some is above
}


@pytest.fixture(scope="module")
def scans(work) -> Path:
    return turned_scans(work, "head_neck_mra", SIZE)


def test_it_predicts_on_the_grid_of_the_input(work, bundle, scans):
    infer(work, bundle, scans, work / "predicted")
    for path in sorted(scans.glob("*.nii.gz")):
        result = nib.load(next((work / "predicted").glob(f"{path.name.removesuffix('.nii.gz')}_seg.nii.gz")))
        source = nib.load(path)
        assert result.shape == source.shape and np.allclose(result.affine, source.affine)
        assert result.get_data_dtype() == np.uint8 and np.unique(result.dataobj).tolist() == [0, 1]


def test_a_rotating_picture_comes_on_request(work, bundle, scans):
    image, out = sorted(scans.glob("*.nii.gz"))[0], work / "rotating"
    run_bundle(work, bundle, ["inference.json", "rotating.json"], "--dataset_dir", str(image), "--output_dir", str(out))
    picture = next(out.rglob("*_rotating.gif"))
    assert picture.read_bytes()[:6] == b"GIF89a"


@pytest.mark.slow
def test_the_steps_of_monai_label_give_the_voxels_of_the_bundle(work, bundle, scans):
    steps = Path(__file__).with_name("label_steps.py")
    for image in sorted(scans.glob("*.nii.gz")):
        python(work, work, str(steps), str(work / "label.npz"), str(image), str(bundle))
        out = work / f"one_{image.name.removesuffix('.nii.gz')}"
        infer(work, bundle, image, out)
        expected = np.asarray(nib.load(next(out.glob("*_seg.nii.gz"))).dataobj)
        found = np.load(work / "label.npz")["bundle0"]
        assert expected.any() and np.array_equal(found, expected)
        assert found.dtype == np.uint8


@pytest.mark.slow
def test_it_trains_both_paths_and_evaluates(work, bundle):
    copied = train_copy(work, bundle)
    assert read_info(copied / "models" / "model.pt")["recipe"] == "small"
    before, after = (torch.load(root / "models" / "model.pt", weights_only=True) for root in (bundle, copied))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    for name in ("vessels.csv", "vessels.json", "vessels.md", "metrics.csv"):
        assert (work / "evaluated" / name).is_file(), name


@pytest.mark.slow
def test_a_training_request_of_monai_label_goes_on_with_both_paths(work, bundle, scans):
    copied, studies = work / "served" / NAME, work / "studies"
    shutil.copytree(bundle, copied)
    values = np.concatenate([np.ravel(nib.load(path).dataobj) for path in scans.glob("*.nii.gz")])
    annotated(scans, studies, [np.quantile(values, 0.99)])
    request_training(work, copied, studies, learning_rate=0.0)  # standing still: parameters end as they began

    info = read_info(copied / "models" / "model.pt")
    assert info["phantom"] is False and info["cases"] == 1
    before, after = (torch.load(root / "models" / "model.pt", weights_only=True) for root in (bundle, copied))
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (copied / "models" / "model_previous.pt").read_bytes() == (bundle / "models" / "model.pt").read_bytes()


FIXED = """
assert torch.allclose(network(image), network(image, network.project(image)), atol=1e-5)
"""


def test_monai_checks_exports_and_loads_it_from_its_own_folder(work, bundle):
    check_export(work, bundle, (1, *SIZE))
