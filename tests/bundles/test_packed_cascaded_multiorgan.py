"""The packed bundle `cascaded_multiorgan` where the repository is not on the path."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from packed import annotated, check_export, infer, python, request_training, train_copy, turned_scans

from common.weights import read_info

NAME = "cascaded_multiorgan"
# resampled, so that the way to another grid and back is walked too
TINY = {
    "recipe": "small",
    "dataset_dir": {"_target_": "common.data.phantom_dataset", "name": "abdomen_ct", "cases": 2, "size": [40, 36, 32]},
    "resample": {
        "_target_": "common.transforms.KeySpacingd",
        "keys": "image",
        "pixdim": [12.0, 12.0, 12.0],
        "mode": "bilinear",
    },
    "resample_label": {
        "_target_": "common.transforms.KeySpacingd",
        "keys": "label",
        "pixdim": [12.0, 12.0, 12.0],
        "mode": "nearest",
    },
    "downsampling": [1, 1, 1],
    "widths": [2, 4, 8],
    "norm": "instance",
    "padded": True,
    "patch_size": [16, 16, 16],
    "folds": 2,
}


@pytest.fixture(scope="module")
def scans(work) -> Path:
    return turned_scans(work, "abdomen_ct", [40, 36, 32])


def test_it_predicts_on_the_grid_of_the_input(work, bundle, scans):
    infer(work, bundle, scans, work / "predicted")
    for path in sorted(scans.glob("*.nii.gz")):
        result = nib.load(next((work / "predicted").glob(f"{path.name.removesuffix('.nii.gz')}_seg.nii.gz")))
        source = nib.load(path)
        assert result.shape == source.shape and np.allclose(result.affine, source.affine)
        assert 1 < len(np.unique(result.dataobj)) <= 8


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
        assert found.dtype == np.uint8  # undoing a spacing gives floats, and MONAI Label writes what it is given


@pytest.mark.slow
def test_it_trains_both_stages_and_evaluates(work, bundle):
    copied = train_copy(work, bundle)
    assert set(read_info(copied / "models" / "model.pt")["stages"]) == {"stage1", "stage2"}
    assert (work / "evaluated" / "stages.md").is_file() and (work / "evaluated" / "metrics.csv").is_file()


@pytest.mark.slow
def test_a_training_request_of_monai_label_goes_on_with_both_stages(work, bundle, scans):
    copied, studies = work / "served" / NAME, work / "studies"
    shutil.copytree(bundle, copied)
    annotated(scans, studies, [0, 50])
    # standing still: what comes out is what training began with
    still = {"iterations_per_epoch": 1, "stage1_learning_rate": 0.0, "stage2_learning_rate": 0.0}
    request_training(work, copied, studies, **still)

    info = read_info(copied / "models" / "model.pt")
    # two epochs were asked for, and stage 1 has 200,000 iterations where stage 2 has 115,000
    assert [info["stages"][name]["epoch"] for name in ("stage1", "stage2")] == [3, 2]
    assert info["phantom"] is False and info["cases"] == 1
    before, after = (torch.load(root / "models" / "model.pt", weights_only=True) for root in (bundle, copied))
    assert all(torch.equal(before[key], after[key]) for key in before)  # stage 2 from its own, not from stage 1
    assert not torch.equal(after["stage1.score.weight"], after["stage2.score.weight"])
    assert (copied / "models" / "model_previous.pt").read_bytes() == (bundle / "models" / "model.pt").read_bytes()
    trained_on = sorted(studies.glob("*.nii.gz"))[0].name.removesuffix(".nii.gz")
    maps = [path.name for path in (copied / "eval" / "regions").glob("*.nii.gz")]
    assert len(maps) == 1 and maps[0].startswith(trained_on)


STAGES = """
assert torch.allclose(network.stage1(image), scripted.stage1(image), atol=1e-5)
"""


def test_monai_checks_exports_and_loads_it_from_its_own_folder(work, bundle):
    check_export(work, bundle, (1, *TINY["patch_size"]), STAGES)
