"""Dilation and erosion against scipy.ndimage, with what lies outside the volume said to it."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.geometry import morphology as module
from common.geometry.morphology import dilate, erode

SHAPES = [(9, 11, 13), (1, 9, 12), (10, 1, 1), (2, 3, 17), (1, 1, 1), (5, 4, 3)]


def element(shape, radius, axes):
    """The cube or the ball as an array."""
    places = np.indices((2 * radius + 1,) * axes) - radius
    return np.ones(places.shape[1:], bool) if shape == "cube" else (places**2).sum(0) <= radius**2


def noise(shape, share=0.5, seed=3):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@pytest.fixture(params=[1, 40, 2**19], ids=["tiny blocks", "small blocks", "one block"])
def block(request, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_CPU", request.param)


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 20])
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("shape", ["cube", "ball"])
def test_both_equal_scipy(block, shape, size, radius):
    structure = element(shape, radius, 3)
    for share in (0.03, 0.97):
        mask = noise(size, share)
        wide = ndimage.binary_dilation(mask.numpy(), structure)
        narrow = ndimage.binary_erosion(mask.numpy(), structure, border_value=1)
        assert np.array_equal(dilate(mask, radius, shape).numpy(), wide)
        assert np.array_equal(erode(mask, radius, shape).numpy(), narrow)


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_the_cube_is_rounds_of_a_small_one(radius):
    mask = noise((14, 15, 16), 0.02)
    small = np.ones((3, 3, 3), bool)
    assert np.array_equal(dilate(mask, radius).numpy(), ndimage.binary_dilation(mask.numpy(), small, radius))
    expected = ndimage.binary_erosion((~mask).numpy(), small, radius, border_value=1)
    assert np.array_equal(erode(~mask, radius).numpy(), expected)


@pytest.mark.parametrize("shape", ["cube", "ball"])
def test_two_axes_and_leading_items(block, shape):
    masks = noise((3, 2, 7, 9), 0.2)
    wide, narrow = dilate(masks, 2, shape, spatial_dims=2), erode(masks, 2, shape, spatial_dims=2)
    structure = element(shape, 2, 2)
    for mask, more, less in zip(masks.flatten(0, 1), wide.flatten(0, 1), narrow.flatten(0, 1), strict=True):
        assert np.array_equal(more.numpy(), ndimage.binary_dilation(mask.numpy(), structure))
        assert np.array_equal(less.numpy(), ndimage.binary_erosion(mask.numpy(), structure, border_value=1))
    assert torch.equal(dilate(masks, 2, shape)[1], dilate(masks[1], 2, shape))
    assert torch.equal(erode(masks, 1, shape)[1], erode(masks[1], 1, shape))


@pytest.mark.parametrize("shape", ["cube", "ball"])
def test_each_is_the_other_of_the_complement(shape):
    mask = noise((8, 9, 10))
    assert torch.equal(erode(mask, 2, shape), ~dilate(~mask, 2, shape))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float32])
def test_any_type_goes_in_and_nothing_is_written_to(dtype):
    mask = noise((6, 7, 8), 0.2).to(dtype) * 3 if dtype != torch.bool else noise((6, 7, 8), 0.2)
    before = mask.clone()
    for function in (dilate, erode):
        for shape in ("cube", "ball"):
            found = function(mask, 1, shape)
            assert found.dtype == torch.bool and torch.equal(found, function(before != 0, 1, shape))
    assert torch.equal(mask, before) and torch.equal(dilate(mask, 0), before != 0)
    same = dilate(mask, 0)
    same.fill_(True)
    assert torch.equal(mask, before)


@pytest.mark.parametrize("shape", ["cube", "ball"])
def test_views_that_are_not_contiguous(shape):
    mask = noise((9, 8, 7), 0.1)
    for view in (mask.permute(2, 0, 1), mask[::2, :, 1:], mask[:1].expand(4, -1, -1), mask.flip(0)):
        expected = ndimage.binary_dilation(view.numpy(), element(shape, 2, 3))
        assert np.array_equal(dilate(view, 2, shape).numpy(), expected)


def test_a_meta_tensor_keeps_its_affine():
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    found = dilate(MetaTensor(noise((1, 4, 5, 6)), affine=affine), 1)
    assert isinstance(found, MetaTensor) and torch.equal(found.affine, affine)
    assert torch.equal(found.as_tensor(), dilate(noise((1, 4, 5, 6)), 1))


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    mask = noise((2, 20, 31, 17), 0.1)
    for function in (dilate, erode):
        for shape in ("cube", "ball"):
            found = function(mask.cuda(), 3, shape)
            assert found.is_cuda and torch.equal(found.cpu(), function(mask, 3, shape))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"shape": "cross"}, "shape 'cross'.*cube or a ball.*pass 'cube' or 'ball'"),
        ({"radius": -1}, "radius -1: it counts whole voxels, 0 or more"),
        ({"radius": 1.5}, "radius 1.5: it counts whole voxels"),
        ({"spatial_dims": 1}, r"\(4, 5\) with spatial_dims=1.*2 or 3 spatial axes"),
        ({"spatial_dims": 3}, r"\(4, 5\) with spatial_dims=3.*2 or 3 spatial axes"),
    ],
)
def test_errors_name_the_rule(change, text):
    for function in (dilate, erode):
        with pytest.raises(InputError, match=text):
            function(torch.ones(4, 5), **{"radius": 1, "spatial_dims": 2, **change})
