"""Every bundle, for a minute: narrow network, one epoch, then scores, prediction and a round through ``volseg``."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from sandbox import BUNDLES, Sandbox, shortened


@pytest.fixture(scope="module", params=BUNDLES)
def trained(request, tmp_path_factory) -> tuple[str, Sandbox]:
    """A sandbox in which a bundle was trained by MONAI's own command."""
    sandbox = Sandbox.make(tmp_path_factory.mktemp("smoke") / "checkout")
    sandbox.run(shortened(f"python -m monai.bundle run --config_file bundles/{request.param}/configs/train.json"))
    return request.param, sandbox


def test_training_leaves_weights_and_where_they_come_from(trained):
    name, sandbox = trained
    models = sandbox.folder / "bundles" / name / "models"
    assert (models / "model.pt").stat().st_size > 0
    assert json.loads((models / "model.json").read_text())["phantom"] is True


def test_evaluation_scores_every_class(trained):
    name, sandbox = trained
    configs = f"bundles/{name}/configs"
    sandbox.run(
        f"python -m monai.bundle run --config_file \"['{configs}/train.json','{configs}/evaluate.json']\""
        " --output_dir scores"
    )
    metrics = json.loads((sandbox.folder / "scores" / "metrics.json").read_text())
    config = json.loads((sandbox.folder / configs / "train.json").read_text())
    # bundles that choose what is scored leave the background out
    names = [name for name in config["class_names"] if name != "background" or "scored_classes" not in config]
    assert set(metrics["summary"]) == {*names, "all classes"}
    assert list((sandbox.folder / "scores").glob("*.png"))


def test_prediction_lies_on_the_input_grid(trained):
    name, sandbox = trained
    sandbox.provide(f"volseg predict {name} volumes")
    sandbox.run(f"volseg predict {name} volumes --out segmented")
    inputs = sorted((sandbox.folder / "volumes").glob("*.nii.gz"))
    outputs = sorted((sandbox.folder / "segmented").glob("*.nii.gz"))
    assert len(outputs) == len(inputs) > 0
    for source, result in zip(map(nibabel.load, inputs), map(nibabel.load, outputs), strict=True):
        assert result.shape[:3] == source.shape[:3]
        np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)


def test_list_knows_the_weights(trained):
    name, sandbox = trained
    row = next(line for line in sandbox.run("volseg list").stdout.splitlines() if line.startswith(name))
    assert "yes, of a phantom" in row


def test_demo_leaves_the_bundles_own_weights_alone(trained):
    name, sandbox = trained
    model = sandbox.folder / "bundles" / name / "models" / "model.pt"
    before = model.read_bytes()
    done = sandbox.run(shortened(f"volseg demo {name}"))
    metadata = json.loads((sandbox.folder / "bundles" / name / "configs" / "metadata.json").read_text())
    headline = next(iter(metadata["eval_metrics"]))
    assert f"{headline} on what was held out" in done.stdout and "Picture: demo" in done.stdout
    assert model.read_bytes() == before
