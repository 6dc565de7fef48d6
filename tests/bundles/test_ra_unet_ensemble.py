"""Runs of several folds of `ra_unet_liver`, joined into one network and predicted with."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from sandbox import Sandbox

from common.weights import read_info

CONFIGS = "bundles/ra_unet_liver/configs"
RUN = "python -m monai.bundle run"
TRAIN = f"{RUN} --config_file {CONFIGS}/train.json --epochs 1 --val_interval 1"
ENSEMBLE = f"\"['{CONFIGS}/%s.json','{CONFIGS}/ensemble.json'%s]\""
JOIN = f"{RUN} join --config_file {ENSEMBLE % ('train', '')} --model_path folds/model.pt"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Sandbox:
    """Two runs of two folds, and what they were joined to."""
    sandbox = Sandbox.make(tmp_path_factory.mktemp("ensemble") / "checkout")
    for fold in (0, 1):
        sandbox.run(f"{TRAIN} --fold {fold} --model_path folds/{fold}/model.pt --output_dir folds/{fold}")
    sandbox.run(f"{JOIN} --member_paths \"['folds/0/model.pt','folds/1/model.pt']\"")
    return sandbox


def test_every_fold_is_a_member(joined):
    folds = [torch.load(joined.folder / f"folds/{fold}/model.pt", weights_only=True) for fold in (0, 1)]
    members = torch.load(joined.folder / "folds" / "model.pt", weights_only=True)
    for child in ("liver", "tumour"):
        for fold, weights in enumerate(folds):
            for name in (name for name in weights if name.startswith(f"{child}.")):
                assert torch.equal(members[name.replace(child, f"{child}.{fold}", 1)], weights[name]), name
    localiser = [name for name in members if name.startswith("localiser.")]
    assert localiser and all(torch.equal(members[name], folds[0][name]) for name in localiser)
    assert read_info(joined.folder / "folds" / "model.pt")["phantom"] is True


def test_an_ensemble_predicts(joined):
    joined.provide("volseg predict ra_unet_liver volumes")
    joined.run(
        f"{RUN} --config_file {ENSEMBLE % ('inference', '')} --dataset_dir volumes --model_path folds/model.pt"
        " --output_dir segmented --localiser_threshold 0.3 --liver_threshold 0.3"
    )
    inputs = sorted((joined.folder / "volumes").glob("*.nii.gz"))
    for source in inputs:
        result = nib.load(joined.folder / "segmented" / f"{source.name.removesuffix('.nii.gz')}_seg.nii.gz")
        assert result.shape == nib.load(source).shape
        assert set(np.unique(result.dataobj)) <= {0, 1, 2}
    assert len(inputs) == 2


@pytest.mark.parametrize("split", ["", "--fold 1", "--folds \"'$None'\""])
def test_an_ensemble_is_not_scored_on_what_its_folds_have_seen(joined, split):
    done = joined.run(
        f"{RUN} --config_file {ENSEMBLE % ('train', f',{chr(39)}{CONFIGS}/evaluate.json{chr(39)}')}"
        f" --model_path folds/model.pt --output_dir scores {split}",
        check=False,
    )
    assert done.returncode != 0 and "trained on" in done.stdout + done.stderr
    assert not (joined.folder / "scores" / "metrics.csv").exists()


def test_as_many_runs_are_joined_as_there_are_members(joined):
    done = joined.run(f"{JOIN} --member_paths \"['folds/0/model.pt']\"", check=False)
    assert done.returncode != 0 and "WeightsError" in done.stdout + done.stderr


def test_an_ensemble_is_not_trained(joined):
    done = joined.run(f"{RUN} --config_file {ENSEMBLE % ('train', '')} --epochs 1", check=False)
    assert done.returncode != 0 and "InputError" in done.stdout + done.stderr
