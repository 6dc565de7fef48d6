"""Packed bundles where the repository is not on the path: what their tests share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

from common.bundling.pack import pack
from common.data import phantom_dataset
from common.files import read_json, write_json
from common.weights import save_weights

BLOCK = '''
import sys
class Block:
    """The package of the repository cannot be imported, wherever it is installed."""
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "common" or name.startswith("common."):
            raise ModuleNotFoundError("the repository is off the path", name=name)
sys.meta_path.insert(0, Block)
'''

CHECKS = """
import sys
import torch
from monai.bundle import ckpt_export, load, verify_net_in_out
name, *sizes = sys.argv[1:]
meta, config = "configs/metadata.json", "configs/inference.json"
verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, device="cpu")
ckpt_export("network_def", "models/model.ts", "models/model.pt", meta_file=meta, config_file=config)
network = load(name, bundle_dir="..", workflow_type="inference")
assert type(network).__module__.startswith(f"scripts_{name}.networks."), type(network)
image = torch.rand(1, *map(int, sizes))
scripted = torch.jit.load("models/model.ts")
with torch.no_grad():
    assert torch.allclose(network.eval()(image), scripted.eval()(image), atol=1e-5)
MORE
print("checks passed")
"""

# what MONAI Label hands to monai.bundle.run for a training request
REQUEST = """
import sys
from pathlib import Path
from monai.bundle import ConfigParser, run
root, studies = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(root))
train = root / "configs" / "train.json"
parser = ConfigParser()
parser.read_config(str(train))
loader = {"_target_": "CheckpointLoader", "load_path": str(root / "models" / "model.pt"),
          "load_dict": {"model": "$@network"}, "strict": False}
cases = [{"image": str(path), "label": str(studies / "labels" / "final" / path.name)}
         for path in sorted(studies.glob("*.nii.gz"))]
overrides = {"bundle_root": str(root), "train#trainer#max_epochs": 2, "train#dataset#data": cases[:1], "device": "cpu",
             "train#handlers": [loader, *parser.get("train#handlers")], "validate#dataset#data": cases[1:]}
run(run_id="run", init_id=None, final_id=None, meta_file=str(root / "configs" / "metadata.json"),
    config_file=str(train), **overrides)
"""


def make_work(root: Path) -> Path:
    """A folder for packed bundles, with what keeps the repository out of reach."""
    (root / "block").mkdir()
    (root / "block" / "sitecustomize.py").write_text(BLOCK)
    return root


def turned_scans(work: Path, phantom: str, size: Sequence[int]) -> Path:
    """A folder of two scans whose axes lie and run as those of other scanners."""
    made = Path(phantom_dataset(phantom, cases=2, size=list(size), cache_dir=work / "made")) / "imagesTr"
    folder = work / "scans"
    folder.mkdir()
    for path, axcodes in zip(sorted(made.glob("*.nii.gz")), ("LPS", "SRA"), strict=True):
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axcodes)
        )
        nib.save(image.as_reoriented(turn), folder / path.name)
    return folder


def pack_tiny(bundle: Path, work: Path, tiny: Mapping[str, Any], name: str | None = None) -> Path:
    """Pack a copy of a bundle, by an overlay `tiny` in place of its own `small`, with random weights.

    Args:
        bundle: folder of the bundle.
        work: from `make_work`.
        tiny: the overlay.
        name: another name for the copy.
    """
    name = name or bundle.name
    copied = work / "bundles" / name
    shutil.copytree(bundle, copied, ignore=shutil.ignore_patterns("models", "eval"))
    for path in copied.rglob("*"):
        if path.suffix in (".json", ".md"):
            path.write_text(path.read_text().replace(bundle.name, name))
    (copied / "configs" / "small.json").write_text(json.dumps(tiny))
    parser = ConfigParser()
    parser.read_config([str(copied / "configs" / file) for file in ("inference.json", "small.json")])
    torch.manual_seed(0)
    save_weights(
        parser.get_parsed_content("network_def"), copied / "models" / "model.pt", {"name": "noise", "phantom": True}
    )
    return pack(copied, work / "packed", overlays=["small"])[0]


def python(work: Path, cwd: Path, *arguments: str) -> str:
    """Run Python with `common` out of reach and return what it said."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_", "MONAI_"))}
    environment["PYTHONPATH"] = str(work / "block")
    environment["VOLSEG_CACHE"] = str(work / "cache")
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    return ran.stdout + ran.stderr


def run_bundle(work: Path, bundle: Path, configs: list[str], *overrides: str) -> str:
    files = [str(bundle / "configs" / name) for name in configs]
    return python(work, work, "-m", "monai.bundle", "run", "--config_file", str(files), *overrides)


def infer(work: Path, bundle: Path, dataset: Path, out: Path) -> dict[str, nib.Nifti1Image]:
    run_bundle(work, bundle, ["inference.json"], "--dataset_dir", str(dataset), "--output_dir", str(out))
    return {path.name.split("_")[0]: nib.load(path) for path in sorted(out.rglob("*_seg.nii.gz"))}


def check_export(work: Path, bundle: Path, size: Sequence[int], more: str = "") -> None:
    """MONAI checks, exports and loads a copy of a packed bundle, from its own folder; all forms answer alike.

    Args:
        work: from `make_work`.
        bundle: from `pack_tiny`.
        size: channels and voxels of an input, C D H W.
        more: statements of further checks on `network` and `scripted`, given `image`.
    """
    copied = work / "exported" / bundle.name
    shutil.copytree(bundle, copied)
    inside = "".join(f"    {line}\n" for line in more.splitlines())
    told = python(work, copied, "-c", CHECKS.replace("MORE\n", inside), bundle.name, *map(str, size))
    assert "checks passed" in told


def train_copy(work: Path, bundle: Path, *overrides: str) -> Path:
    """Train a copy of a packed bundle for a moment, evaluate it on the phantom, and give back its folder.

    Args:
        work: from `make_work`; scores go to ``evaluated`` in it.
        bundle: from `pack_tiny`.
        overrides: further words for the training.
    """
    copied = work / "trained" / bundle.name
    shutil.copytree(bundle, copied)
    short = ("--epochs", "1", "--iterations_per_epoch", "2", "--val_interval", "1")
    run_bundle(work, copied, ["train.json"], *short, *overrides)
    run_bundle(work, copied, ["train.json", "evaluate.json"], "--output_dir", str(work / "evaluated"))
    return copied


def annotated(scans: Path, studies: Path, bounds: Sequence[float]) -> None:
    """A folder of studies as MONAI Label keeps it: scans, and labels that number the ranges between values."""
    shutil.copytree(scans, studies)
    (studies / "labels" / "final").mkdir(parents=True)
    for path in scans.glob("*.nii.gz"):
        image = nib.load(path)
        label = np.digitize(image.dataobj, bounds).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, image.affine), studies / "labels" / "final" / path.name)


def request_training(work: Path, copied: Path, studies: Path, **values: Any) -> None:
    """Train a copy of a packed bundle for two epochs as MONAI Label does on request: one case of two, one held out.

    Args:
        work: from `make_work`.
        copied: the copy.
        studies: from `annotated`.
        values: entries of its ``train.json`` to change beforehand.
    """
    config = copied / "configs" / "train.json"
    write_json(config, {**read_json(config), **values})
    python(work, work, "-c", REQUEST, str(copied), str(studies))
