"""Otsu's body against the same steps by scipy.ndimage and the definition of the threshold, on awkward volumes."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.geometry.otsu import otsu_body


def threshold(values):
    """Otsu's by definition: of all splits that of the greatest variance between classes, in the middle of its gap."""
    values = values.ravel()
    values = values.clip(max=next(value for value in np.unique(values) if (values > value).mean() <= 0.005))
    present = np.unique(values)
    between = []
    for value in present[:-1]:
        below, above = values[values <= value], values[values > value]
        between.append(below.size * above.size * (below.mean() - above.mean()) ** 2)
    best = int(np.argmax(between))
    return (present[best] + present[best + 1]) / 2


def slow(volume, factor=0.5, axis=0, closing=(0, 0)):
    """Step by step on one volume."""
    values = volume.numpy().astype(np.float64)
    mask = values >= values.min() + factor * (threshold(values) - values.min())
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    planes = []
    for plane in np.moveaxis(mask, axis, 0):
        room = np.pad(plane, 20)
        if any(closing):
            room = ndimage.binary_closing(room, np.ones([2 * radius + 1 for radius in closing]))
        planes.append(ndimage.binary_fill_holes(room)[20:-20, 20:-20])
    return torch.from_numpy(np.moveaxis(np.stack(planes), 0, axis).copy())


