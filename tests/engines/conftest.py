"""The tiny method of two stages, as a bundle of its own with data."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

TOY = Path(__file__).resolve().parents[1] / "two_stage"


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy_data")
    rng = np.random.default_rng(0)
    for case in range(4):
        label = np.zeros((8, 9, 10), np.uint8)
        label[2:6, 3:7, 2:8] = 1
        image = label + rng.normal(0, 0.3, label.shape)
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / f"image{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / f"label{case}.nii.gz")
    return folder


@pytest.fixture
def bundle(tmp_path, data, monkeypatch):
    monkeypatch.syspath_prepend(str(TOY))
    shutil.copytree(TOY / "configs", tmp_path / "configs")
    return tmp_path
