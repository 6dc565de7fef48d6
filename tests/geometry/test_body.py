"""The body mask against the same steps by scipy.ndimage, on bodies, tables and awkward volumes."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.geometry.body import body_mask

AIR, TISSUE = -1000.0, 40.0


def slow(volume, threshold=-500.0, opening=2, axis=2):
    """Step by step on one volume."""
    cube = np.ones((3, 3, 3), bool)
    mask = volume.float().numpy() >= threshold
    if opening:
        mask = ndimage.binary_erosion(mask, cube, opening, border_value=1)
    labels, found = ndimage.label(mask, cube)
    mask = labels == (1 + np.argmax(np.bincount(labels.ravel(), minlength=2)[1:])) if found else np.zeros_like(mask)
    if opening:
        mask = ndimage.binary_dilation(mask, cube, opening)
    planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, axis, 0)]
    return torch.from_numpy(np.moveaxis(np.stack(planes), 0, axis).copy())


def torso(shape=(80, 72, 12), lungs=True):
    """An elliptic cylinder along the last axis, with two cavities of air that end inside it."""
    x, y = torch.linspace(-1, 1, shape[0])[:, None], torch.linspace(-1, 1, shape[1])
    volume = torch.full(shape, AIR)
    volume[(x / 0.75) ** 2 + (y / 0.5) ** 2 < 1] = TISSUE
    if lungs:
        volume[..., 3:9][((x.abs() - 0.35) / 0.2) ** 2 + (y / 0.25) ** 2 < 1] = -800.0
    return volume


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("opening", [0, 1, 2])
def test_equals_the_steps_by_scipy(opening, axis):
    generator = torch.Generator().manual_seed(7)
    smooth = torch.nn.functional.avg_pool3d(torch.randn(1, 32, 31, 30, generator=generator), 7, 1)[0]
    cells = torch.where(smooth > smooth.quantile(0.3), TISSUE, AIR)
    for volume in (cells, torso() + 20 * torch.randn(80, 72, 12, generator=generator)):
        expected = slow(volume, opening=opening, axis=axis)
        assert torch.equal(body_mask(volume, opening=opening, axis=axis), expected)
        assert 0.05 < expected.float().mean() < 1


def test_lungs_are_inside_and_the_body_reaches_its_borders():
    volume = torso()
    found = body_mask(volume)
    solid = torso(lungs=False) >= -500
    assert found[volume == -800].all() and (found <= solid).all()
    assert torch.equal(found[..., 0], found[..., -1]) and found[..., 0].any()
    # the opening by a cube takes the slanting rim's corners alone
    assert found.sum() > 0.95 * solid.sum()


def test_slices_are_filled_across_the_axis_asked_for():
    tube = torch.full((12, 12, 12), AIR)
    tube[1:11, 1:11, :] = TISSUE
    tube[5:7, 5:7, :] = AIR  # open at both ends along the last axis
    assert body_mask(tube, opening=1, axis=2)[5:7, 5:7].all()
    for axis in (0, 1):
        assert not body_mask(tube, opening=1, axis=axis)[5:7, 5:7].any()


@pytest.mark.parametrize("bridge", [False, True])
def test_the_table_falls_away(bridge):
    volume = torso()
    body = body_mask(volume)
    with_table = volume.clone()
    with_table[4:76, 62:65] = 200.0  # a plate of three voxels below the body
    if bridge:
        with_table[38:42, 50:63, 4:8] = 200.0  # four voxels: an opening by two leaves none of them
        assert ndimage.label((with_table >= -500).numpy(), np.ones((3, 3, 3)))[1] == 1
    assert body_mask(with_table, opening=0)[4:76, 62:65].any() == bridge
    found = body_mask(with_table)
    assert not found[:, 58:].any() and (found >= body).all()
    # what is left of a bridge is at most its foot within the reach of the opening
    assert (found & ~body).sum() <= (4 * 4 * 4 if bridge else 0)


def test_a_thick_table_that_is_parted_by_air_falls_away_as_the_smaller_part():
    volume = torso((80, 96, 10))
    volume[:, 88:] = 200.0
    assert not body_mask(volume)[:, 88:].any()


@pytest.mark.parametrize("shape", [(30, 28, 1), (30, 28, 2), (30, 1, 28), (1, 30, 28), (3, 3, 3), (1, 1, 1)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_thinner_than_the_opening(shape, axis):
    volume = torch.full(shape, AIR)
    volume[tuple(slice(size // 4, size - size // 4) for size in shape)] = TISSUE
    expected = volume >= -500 if max(shape) != 3 else torch.ones(shape, dtype=torch.bool)
    assert torch.equal(body_mask(volume, axis=axis), slow(volume, axis=axis))
    assert torch.equal(body_mask(volume, axis=axis), expected)


def test_a_body_cut_by_every_border_is_all_of_the_volume_but_air_at_the_border_of_a_slice():
    volume = torch.full((16, 17, 9), TISSUE)
    assert body_mask(volume).all()
    volume[6:10, 6:10, 3:6] = AIR
    assert body_mask(volume).all()
    volume[:6, 6:10, 3:6] = AIR
    found = body_mask(volume)
    assert torch.equal(found, volume >= -500) and not found.all()


@pytest.mark.parametrize("volume", [torch.full((9, 8, 7), AIR), torch.zeros(2, 1, 9, 8, 7) - 2000])
def test_air_only_has_no_body(volume):
    found = body_mask(volume)
    assert found.dtype == torch.bool and found.shape == volume.shape and not found.any()


def test_what_the_opening_swallows_is_no_body():
    volume = torch.full((20, 20, 20), AIR)
    volume[8:12, :, :] = TISSUE
    assert not body_mask(volume, opening=2).any() and body_mask(volume, opening=1).any()


def test_leading_items_are_treated_by_themselves():
    first, second = torso(), torso().flip(1).roll(5, 0)
    second[:, :6] = 200.0  # its own table
    found = body_mask(torch.stack([first, second, torch.full_like(first, AIR)])[:, None])
    assert found.shape == (3, 1, 80, 72, 12)
    for item, volume in zip(found[:, 0], (first, second), strict=False):
        assert torch.equal(item, slow(volume))
    assert not found[2].any()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float16, torch.float32, torch.float64])
def test_the_type_of_the_volume_does_not_matter(dtype):
    volume = torso()
    volume[0, 0, 0] = 3000
    before = volume.to(dtype)
    given = before.clone()
    assert torch.equal(body_mask(given), body_mask(volume)) and torch.equal(given, before)
    assert torch.equal(body_mask(given.permute(2, 1, 0), axis=0), body_mask(volume).permute(2, 1, 0))


def test_masks_and_thresholds_between_whole_numbers():
    inside = torso() >= -500
    assert torch.equal(body_mask(inside, threshold=0.5), body_mask(torso()))
    edge = torch.tensor([-501, -500, -499], dtype=torch.int16).expand(5, 5, 3)
    assert body_mask(edge, opening=0)[2, 2].tolist() == [False, True, True]
    assert body_mask(edge, threshold=-499.5, opening=0)[2, 2].tolist() == [False, False, True]


def test_no_number_is_air():
    volume = torch.full((6, 6, 6), TISSUE)
    volume[:3] = float("nan")
    assert torch.equal(body_mask(volume, opening=1), volume == TISSUE)


def test_a_meta_tensor_gives_a_plain_mask():
    volume = torso()[None]
    found = body_mask(MetaTensor(volume))
    assert type(found) is torch.Tensor and torch.equal(found, body_mask(volume))


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    found = body_mask(torso().cuda())
    assert found.is_cuda and torch.equal(found.cpu(), body_mask(torso()))


def test_errors_name_the_rule():
    with pytest.raises(InputError, match=r"\(4, 5\) with slices across axis 2.*D H W"):
        body_mask(torch.zeros(4, 5))
    with pytest.raises(InputError, match="slices across axis 3.*axis 0, 1 or 2"):
        body_mask(torch.zeros(4, 5, 6), axis=3)
    with pytest.raises(InputError, match="radius -1.*0 or more"):
        body_mask(torch.zeros(4, 5, 6), opening=-1)
