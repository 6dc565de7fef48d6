"""Connected components against a flood fill, with and without the fast library."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.geometry import components as module
from common.geometry.boxes import Box, crop
from common.geometry.components import connected_components, fill_holes, keep_largest


@pytest.fixture(params=["cc3d", "skimage", "scipy"])
def backend(request, monkeypatch):
    monkeypatch.setattr(module, "has_cc3d", module.has_cc3d and request.param == "cc3d")
    monkeypatch.setattr(module, "has_measure", module.has_measure and request.param != "scipy")
    return request.param


def flood(mask, connectivity):
    """Sets of voxels, largest first, of equal ones first the first in memory."""
    left = [tuple(place) for place in mask.nonzero().tolist()]
    found = []
    while left:
        part, edge = [], [left.pop(0)]
        while edge:
            here = edge.pop()
            part.append(here)
            near = [p for p in left if 0 < sum(a != b for a, b in zip(p, here)) <= connectivity
                    and all(abs(a - b) <= 1 for a, b in zip(p, here))]  # fmt: skip
            edge += near
            left = [p for p in left if p not in near]
        found.append(part)
    return sorted(found, key=lambda part: -len(part))


@pytest.mark.parametrize("connectivity", [1, 2, 3, None])
@pytest.mark.parametrize("shape, share", [((5, 7, 6), 0.15), ((1, 9, 8), 0.3), ((9, 1, 11), 0.35)])
def test_components_equal_a_flood_fill(backend, shape, share, connectivity):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < share
    expected = flood(mask, connectivity or 3)
    labels, found = connected_components(mask, connectivity)
    assert [part.voxels for part in found] == [len(part) for part in expected] and len(found) > 2
    for part, voxels in zip(found, expected):
        assert sorted(map(tuple, (labels == part.index).nonzero().tolist())) == sorted(voxels)
        assert part.box == Box(tuple(map(min, zip(*voxels))), tuple(max(axis) + 1 for axis in zip(*voxels)))
        assert crop(labels == part.index, part.box).sum() == part.voxels


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_keep_largest_treats_every_item_by_itself(backend, count, dtype):
    mask = torch.rand((2, 1, 5, 7, 6), generator=torch.Generator().manual_seed(4)) < 0.15
    mask[1] = mask[0].flip(-1)
    kept = keep_largest(mask.to(dtype), count, connectivity=1)
    assert kept.dtype == dtype and kept.shape == mask.shape
    for item in range(2):
        chosen = sorted(itertools.chain(*flood(mask[item, 0], 1)[:count]))
        assert sorted(map(tuple, kept[item, 0].nonzero().tolist())) == chosen


def test_values_of_what_stays_are_kept_and_nothing_stays_of_nothing(backend):
    mask = torch.tensor([[[3.0, 3.0, 0.0, 2.0]]])
    assert keep_largest(mask).tolist() == [[[3.0, 3.0, 0.0, 0.0]]]
    labels, found = connected_components(torch.zeros(2, 3, 4))
    assert found == [] and not labels.any() and not keep_largest(torch.zeros(2, 3, 4)).any()


def test_two_axes(backend):
    mask = torch.tensor([[1, 0, 1], [0, 1, 0]])
    assert [part.voxels for part in connected_components(mask, spatial_dims=2)[1]] == [3]
    assert [part.voxels for part in connected_components(mask, 1, spatial_dims=2)[1]] == [1, 1, 1]


def test_holes_of_the_volume_and_of_slices():
    shell = torch.ones(1, 1, 5, 5, 5, dtype=torch.uint8)
    shell[..., 1:4, 1:4, 1:4] = 0
    filled = fill_holes(shell)
    assert filled.dtype == torch.uint8 and filled.all()
    tube = shell.clone()
    tube[..., 2, 2, :] = 0
    assert torch.equal(fill_holes(tube), tube)
    across = fill_holes(tube, axis=2)
    assert across[..., 1:4].all() and across.all()
    along = fill_holes(tube, axis=0)
    assert torch.equal(along[..., 2, :, :], tube[..., 2, :, :]) and along[..., 1, :, :].all()


@pytest.fixture(params=[1, 50])
def pieces(request, monkeypatch):
    """Work on pieces far smaller than a volume, as is done on large ones."""
    monkeypatch.setattr(module, "_PIECE", request.param)
    monkeypatch.setattr(module, "_SLICES", 4)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 11, 12, 13), (1, 9, 1, 14), (1, 1, 1, 1), (2, 10, 3, 9)])
def test_holes_equal_those_of_scipy(backend, pieces, shape, axis):
    for share in (0.0, 0.3, 0.7, 0.95, 1.0):
        masks = torch.rand(shape, generator=torch.Generator().manual_seed(5)) < share
        before = masks.clone()
        filled = fill_holes(masks, axis)
        for item, mask in zip(filled.numpy(), masks.numpy(), strict=True):
            planes = [mask] if axis is None else np.moveaxis(mask, axis, 0)
            expected = np.stack([ndimage.binary_fill_holes(plane) for plane in planes])
            assert np.array_equal(item, expected[0] if axis is None else np.moveaxis(expected, 0, axis))
        assert torch.equal(masks, before)


def test_pieces_do_not_show(backend, pieces, monkeypatch):
    mask = torch.rand((9, 10, 11), generator=torch.Generator().manual_seed(4)) < 0.05
    few, (labels, found) = [keep_largest(mask, count) for count in (1, 2, 20)], connected_components(mask)
    sizes = [part.voxels for part in found]
    assert len(sizes) > 21 and sizes[19] == sizes[20] < sizes[0]  # with ties, one of them at the cut
    monkeypatch.setattr(module, "_PIECE", 2**20)
    again, parts = connected_components(mask)
    assert torch.equal(again, labels) and parts == found
    for count, kept in zip((1, 2, 20), few, strict=True):
        assert torch.equal(kept, keep_largest(mask, count))
        chosen = torch.tensor([part.index for part in found[:count]])
        assert torch.equal(kept, torch.isin(labels, chosen))


def test_a_meta_tensor_stays_one_and_nothing_is_written_to():
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    mask = MetaTensor(torch.rand((1, 6, 7, 8), generator=torch.Generator().manual_seed(4)) < 0.5, affine=affine)
    before = mask.clone()
    for given in (mask, mask.to(torch.uint8)):
        for found in (keep_largest(given, 1), keep_largest(given, 10**6), fill_holes(given), fill_holes(given, 2)):
            assert isinstance(found, MetaTensor) and torch.equal(found.affine, affine) and found.dtype == given.dtype
            found.fill_(0)
            assert torch.equal(given.as_tensor() != 0, before.as_tensor())


def test_a_diagonal_wall_holds_water():
    ring = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert fill_holes(ring, spatial_dims=2)[1, 1] == 1


def test_errors_name_the_rule():
    with pytest.raises(InputError, match="connectivity 4.*1 to 3"):
        connected_components(torch.ones(2, 2, 2), 4)
    with pytest.raises(InputError, match=r"\(2, 1, 4, 4, 4\).*one volume"):
        connected_components(torch.ones(2, 1, 4, 4, 4))
