"""Resampling beside entries that look like metadata and are none."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Spacingd

from common.checks import InputError
from common.transforms import KeySpacingd


def case() -> dict:
    affine = torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 6, 7, 5), affine=affine, meta={"filename_or_obj": "case.nii.gz"})
    return {"image": image, "image_path": "case.nii.gz", "weight": 3}


def test_an_entry_named_like_a_key_is_left_alone():
    with pytest.raises(AttributeError):  # the reason for this class; should MONAI mend it, the class can go
        Spacingd("image", pixdim=(1.5, 1.5, 1.5))(case())
    data = case()
    result = KeySpacingd("image", pixdim=(1.5, 1.5, 1.5))(data)
    expected = Spacingd("image", pixdim=(1.5, 1.5, 1.5))({"image": data["image"]})["image"]
    assert torch.equal(result["image"], expected) and torch.equal(result["image"].affine, expected.affine)
    assert result["image_path"] == "case.nii.gz" and result["weight"] == 3


def test_a_prediction_goes_back_to_the_own_grid():
    steps = Compose([KeySpacingd("image", pixdim=(1.5, 1.5, 1.5))])
    data = case()
    moved = steps(data)
    moved["pred"] = MetaTensor((moved["image"] > 0.5).to(torch.uint8)).copy_meta_from(moved["image"])
    back = Invertd("pred", steps, orig_keys="image", nearest_interp=True)(moved)["pred"]
    assert back.shape == data["image"].shape and set(back.unique().tolist()) <= {0, 1}
    assert torch.allclose(back.affine, data["image"].affine)


def test_a_missing_key_may_be_passed_over():
    assert KeySpacingd(["image", "label"], pixdim=(2.0, 2.0, 2.0), allow_missing_keys=True)(case())["weight"] == 3
    with pytest.raises(KeyError, match="label"):
        KeySpacingd(["image", "label"], pixdim=(2.0, 2.0, 2.0))(case())


@pytest.mark.parametrize(
    "pixdim", [(1.5,), (4.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0), "abc"]
)
def test_a_spacing_that_leaves_an_axis_out_is_refused(pixdim):
    """MONAI would keep the file's own spacing there, without a word."""
    with pytest.raises(InputError, match=r"spacing .* was given: it must be three lengths above 0"):
        KeySpacingd("image", pixdim=pixdim)
