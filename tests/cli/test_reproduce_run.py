"""An experiment whose runs do train: recipes with and without weights, in two and three dimensions, in one table."""

from __future__ import annotations

import csv
import math

import pytest
from sandbox import Sandbox


@pytest.mark.slow
def test_an_experiment_of_the_sparse_unet_is_run_and_told(tmp_path):
    sandbox = Sandbox.make(tmp_path / "checkout")
    recipes = ["3D without BN", "2D with BN", "interpolation", "random walker"]
    line = f"volseg reproduce unet3d_sparse cross_validation --folds 2 --out out --recipes '{','.join(recipes)}'"
    done = sandbox.run(f"{line} --epochs 1 --iterations_per_epoch 2 --val_interval 1")
    assert "cross_validation: 8 of 8 runs to do" in done.stdout and "Missing" not in done.stdout
    with open(sandbox.folder / "out" / "cross_validation" / "table.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["class"] == "all classes"]
    assert [row["recipe"] for row in rows] == 2 * recipes
    assert all(0 <= float(row["iou"]) <= 1 for row in rows)
    trained = [row["recipe"] for row in rows if row["training_minutes"]]
    assert trained == 2 * recipes[:2]
    # methods that start from the drawn slices beat networks of two steps by far
    means = {name: math.fsum(float(row["iou"]) for row in rows if row["recipe"] == name) / 2 for name in recipes}
    assert max(means[name] for name in recipes[:2]) < min(means[name] for name in recipes[2:])
    assert "runs to do" in (again := sandbox.run(f"{line} --epochs 1 --iterations_per_epoch 2 --val_interval 1")).stdout
    assert "cross_validation: 0 of 8 runs to do" in again.stdout
    assert not list((sandbox.folder / "bundles").rglob("*.pt"))  # the bundle's own weights are not touched
