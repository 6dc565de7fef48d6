"""A comparison whose runs do train: what trainers and evaluations write is what its table reads."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from sandbox import Sandbox


@pytest.mark.slow
def test_a_recipe_is_trained_scored_and_told_with_its_cost(tmp_path):
    sandbox = Sandbox.make(tmp_path / "checkout")
    command = "volseg compare random25d_mra --recipes threshold --runs 1 --out out"
    sandbox.run(f"{command} --epochs 1 --iterations_per_epoch 2")
    with open(sandbox.folder / "out" / "table.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["recipe"], row["run"], row["class"]) == ("threshold", "fold0", "vessel")
    scores = ["dice_loss", "mean_accuracy", "mean_iou", "dice", "cldice", "betti0_error"]
    costs = ["training_minutes", "memory_mib", "application_ms"]
    assert all(math.isfinite(float(row[name])) for name in [*scores, *costs])
    assert all(float(row[name]) > 0 for name in costs)
    text = (sandbox.folder / "out" / "table.md").read_text()
    assert "| threshold |" in text and "Missing" not in text
    assert not list(Path(sandbox.folder / "bundles").rglob("*.pt"))  # the bundle's own weights are not touched
