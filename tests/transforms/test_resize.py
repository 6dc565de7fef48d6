"""Slices resized: values, place in the world, masks, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from common.checks import InputError
from common.transforms.resize import ResizeSlices, ResizeSlicesd

AFFINE = torch.tensor(
    [[-0.6, 0.3, 0.0, -11.0], [0.3, 0.6, 0.1, 5.0], [0.0, 0.1, 3.0, 40.0], [0, 0, 0, 1]], dtype=torch.float64
)


def ramp(shape, axis):
    """A volume whose value is the place of a voxel's centre along an axis, in voxels."""
    line = torch.arange(shape[axis], dtype=torch.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return MetaTensor(line.expand(shape)[None].clone(), affine=AFFINE, meta={"filename_or_obj": "/x/a.nii.gz"})


@pytest.mark.parametrize(("shape", "size"), [((20, 12, 3), (10, 4)), ((9, 14, 1), (4, 4)), ((6, 5, 4), (12, 15))])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_values_stay_at_their_place(shape, size, axis):
    """A linear ramp is what bilinear kernels keep inside, so a new voxel's value is its own place on the old grid."""
    small = ResizeSlices(size)(ramp(shape, axis))
    assert small.shape == (1, *size, shape[2]) and small.dtype == torch.float32
    inside = [slice(-(-n // 3), n - -(-n // 3)) if axis == a else slice(None) for a, n in enumerate(size)]
    to_old = torch.linalg.inv(AFFINE) @ small.affine
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in small.shape[1:]), indexing="ij")).double()
    place = torch.einsum("j,jxyz->xyz", to_old[axis, :3], index) + to_old[axis, 3]
    torch.testing.assert_close(
        small.as_tensor()[(0, *inside)].double(), place[tuple(inside)], atol=1e-4, rtol=0, check_stride=False
    )


def test_the_same_field_of_view():
    small = ResizeSlices((4, 8))(ramp((20, 12, 3), 0))
    for corner in ((-0.5, -0.5), (1, 1)):
        old = [c * n - 0.5 if c == 1 else c for c, n in zip(corner, (20, 12))]
        new = [c * n - 0.5 if c == 1 else c for c, n in zip(corner, (4, 8))]
        torch.testing.assert_close(
            AFFINE @ torch.tensor([*old, 2.0, 1.0], dtype=torch.float64),
            small.affine @ torch.tensor([*new, 2.0, 1.0], dtype=torch.float64),
        )


def test_masks_stay_masks_and_what_is_not_zero_is_inside():
    label = torch.zeros(1, 8, 8, 2, dtype=torch.uint8)
    label[0, 2:6, 2:8] = 2
    label[0, 7, 0, 1] = 1
    data = {"image": label.float(), "label": label, "name": "a"}
    small = ResizeSlicesd(["image", "label"], (4, 4), label_keys="label")(data)
    assert small["label"].dtype == torch.uint8 and small["name"] == "a"
    expected = torch.zeros(1, 4, 4, 2, dtype=torch.uint8)
    expected[0, 1:3, 1:4] = 1
    assert torch.equal(small["label"], expected)
    assert small["image"].dtype == torch.float32 and 1.5 < small["image"].max() <= 2.0 and label.max() == 2


@pytest.mark.parametrize("as_label", [False, True])
def test_the_right_size_is_a_copy_at_the_same_place(as_label):
    image = ramp((6, 5, 3), 0)
    image.as_tensor().clamp_(0, 1)
    same = ResizeSlices((6, 5))(image, as_label)
    assert torch.equal(same, image) and same.data_ptr() != image.data_ptr()
    torch.testing.assert_close(same.affine, AFFINE)
    assert same.meta["filename_or_obj"] == "/x/a.nii.gz"


def test_operations_end_and_types_stay():
    turned = Orientation("LPS", labels=None)(ramp((6, 5, 3), 0))
    assert turned.applied_operations and not ResizeSlices((3, 3))(turned).applied_operations
    assert type(ResizeSlices((3, 3))(turned.numpy())) is np.ndarray
    assert type(ResizeSlices((3, 3))(turned.as_tensor())) is torch.Tensor
    assert ResizeSlices([3, 3])(turned).is_contiguous()


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, 4, 4), (4.5, 4), 8])
def test_a_size_is_two_whole_numbers(size):
    with pytest.raises(InputError, match="size .* was given: it must be two whole numbers"):
        ResizeSlices(size)


def test_what_can_not_be_resized_is_told():
    with pytest.raises(InputError, match=r"in memory has shape \(6, 5, 3\): it must be \(C, X, Y, Z\)"):
        ResizeSlices((3, 3))(torch.zeros(6, 5, 3))
    with pytest.raises(InputError, match="every label must be among the keys"):
        ResizeSlicesd("image", (3, 3), label_keys="label")
    with pytest.raises(KeyError):
        ResizeSlicesd(["image", "label"], (3, 3))({"image": torch.zeros(1, 4, 4, 4)})
    assert not ResizeSlicesd("image", (3, 3), allow_missing_keys=True)({})
