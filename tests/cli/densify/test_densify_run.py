"""A volume filled up by lines that do train: from slices of a ball to the ball, and on with further slices."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from sandbox import Sandbox

SIZE = (32, 28, 24)
SHORT = "--epochs 6 --iterations_per_epoch 12 --val_interval 3 --finish_epochs 1 --batch_size 2"


def _ball() -> np.ndarray:
    at = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"))
    return ((at - np.array(SIZE).reshape(3, 1, 1, 1) / 2) ** 2).sum(0) < 81


def _slices(planes) -> np.ndarray:
    ball, label = _ball(), np.full(SIZE, 255, np.uint8)
    for axis, index in planes:
        at = tuple(index if a == axis else slice(None) for a in range(3))
        label[at] = np.where(ball[at], 50, 10)
    return label


@pytest.mark.slow
def test_a_ball_from_its_slices(tmp_path):
    sandbox = Sandbox.make(tmp_path / "checkout")
    affine = np.diag([-0.5, 0.5, 1.0, 1.0])
    noise = np.random.default_rng(0).normal(0, 20, SIZE)
    first, further = [(0, 8), (0, 16), (1, 14), (2, 6), (2, 12), (2, 17)], [(1, 9), (2, 9), (0, 21)]
    volumes = {"scan": (100 * _ball() + noise).astype(np.float32), "a": _slices(first), "b": _slices(further)}
    for name, array in volumes.items():
        nibabel.save(nibabel.Nifti1Image(array, affine), sandbox.folder / f"{name}.nii.gz")
    told = sandbox.run(f"volseg densify scan.nii.gz a.nii.gz --out out {SHORT}").stdout
    assert "Step 4 of 4, predict" in told and "at most" in told
    assert told.count("$ python -m monai.bundle run") == 4
    out = sandbox.folder / "out"
    scores = [_scored(out)]
    told = sandbox.run(f"volseg densify scan.nii.gz b.nii.gz --out out --continue true {SHORT}").stdout
    assert "training starts from the weights out/fit/model.pt" in told
    scores.append(_scored(out))
    assert min(scores) > 0.8
    assert json.loads((out / "densify.json").read_text())["planes"] == [[8, 16, 21], [9, 14], [6, 9, 12, 17]]


def _scored(out) -> float:
    """IoU of the ball in the answer with the true one; what was written fits it."""
    dense = nibabel.load(out / "dense.nii.gz")
    values, unsure = np.asarray(dense.dataobj), np.asarray(nibabel.load(out / "uncertainty.nii.gz").dataobj)
    assert values.shape == SIZE and set(np.unique(values)) == {10, 50} and 0 <= unsure.min() < unsure.max() <= 1
    report = json.loads((out / "report.json").read_text())
    assert all(one["iou_held_out"] > 0.6 for one in report["classes"]) and report["uncertainty"]["voxels"] > 0
    assert all((out / name).stat().st_size > 0 for name in ("densify.png", "report.md"))
    ball, found = _ball(), values == 50
    return float((ball & found).sum() / (ball | found).sum())