def pelvis(shape=(9, 60, 72), noise=1.0):
    """Air at 0, fat at 800, muscle at 250, in which a dark cavity: an elliptic cylinder along the first axis."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.linspace(-1, 1, shape[1])[:, None], torch.linspace(-1, 1, shape[2])
    volume = torch.zeros(shape)
    radius = (x / 0.8) ** 2 + (y / 0.7) ** 2
    volume[:, radius < 1] = 800.0
    volume[:, radius < 0.7] = 250.0
    volume[2:7, ((x - 0.1) ** 2 + y**2) < 0.05] = 5.0
    return (volume + noise * 12 * torch.randn(shape, generator=generator)).abs(), radius


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("closing", [(0, 0), (2, 2), (1, 3), (0, 4)])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_equals_the_steps_by_scipy(factor, closing, axis):
    generator = torch.Generator().manual_seed(11)
    smooth = torch.nn.functional.avg_pool3d(torch.randn(1, 26, 25, 24, generator=generator), 5, 1)[0]
    cells = torch.where(smooth > 0.07, 60, 0) + torch.randint(0, 25, smooth.shape, generator=generator)
    body = pelvis((21, 22, 23))[0].movedim(0, axis).round()
    for volume in (cells, body):
        expected = slow(volume, factor, axis, closing)
        assert torch.equal(otsu_body(volume, factor, axis, closing), expected)
        assert 0.05 < expected.float().mean() < 0.95


def test_muscle_and_what_is_dark_in_it_are_body_and_air_is_not():
    volume, radius = pelvis()
    found = otsu_body(volume)
    assert torch.equal(found, (radius < 1).expand_as(found))
    # muscle is darker than the threshold itself
    assert not otsu_body(volume, 1.0)[:, 0].any() and threshold(volume.numpy().round()) > 250 + 36


@pytest.mark.parametrize(("scale", "shift"), [(1.0, -1000.0), (0.003, -2.0), (37.0, 0.0), (1.0, 4096.0)])
def test_scale_and_offset_of_a_scanner_do_not_matter(scale, shift):
    volume = pelvis()[0].double()
    assert torch.equal(otsu_body(volume * scale + shift), otsu_body(volume))


def test_a_gap_between_air_and_body_is_halved():
    volume = torch.zeros(4, 20, 20, dtype=torch.int16)
    volume[:] = torch.arange(20) * 2  # air up to 38
    volume[:, 5:15, 5:15] = 200 + torch.arange(10, dtype=torch.int16)
    # from the lowest of equally good thresholds, 38, air from 19 on would be body
    assert torch.equal(otsu_body(volume), volume >= 200)


@pytest.mark.parametrize("padding", [-1024.0, -2000.0, -3024.0, -8192.0])
def test_padding_of_ct_counts_as_air(padding):
    volume, radius = pelvis()
    volume = volume - 1010
    volume[:, radius > 1.4] = padding
    assert 0.2 < (volume == padding).float().mean()
    assert torch.equal(otsu_body(volume), (radius < 1).expand_as(volume))


def test_numbers_all_below_padding_are_not_taken_for_it():
    volume, radius = pelvis()
    assert torch.equal(otsu_body(volume - 5000), (radius < 1).expand_as(volume))


@pytest.mark.parametrize("bright", [3000.0, 60000.0, 1e6])
def test_metal_does_not_hide_the_body(bright):
    volume, radius = pelvis()
    volume[2:7, 28:34, 30:36] = bright
    assert 0.004 < (volume == bright).float().mean() < 0.005
    assert torch.equal(otsu_body(volume), (radius < 1).expand_as(volume))


def test_one_voxel_stands_out():
    volume = torch.zeros(9, 20, 20)
    volume[4, 5, 6] = 3.0
    assert torch.equal(otsu_body(volume), volume > 0)


def test_closing_takes_muscle_in_that_opens_to_the_outside_and_leaves_air_out():
    body = torch.full((3, 40, 40), 0)
    body[:, 2:38, 3:40] = 100  # two voxels of air in front, none behind: the border cuts it on the right
    expected = body > 0
    opened = body.clone()
    opened[:, 2:20, 18:22] = 0
    assert not otsu_body(opened)[:, 5, 20].any() and not otsu_body(opened, closing=(5, 1))[:, 5, 20].any()
    # across the slit it has to reach two voxels, along it none
    assert torch.equal(otsu_body(opened, closing=(0, 2)), expected)
    assert torch.equal(otsu_body(opened, closing=(9, 9)), expected)
    assert torch.equal(otsu_body(body, closing=(9, 9)), expected)


def test_closing_farther_than_the_volume_is_wide():
    volume = torch.zeros(2, 6, 9)
    volume[:, 1:5, 2] = volume[:, 1:3, 7] = volume[0, 1, 2:8] = 50.0
    expected = slow(volume, closing=(9, 9))
    assert (expected & (volume == 0)).any() and torch.equal(otsu_body(volume, closing=(10**9, 10**9)), expected)


def test_only_the_largest_part_stays():
    volume, radius = pelvis()
    volume[:, :4, :5] = 700.0  # an arm
    assert torch.equal(otsu_body(volume), (radius < 1).expand_as(volume))


@pytest.mark.parametrize("shape", [(1, 30, 28), (2, 30, 28), (30, 1, 28), (30, 28, 1), (1, 1, 9), (1, 1, 2), (3, 3, 3)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thin_volumes(shape, axis):
    volume = torch.zeros(shape)
    volume[tuple(slice(size // 4, max(size - size // 4, 1)) for size in shape)] = 100.0
    volume[(0,) * 3] = 1.0
    expected = slow(volume, axis=axis, closing=(3, 2))
    assert expected.any() and torch.equal(otsu_body(volume, axis=axis, closing=(3, 2)), expected)


@pytest.mark.parametrize("value", [0.0, 7.5, -1000.0, float("nan"), float("inf")])
def test_what_does_not_stand_out_has_no_body(value):
    volume = torch.full((1, 4, 5, 6), value)
    found = otsu_body(volume)
    assert found.shape == volume.shape and found.dtype == torch.bool and not found.any()
    volume[..., :2] = float("nan")
    assert not otsu_body(volume).any()


def test_leading_items_are_treated_by_themselves():
    first, radius = pelvis()
    second = first * 0.01 - 5
    found = otsu_body(torch.stack([first, second, torch.ones_like(first)])[:, None], closing=(2, 2))
    assert found.shape == (3, 1, *first.shape) and not found[2].any()
    assert torch.equal(found[0, 0], (radius < 1).expand_as(first)) and torch.equal(found[0], found[1])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64, torch.bool])
def test_the_type_and_the_order_in_memory_do_not_matter(dtype):
    volume = (pelvis()[0] / 8).round().clamp(max=100)
    volume = volume > 10 if dtype == torch.bool else volume
    given = volume.to(dtype)
    before = given.clone()
    expected = otsu_body(volume.float())
    assert torch.equal(otsu_body(given), expected) and torch.equal(given, before)
    turned = given.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not turned.is_contiguous() and torch.equal(otsu_body(turned), expected)


def test_a_meta_tensor_gives_a_plain_mask():
    found = otsu_body(MetaTensor(pelvis()[0][None]), closing=(1, 1))
    assert type(found) is torch.Tensor and found.shape == (1, 9, 60, 72)


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    volume = pelvis()[0]
    found = otsu_body(volume.cuda(), closing=(3, 2))
    assert found.is_cuda and torch.equal(found.cpu(), otsu_body(volume, closing=(3, 2)))


def test_errors_name_the_rule():
    with pytest.raises(InputError, match=r"\(4, 5\) with slices across axis 0.*D H W"):
        otsu_body(torch.zeros(4, 5))
    with pytest.raises(InputError, match="slices across axis 3.*axis 0, 1 or 2"):
        otsu_body(torch.zeros(4, 5, 6), axis=3)
    for factor in (0, -1, 1.5, float("nan")):
        with pytest.raises(InputError, match=f"factor {factor} was given.*above 0"):
            otsu_body(torch.zeros(4, 5, 6), factor)
