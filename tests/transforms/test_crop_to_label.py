"""Boxes around labels: where, how large, and where they lie in the world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from common.checks import InputError
from common.transforms.crop_to_label import CropToLabel, CropToLabeld

# the first axis flipped, 0.5 x 2 x 3 mm
AFFINE = torch.tensor([[-0.5, 0, 0, 7.0], [0, 2.0, 0, -3.0], [0, 0, 3.0, 1.0], [0, 0, 0, 1]], dtype=torch.float64)


def case(shape=(20, 16, 9), box=((5, 8), (4, 10), (3, 4))):
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    label[(0, *(slice(*ends) for ends in box))] = 2
    image = torch.arange(label.numel(), dtype=torch.float32).reshape(label.shape)
    meta = {"filename_or_obj": "/x/a.nii.gz"}
    return {"image": MetaTensor(image, affine=AFFINE, meta=meta), "label": MetaTensor(label, affine=AFFINE, meta=meta)}


CROPS = [
    ({}, ((5, 8), (4, 10), (3, 4))),
    ({"margin": 2}, ((3, 10), (2, 12), (1, 6))),
    ({"margin": [6, 0, 1]}, ((0, 14), (4, 10), (2, 5))),
    ({"margin_mm": 2.0}, ((1, 12), (3, 11), (2, 5))),
    ({"margin": (1, 1, 0), "margin_mm": 1.0}, ((2, 11), (2, 12), (2, 5))),
    ({"least": [1, 1, 4]}, ((5, 8), (4, 10), (2, 6))),
    ({"least": 99}, ((0, 20), (0, 16), (0, 9))),
    ({"margin": 99}, ((0, 20), (0, 16), (0, 9))),
]


@pytest.mark.parametrize(("options", "expected"), CROPS, ids=str)
def test_the_box(options, expected):
    data = case()
    small = CropToLabeld(["image", "label"], "label", **options)(data)
    window = (slice(None), *(slice(*ends) for ends in expected))
    for key in ("image", "label"):
        assert torch.equal(small[key].as_tensor(), data[key].as_tensor()[window]), key
        origin = AFFINE @ torch.tensor([*(first for first, _ in expected), 1.0], dtype=torch.float64)
        torch.testing.assert_close(small[key].affine[:, 3], origin)
        torch.testing.assert_close(small[key].affine[:, :3], AFFINE[:, :3])
    assert torch.equal(CropToLabel(**options)(data["image"], data["label"]), small["image"])


def test_the_large_volume_is_let_go_and_the_input_left_alone():
    data = case()
    before = data["image"].clone()
    small = CropToLabeld("image", "label", margin=1)(data)
    assert small["image"].untyped_storage().nbytes() == small["image"].numel() * 4
    assert small["label"] is data["label"]
    small["image"].as_tensor().zero_()
    assert torch.equal(data["image"], before) and torch.equal(data["image"].affine, AFFINE)
    assert small["image"].meta["filename_or_obj"] == "/x/a.nii.gz"
    turned = Orientation("RAS", labels=None)(data["label"])
    assert turned.applied_operations and not CropToLabel()(turned).applied_operations


def test_arrays_stay_arrays():
    data = case()
    label = data["label"].numpy()
    small = CropToLabel(margin=1)(label)
    assert type(small) is np.ndarray and small.shape == (1, 5, 8, 3) and small.dtype == np.uint8


def test_a_case_without_label_is_named():
    data = case(box=((0, 0), (0, 0), (0, 0)))
    with pytest.raises(InputError, match=r"nothing is labelled above 0 in 'a\.nii\.gz'.*take the case out"):
        CropToLabeld("image", "label")(data)


def test_other_errors_are_told():
    data = case()
    with pytest.raises(InputError, match="margin_mm 5 was given, and the label carries no affine"):
        CropToLabel(margin_mm=5)(data["label"].as_tensor())
    with pytest.raises(InputError, match=r"'image' from 'a\.nii\.gz' has shape \(1, 20, 16, 8\) and the label"):
        CropToLabeld("image", "label")({**data, "image": data["image"][..., :8]})
    with pytest.raises(KeyError):
        CropToLabeld(["image", "mask"], "label")(data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": -1}, "margin -1 was given: it counts voxels"),
        ({"margin": [1, 2]}, "it counts voxels"),
        ({"least": 1.5}, "least 1.5 was given"),
        ({"margin_mm": -2}, "margin_mm -2 was given: it must be a length"),
        ({"margin_mm": float("inf")}, "it must be a length"),
    ],
)
def test_arguments_out_of_range(options, said):
    with pytest.raises(InputError, match=said):
        CropToLabel(**options)
