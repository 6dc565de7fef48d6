"""Slices resized in-plane: against two matrices for each slice, and against what a resize must keep."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from resized import resized

from common.checks import InputError
from common.geometry.slices import resize_slices

CASES = [
    ((7, 5, 3), (16, 9)),
    ((16, 21, 4), (7, 8)),
    ((9, 12, 1), (12, 4)),
    ((5, 5, 6), (5, 8)),
    ((1, 6, 2), (3, 3)),
    ((8, 1, 1), (4, 1)),
    ((8, 1, 3), (4, 2)),
    ((1, 1, 2), (3, 5)),
    ((9, 8, 1), (1, 3)),
    ((9, 8, 2), (4, 1)),
]


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape, size", CASES)
def test_equals_two_matrices(shape, size, antialias):
    volume = 0.1 + torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = resize_slices(volume, size, antialias=antialias)
    assert found.dtype == torch.float64 and found.shape == (*size, shape[2])
    np.testing.assert_allclose(found.numpy(), resized(volume.numpy(), size, antialias), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float32, torch.float16])
@pytest.mark.parametrize("shape, size", CASES)
def test_a_mask_is_resized_as_ones_and_cut_at_a_half(shape, size, dtype):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    found = resize_slices((2 * mask).to(dtype), size, "mask")
    assert found.dtype == dtype
    expected = resized(mask.double().numpy(), size) >= 0.5 - 1e-9
    np.testing.assert_array_equal(found.double().numpy(), expected)


@pytest.mark.parametrize("size", [(9, 4), (20, 31)])
def test_leading_axes_and_slices_stay_apart(size):
    volume = torch.rand(2, 3, 12, 10, 4)
    whole = resize_slices(volume, size)
    assert whole.shape == (2, 3, *size, 4)
    for item in range(2):
        for channel in range(3):
            for z in range(4):
                one = resize_slices(volume[item, channel, ..., z : z + 1].clone(), size)
                torch.testing.assert_close(whole[item, channel, ..., z : z + 1], one)
    part = volume[..., 1:3]
    torch.testing.assert_close(resize_slices(part, size), whole[..., 1:3])


@pytest.mark.parametrize("size", [(3, 5), (64, 50)])
def test_a_constant_stays_and_values_keep_their_range(size):
    torch.testing.assert_close(resize_slices(torch.full((13, 11, 2), 0.3), size), torch.full((*size, 2), 0.3))
    volume = torch.rand(13, 11, 2)
    found = resize_slices(volume, size)
    assert volume.min() - 1e-6 <= found.min() and found.max() <= volume.max() + 1e-6


def test_halving_takes_means_that_hold_more_than_two_voxels():
    line = torch.zeros(8, 1, 1)
    line[3] = 1
    found = resize_slices(line, (4, 1)).flatten()
    assert found[1] == pytest.approx(0.375) and found[2] == pytest.approx(0.125)


def test_the_right_size_is_left_alone():
    volume = torch.rand(1, 1, 6, 7, 3)
    assert resize_slices(volume, (6, 7)).data_ptr() == volume.data_ptr()
    labels = torch.tensor([0, 3, 1, 0, 2, 0], dtype=torch.uint8).reshape(2, 3, 1)
    assert torch.equal(resize_slices(labels, (2, 3), "mask"), (labels > 0).to(torch.uint8))


@pytest.mark.parametrize("dtype, expected", [(torch.int16, torch.float32), (torch.float16, torch.float16)])
def test_other_numbers(dtype, expected):
    volume = torch.arange(60).reshape(5, 4, 3).to(dtype)
    found = resize_slices(volume, (3, 7))
    assert found.dtype == expected
    torch.testing.assert_close(found.float(), resize_slices(volume.double(), (3, 7)).float(), rtol=1e-3, atol=1e-3)


def test_a_metatensor_gives_a_plain_tensor():
    found = resize_slices(MetaTensor(torch.rand(1, 4, 4, 2)), (2, 2))
    assert type(found) is torch.Tensor and found.shape == (1, 2, 2, 2)


def test_gradients_pass():
    volume = torch.rand(4, 5, 2, requires_grad=True)
    resize_slices(volume, (8, 3)).sum().backward()
    assert volume.grad.shape == volume.shape and (volume.grad > 0).all()


@pytest.mark.parametrize(
    "shape, size, mode, text",
    [
        ((4, 4), (2, 2), "bilinear", r"a volume of \(4, 4\).*\.\.\. X Y Z"),
        ((4, 4, 0), (2, 2), "bilinear", r"a volume of \(4, 4, 0\).*at least one voxel"),
        ((4, 4, 4), (2, 2, 2), "bilinear", r"slices of \(2, 2, 2\) voxels.*two axes"),
        ((4, 4, 4), (2, 0), "mask", r"slices of \(2, 0\) voxels.*two axes"),
        ((4, 4, 4), (2, 2), "nearest", r"mode is 'nearest'.*bilinear, mask"),
    ],
)
def test_refuses(shape, size, mode, text):
    with pytest.raises(InputError, match=text):
        resize_slices(torch.zeros(shape), size, mode)
