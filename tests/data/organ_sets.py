"""Tiny scans and labels from which the tests of the converters of abdominal CT make data sets."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np

from common.data.convert.organs import CLASSES

SHAPE = (9, 8, 21)  # more slices than are counted at once
# flipped, turned and anisotropic
AFFINE = np.array([[0.0, -0.7, 0.0, 11.0], [-0.8, 0.0, 0.0, 3.0], [0.0, 0.0, 2.5, -40.0], [0.0, 0.0, 0.0, 1.0]])
MASKS = {
    "artery": "aorta",
    "portal vein": "portal_vein_and_splenic_vein",
    **{organ: organ for organ in ("liver", "spleen", "stomach", "gallbladder", "pancreas")},
}


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **header) -> Path:
    """Write a volume; `header` are fields set on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
    image.set_sform(affine, code=1)
    image.header["descrip"] = "not for labels"
    for field, value in header.items():
        image.header[field] = value
    nibabel.save(image, path)
    return path


def scan(seed: int = 0) -> np.ndarray:
    """Air with a block of tissue of about 60 HU."""
    values = np.random.default_rng(seed).integers(-1020, -990, SHAPE).astype(np.int16)
    values[2:7, 2:7] = np.random.default_rng(seed).integers(40, 80, (5, 5, SHAPE[2]))
    return values


def numbers(highest: int, seed: int = 0) -> np.ndarray:
    """Every number up to `highest` somewhere in the tissue."""
    values = np.zeros(SHAPE, np.uint8)
    block = np.random.default_rng(seed).integers(0, highest + 1, (5, 5, SHAPE[2]))
    block.ravel()[: highest + 1] = range(highest + 1)
    values[2:7, 2:7] = block
    return values


def expected(values: np.ndarray, names: list[str]) -> np.ndarray:
    """Classes voxel by voxel."""
    made = np.zeros(values.shape, int)
    for place in np.ndindex(*values.shape):
        name = names[values[place]]
        made[place] = CLASSES.index(name) if name else 0
    return made


def content(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def dropped(folder: Path) -> dict[str, str]:
    return {case["case"]: case["why"] for case in content(folder)["dropped"]}


def label(folder: Path, name: str) -> np.ndarray:
    return np.asarray(nibabel.load(folder / "labelsTr" / f"{name}.nii.gz").dataobj)
