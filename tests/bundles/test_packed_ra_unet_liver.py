"""The packed bundle `ra_unet_liver` where the repository is not on the path."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from packed import annotated, check_export, infer, python, request_training, run_bundle, train_copy, turned_scans

from common.weights import read_info

NAME = "ra_unet_liver"
SIZE = [64, 56, 40]
# resampled, so that the way to another grid and back is walked too
TINY = {
    "recipe": "small",
    "dataset_dir": {"_target_": "common.data.phantom_dataset", "name": "liver_ct", "cases": 2, "size": SIZE},
    "spacing": [7.0, 7.0, 6.0],
    "resample": {
        "_target_": "common.transforms.KeySpacingd",
        "keys": "image",
        "pixdim": "@spacing",
        "mode": "bilinear",
    },
    "resample_label": {
        "_target_": "common.transforms.KeySpacingd",
        "keys": "label",
        "pixdim": "@spacing",
        "mode": "nearest",
    },
    "localiser_width": 1,
    "width": 1,
    "localiser_size": [64, 64],
    "liver_size": [32, 32],
    # untrained networks find something at once
    "localiser_threshold": 0.4,
    "liver_threshold": 0.4,
    "localiser_epochs": 3,
    "liver_epochs": 1,
    "epochs": 2,
    "slices_per_volume": 4,
    "slabs_per_volume": 2,
    "tumour_patches_per_volume": 2,
    "localiser_batch_size": 4,
    "batch_size": 2,
    "folds": 2,
}


@pytest.fixture(scope="module")
def scans(work) -> Path:
    return turned_scans(work, "liver_ct", SIZE)


def test_it_predicts_on_the_grid_of_the_input(work, bundle, scans):
    infer(work, bundle, scans, work / "predicted")
    for path in sorted(scans.glob("*.nii.gz")):
        result = nib.load(next((work / "predicted").glob(f"{path.name.removesuffix('.nii.gz')}_seg.nii.gz")))
        source = nib.load(path)
        assert result.shape == source.shape and np.allclose(result.affine, source.affine)
        found = np.unique(result.dataobj).tolist()
        assert len(found) > 1 and set(found) <= {0, 1, 2}


def test_a_submission_has_the_names_of_the_challenge(work, bundle, scans):
    challenge, out = work / "challenge", work / "submission"
    challenge.mkdir()
    source = nib.load(sorted(scans.glob("*.nii.gz"))[0])
    nib.save(source, challenge / "test-volume-7.nii")
    run_bundle(
        work, bundle, ["inference.json", "submission.json"], "--dataset_dir", str(challenge), "--output_dir", str(out)
    )
    assert [path.name for path in out.rglob("*.nii*")] == ["test-segmentation-7.nii"]
    result = nib.load(next(out.rglob("test-segmentation-7.nii")))
    assert result.shape == source.shape and np.allclose(result.affine, source.affine)
    assert result.get_data_dtype() == np.uint8 and np.asarray(result.dataobj).any()


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
def test_it_trains_all_stages_and_evaluates(work, bundle):
    copied = train_copy(work, bundle)
    assert set(read_info(copied / "models" / "model.pt")["stages"]) == {"localiser", "liver", "tumour"}
    for name in ("lits.csv", "lits.md", "metrics.csv"):
        assert (work / "evaluated" / name).is_file(), name


@pytest.mark.slow
def test_a_training_request_of_monai_label_goes_on_with_all_stages(work, bundle, scans):
    copied, studies = work / "served" / NAME, work / "studies"
    shutil.copytree(bundle, copied)
    annotated(scans, studies, [0, 50])
    request_training(work, copied, studies, learning_rate=0.0)  # standing still: parameters end as they began

    info = read_info(copied / "models" / "model.pt")
    assert set(info["stages"]) == {"localiser", "liver", "tumour"}
    assert info["phantom"] is False and info["cases"] == 1
    before, after = (torch.load(root / "models" / "model.pt", weights_only=True) for root in (bundle, copied))
    learnt = [key for key in before if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert all(torch.equal(before[key], after[key]) for key in learnt)
    for child in ("localiser", "liver", "tumour"):  # each saw its own batches: normalisation noted them
        assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith(f"{child}.")), child
    assert (copied / "models" / "model_previous.pt").read_bytes() == (bundle / "models" / "model.pt").read_bytes()


STAGES = """
assert torch.allclose(network.liver(image), scripted.liver(image), atol=1e-5)
assert torch.allclose(network.tumour(image), scripted.tumour(image), atol=1e-5)
assert torch.allclose(network.localiser(image[..., 0]), scripted.localiser(image[..., 0]), atol=1e-5)
"""


def test_monai_checks_exports_and_loads_it_from_its_own_folder(work, bundle):
    check_export(work, bundle, (1, 32, 64, 32), STAGES)
