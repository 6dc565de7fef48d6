"""Packed bundles where the repository is not on the path: what their tests share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import torch
from monai.bundle import ConfigParser

from common.bundling.pack import pack
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


def make_work(root: Path) -> Path:
    """A folder for packed bundles, with what keeps the repository out of reach."""
    (root / "block").mkdir()
    (root / "block" / "sitecustomize.py").write_text(BLOCK)
    return root


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
