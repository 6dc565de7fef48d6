"""An image, and slices beside it that are saved and read."""

from __future__ import annotations

import numpy as np
import pytest
from classed_slices import AFFINE, SHAPE, saved

from common.data.annotation import read_annotation
from common.data.volume_file import read_volume


@pytest.fixture
def image(tmp_path):
    grey = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return read_volume(saved(tmp_path / "image.nii.gz", grey))


@pytest.fixture
def read(tmp_path, image):
    """Save arrays as files of slices and read them."""

    def of(*arrays, beside=image, affine=AFFINE, unit="mm", **options):
        files = [saved(tmp_path / f"slices{n}.nii.gz", array, affine, unit) for n, array in enumerate(arrays)]
        return read_annotation(files, beside, **options)

    return of
