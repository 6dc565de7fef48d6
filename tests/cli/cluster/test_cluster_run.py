"""A study over two workers, one of which is killed: its labels are those of a single process, byte for byte."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from pretended_lines import until
from sandbox import Sandbox

pytest.importorskip("distributed")


# weights that have learnt nothing give other labels for every other voxel, which is all the harder to get equal
_WEIGHTS = """
import torch
from monai.bundle import ConfigParser
from common.weights import save_weights
torch.manual_seed(1)
parser = ConfigParser()
parser.read_config("bundles/unet3d_sparse/configs/inference.json")
save_weights(parser.get_parsed_content("network_def"), "bundles/unet3d_sparse/models/model.pt", {"recipe": "paper"})
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A sandbox with weights and a folder of images, and what one process makes of them."""
    sandbox = Sandbox.make(tmp_path_factory.mktemp("study") / "checkout")
    sandbox.run(f"python -c {shlex.quote(_WEIGHTS)}")
    sandbox.provide("volseg predict unet3d_sparse images")
    sandbox.run("volseg predict unet3d_sparse images --out one --device cpu")
    return sandbox


def labels(folder: Path) -> dict[str, bytes]:
    """The labels in a folder of results."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*_seg.nii.gz"))}


def lists(folder: Path) -> dict:
    """The lists of a folder of results, without what a machine takes."""
    told = json.loads((folder / "predictions.json").read_text())
    for case in told["cases"]:
        for name in [name for name in case if name in ("seconds", "device") or "memory" in name]:
            del case[name]
    return told


@pytest.mark.slow
def test_a_study_is_what_one_process_makes(study):
    line = "exec volseg predict unet3d_sparse images --out many --device cpu --workers 2"
    process = subprocess.Popen(
        ["bash", "-c", line], cwd=study.folder, env=study.environment, stdout=subprocess.PIPE, text=True
    )
    place = study.folder / "many" / ".staged" / "parts"
    begun = until(lambda: next((file for file in place.glob("*.begun") if file.stat().st_size), None), 120)
    os.kill(json.loads(begun.read_text())["pid"], signal.SIGKILL)
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 0, told
    assert "its worker was lost; 1 cases are begun anew, attempt 2" in told
    one, many = study.folder / "one", study.folder / "many"
    assert len(labels(one)) == 3 and labels(many) == labels(one)
    assert all(min(volume["voxels"] for volume in case["volumes"].values()) > 0 for case in lists(one)["cases"])
    assert lists(many) == lists(one)
    assert sorted(path.name for path in many.iterdir()) == sorted(path.name for path in one.iterdir())


@pytest.mark.slow
def test_weights_that_are_not_there_end_a_study_in_one_sentence(study):
    done = study.run(
        "volseg predict unet3d_sparse images --out none --workers 2 --device cpu --model_path nowhere.pt", check=False
    )
    assert done.returncode == 2
    assert "WeightsError: " in done.stderr and "nowhere.pt" in done.stderr and "Traceback" not in done.stderr
    assert not list((study.folder / "none").glob("*_seg.nii.gz"))
