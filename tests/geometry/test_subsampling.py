"""Every n-th voxel and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry.subsampling import parse_factor, subsample, upsample_nearest

GRIDS = [((6, 4, 8), 2), ((7, 5, 9), (2, 3, 1)), ((1, 2, 3), (2, 2, 4)), ((5, 1, 1), (1, 1, 1)), ((4, 4, 4), (9, 1, 4))]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float32])
@pytest.mark.parametrize("size, factor", GRIDS)
def test_there_and_back_voxel_by_voxel(size, factor, dtype):
    volume = torch.randint(0, 7, (2, 1, *size), generator=torch.Generator().manual_seed(0)).to(dtype)
    steps = parse_factor(factor)
    coarse = subsample(volume, factor)
    fine = upsample_nearest(coarse, factor, size)
    assert coarse.dtype == fine.dtype == dtype and fine.shape == volume.shape
    for position in np.ndindex(*coarse.shape[2:]):
        source = tuple(index * step for index, step in zip(position, steps))
        assert torch.equal(coarse[(..., *position)], volume[(..., *source)])
    for position in np.ndindex(*size):
        source = tuple(index // step for index, step in zip(position, steps))
        assert torch.equal(fine[(..., *position)], coarse[(..., *source)])
    assert torch.equal(subsample(fine, factor), coarse)


def test_an_axis_shorter_than_its_step_keeps_one_voxel():
    assert subsample(torch.zeros(1, 3, 1, 2), (4, 2, 2)).shape == (1, 1, 1, 1)


def test_a_step_of_one_copies_nothing_and_the_others_only_look():
    volume = torch.rand(1, 4, 4, 4)
    assert subsample(volume, 2).data_ptr() == volume.data_ptr()
    assert upsample_nearest(volume, 1, (4, 4, 4)).data_ptr() == volume.data_ptr()


def test_a_stale_affine_is_not_carried_along():
    volume = MetaTensor(torch.rand(1, 4, 4, 4))
    coarse = subsample(volume, 2)
    assert type(coarse) is torch.Tensor and type(upsample_nearest(MetaTensor(coarse), 2, (3, 4, 4))) is torch.Tensor


@pytest.mark.parametrize("factor", [0, -1, 1.5, (2, 2), (2, 0, 2), (2, 1.5, 2), "x", None, ()])
def test_factors_are_whole_numbers_from_one(factor):
    with pytest.raises(InputError, match=r"downsampling factor .* was given: it must be one whole number from 1, or"):
        subsample(torch.zeros(1, 4, 4, 4), factor)


def test_a_grid_that_does_not_belong_to_the_labels_is_refused():
    for size in [(8, 8, 9), (8, 6, 8), (8, 8)]:
        with pytest.raises(InputError, match=r"shape \(1, 4, 4, 4\) .* must subsample to the labels' size"):
            upsample_nearest(torch.zeros(1, 4, 4, 4), 2, size)
    with pytest.raises(InputError, match=r"has shape \(4, 4\): it must have three axes in space"):
        subsample(torch.zeros(4, 4), 2)
