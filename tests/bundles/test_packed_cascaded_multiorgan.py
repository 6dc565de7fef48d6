"""The packed bundle `cascaded_multiorgan` where the repository is not on the path."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from packed import infer, make_work, pack_tiny, python, run_bundle

from common.data.phantoms.registry import phantom_dataset
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
def work(tmp_path_factory) -> Path:
    return make_work(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def bundle(repository, work) -> Path:
    return pack_tiny(repository / "bundles" / NAME, work, TINY)


@pytest.fixture(scope="module")
def scans(work) -> Path:
    """Two scans whose axes lie and run as those of other scanners."""
    made = Path(phantom_dataset("abdomen_ct", cases=2, size=[40, 36, 32], cache_dir=work / "made")) / "imagesTr"
    folder = work / "scans"
    folder.mkdir()
    for path, axcodes in zip(sorted(made.glob("*.nii.gz")), ("LPS", "SRA"), strict=True):
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axcodes)
        )
        nib.save(image.as_reoriented(turn), folder / path.name)
    return folder


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
    copied = work / "trained" / NAME
    shutil.copytree(bundle, copied)
    short = ("--epochs", "1", "--iterations_per_epoch", "2", "--val_interval", "1")
    run_bundle(work, copied, ["train.json"], *short)
    assert set(read_info(copied / "models" / "model.pt")["stages"]) == {"stage1", "stage2"}
    run_bundle(work, copied, ["train.json", "evaluate.json"], "--output_dir", str(work / "evaluated"))
    assert (work / "evaluated" / "stages.md").is_file() and (work / "evaluated" / "metrics.csv").is_file()


CHECKS = """
import torch
from monai.bundle import ckpt_export, load, verify_net_in_out
meta, config = "configs/metadata.json", "configs/inference.json"
verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, device="cpu")
ckpt_export("network_def", "models/model.ts", "models/model.pt", meta_file=meta, config_file=config)
network = load("NAME", bundle_dir="..", workflow_type="inference")
image = torch.rand(1, 1, 16, 16, 16)
scripted = torch.jit.load("models/model.ts")
with torch.no_grad():
    assert torch.allclose(network.eval()(image), scripted.eval()(image), atol=1e-5)
    assert torch.allclose(network.stage1(image), scripted.stage1(image), atol=1e-5)
print("checks passed")
"""


def test_monai_checks_exports_and_loads_it_from_its_own_folder(work, bundle):
    copied = work / "exported" / NAME
    shutil.copytree(bundle, copied)
    assert "checks passed" in python(work, copied, "-c", CHECKS.replace("NAME", NAME))
