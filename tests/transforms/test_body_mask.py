"""The body's mask as a step of preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry.body import body_mask
from common.transforms import BodyMask, BodyMaskd


def scan(dtype=torch.float32):
    """A torso with a lung along the last axis, and a table beside it: 1 24 22 10, HU."""
    values = torch.full((1, 24, 22, 10), -1000.0)
    values[:, 4:18, 5:17] = 40.0
    values[:, 10:13, 10:12] = -850.0
    values[:, 21:22] = 100.0
    meta = {"filename_or_obj": "/x/scan.nii.gz"}
    return MetaTensor(values.to(dtype), torch.diag(torch.tensor([-0.8, 0.8, 5.0, 1.0])), meta)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_the_torso_with_its_lung_and_without_the_table(dtype):
    image = scan(dtype)
    before = image.clone()
    expected = torch.zeros(image.shape, dtype=torch.bool)
    expected[:, 4:18, 5:17] = True
    found = BodyMask()(image)
    assert found.dtype == torch.bool and torch.equal(found.as_tensor(), expected) and torch.equal(image, before)
    assert torch.equal(found.affine, image.affine) and found.meta["filename_or_obj"] == "/x/scan.nii.gz"


def test_arguments_reach_the_mask():
    image = scan()
    for threshold, opening in ((-900.0, 0), (50.0, 0), (-500.0, 6)):
        assert torch.equal(BodyMask(threshold, opening)(image), body_mask(image, threshold, opening))
    assert BodyMask(50.0, 0)(image).sum() == 22 * 10


def test_dictionary_form():
    data = {"image": scan(), "x": 1}
    found = BodyMaskd("image", "c1", -500.0, 2)(data)
    assert found["image"] is data["image"] and "c1" not in data and found["x"] == 1
    assert torch.equal(found["c1"], BodyMask()(scan()))
    assert "body" in BodyMaskd("image")(data) and BodyMaskd("y", allow_missing_keys=True)(data) == data
    assert type(BodyMask()(scan().numpy())) is np.ndarray


def test_no_body_is_an_empty_mask():
    assert not BodyMask()(torch.full((1, 8, 8, 8), -1000.0)).any()


def test_what_is_no_volume():
    with pytest.raises(
        InputError, match=r"image 'scan.nii.gz' has shape \(2, 24, 22, 10\): a CT must be \(1, X, Y, Z\)"
    ):
        BodyMask()(MetaTensor(torch.zeros(2, 24, 22, 10), meta=scan().meta))
    with pytest.raises(InputError, match="the mask of one image is put into 'body'"):
        BodyMaskd(["a", "b"])
