"""Small Decathlon folders for tests."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np


def write_nifti(path: Path, volume: np.ndarray, spacing: tuple[float, ...] = (1.0, 2.0, 3.0)) -> None:
    """A volume with a diagonal affine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([*spacing, 1.0])), path)


def write_folder(folder: Path, names: list[str], test: list[str] = (), **fields: object) -> Path:
    """A data set whose volumes are random and whose labels are 0 and 1."""
    rng = np.random.default_rng(0)
    for name in names:
        write_nifti(folder / "imagesTr" / f"{name}.nii.gz", rng.integers(0, 200, (5, 6, 7)).astype(np.int16))
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", rng.integers(0, 2, (5, 6, 7)).astype(np.uint8))
    for name in test:
        write_nifti(folder / "imagesTs" / f"{name}.nii.gz", rng.integers(0, 200, (5, 6, 7)).astype(np.int16))
    content = {
        "name": "small",
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": [f"./imagesTs/{n}.nii.gz" for n in test],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({**content, **fields}))
    return folder
