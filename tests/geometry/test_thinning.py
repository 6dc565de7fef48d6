"""Skeletons: within the mask, of every component, along the middle of tubes."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.checks import InputError
from common.geometry.thinning import skeleton

EVERY_NEIGHBOUR = np.ones((3, 3, 3))


@pytest.mark.parametrize("width, height", list(itertools.combinations_with_replacement(range(1, 8), 2)))
def test_a_straight_tube_has_its_middle(width, height):
    """Tubes of an even width, of which the library's thinning alone leaves nothing, included."""
    mask = torch.zeros(12, 12, 34, dtype=torch.uint8)
    mask[2 : 2 + width, 3 : 3 + height, 2:32] = 1
    found = skeleton(mask)
    assert found.dtype == torch.bool and found.shape == mask.shape
    assert not bool((found & (mask == 0)).any())
    where = np.argwhere(found.numpy())
    assert ndimage.label(found.numpy(), EVERY_NEIGHBOUR)[1] == 1
    # one voxel a slice in the middle part, half a voxel from the axis or nearer
    for z in range(2 + max(width, height), 32 - max(width, height)):
        (point,) = where[where[:, 2] == z]
        assert abs(point[0] - (2 + (width - 1) / 2)) <= 0.5 and abs(point[1] - (3 + (height - 1) / 2)) <= 0.5


@pytest.mark.parametrize("seed", range(8))
def test_every_component_keeps_a_voxel(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((14, 13, 15), bool)
    for _ in range(14):
        low = rng.integers(0, 12, 3)
        mask[tuple(slice(a, a + size) for a, size in zip(low, rng.integers(1, 5, 3), strict=True))] = True
    labels, count = ndimage.label(mask, EVERY_NEIGHBOUR)
    found = skeleton(torch.from_numpy(mask)).numpy()
    assert not (found & ~mask).any() and count > 1
    assert set(labels[found]) == set(range(1, count + 1))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (1, 4, 4), (4, 4, 4), (1, 9, 8), (8, 1, 1)])
def test_whole_and_single_slices(shape):
    found = skeleton(torch.ones(shape))
    assert found.shape == shape and 1 <= int(found.sum()) <= max(shape)


def test_nothing_has_no_skeleton():
    assert not skeleton(torch.zeros(4, 5, 6)).any()


def test_channels_are_refused():
    with pytest.raises(InputError, match=r"a mask of \(1, 4, 5, 6\): a skeleton is that of D H W"):
        skeleton(torch.zeros(1, 4, 5, 6))
