"""Boxes: found, enlarged, cropped to and pasted back."""

import itertools

import pytest
import torch

from common.checks import InputError
from common.geometry.boxes import Box, at_least, bounding_box, crop, enlarge, paste


def slow_box(mask):
    voxels = [place for place in itertools.product(*map(range, mask.shape)) if mask[place]]
    return Box(tuple(map(min, zip(*voxels))), tuple(max(axis) + 1 for axis in zip(*voxels))) if voxels else None


@pytest.mark.parametrize("shape", [(5, 7, 9), (1, 4, 3), (8, 6)])
@pytest.mark.parametrize("share", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_bounding_box_equals_a_loop_over_voxels(shape, share, dtype):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
    mask[tuple(length // 2 for length in shape)] = True
    assert bounding_box(mask.to(dtype), spatial_dims=len(shape)) == slow_box(mask)


def test_nothing_gives_no_box():
    assert bounding_box(torch.zeros(1, 1, 4, 5, 6), margin=3) is None


def test_leading_axes_are_joined_and_negative_values_count():
    mask = torch.zeros(2, 3, 6, 6, 6)
    mask[0, 1, 1, 2, 3], mask[1, 2, 4, 3, 2] = 1, -1
    assert bounding_box(mask) == Box((1, 2, 2), (5, 4, 4))


def test_margins_add_up_and_are_clipped():
    mask = torch.zeros(40, 40, 40)
    mask[20, 20, 2] = 1
    box = bounding_box(mask, margin=(1, 0, 1), margin_mm=10.0, spacing=(5.0, 0.7, 3.0))
    assert box == Box((17, 5, 0), (24, 36, 8))


def test_a_margin_of_whole_voxels_in_mm_is_not_rounded_up():
    assert enlarge(Box((50,), (51,)), (99,), margin_mm=3.0, spacing=(0.3,)).size == (21,)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (1.0, 0.0, 1.0)])
def test_a_margin_in_mm_needs_a_spacing(spacing):
    with pytest.raises(InputError, match="margin_mm=3.*positive spacing for each of 3 axes"):
        enlarge(Box((0, 0, 0), (1, 1, 1)), (5, 5, 5), margin_mm=3, spacing=spacing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("leading", [(), (2, 3)])
def test_paste_inverts_crop(dtype, leading):
    volume = (10 * torch.rand(*leading, 5, 6, 7)).to(dtype)
    box = Box((1, 0, 6), (4, 6, 7))
    patch = crop(volume, box)
    assert tuple(patch.shape) == (*leading, *box.size)
    back = paste(patch, box, (5, 6, 7), fill=2)
    assert back.dtype == dtype and torch.equal(crop(back, box), patch)
    outside = torch.ones(5, 6, 7, dtype=torch.bool)
    crop(outside, box)[:] = False
    assert (back[..., outside] == 2).all()


@pytest.mark.parametrize("box", [Box((0, 0, 0), (2, 2, 3)), Box((4, 0, 0), (6, 2, 2)), Box((-1, 0, 0), (1, 2, 2))])
def test_paste_refuses_what_does_not_fit(box):
    with pytest.raises(InputError, match="fill the box"):
        paste(torch.ones(2, 2, 2), box, (5, 5, 5))


@pytest.mark.parametrize("least", [0, 1, 4, 5, 12, (3, 0, 7)])
def test_at_least_is_the_most_central_box_inside_the_volume(least):
    extent, wanted = (6, 5, 9), least if isinstance(least, tuple) else (least,) * 3
    spans = [[(a, b) for a in range(n) for b in range(a + 1, n + 1)] for n in extent]
    for axis in range(3):
        for first, last in spans[axis]:
            box = Box(
                tuple(first if i == axis else 2 for i in range(3)), tuple(last if i == axis else 3 for i in range(3))
            )
            found = at_least(box, extent, least)
            size = max(last - first, min(wanted[axis], extent[axis]))
            # of all boxes of that size around the given one, the one whose middle is nearest, of two the upper
            around = [(a, a + size) for a in range(extent[axis] - size + 1) if a <= first and a + size >= last]
            nearest = min(around, key=lambda span: (abs(sum(span) - first - last), -span[0]))
            assert (found.start[axis], found.stop[axis]) == nearest
            assert all(0 <= a and b <= n for a, b, n in zip(found.start, found.stop, extent))


def test_at_least_keeps_a_box_that_is_large_enough():
    box = Box((1, 2, 3), (4, 5, 8))
    assert at_least(box, (9, 9, 9), (3, 3, 5)) == box
