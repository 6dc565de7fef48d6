"""Connected components against a flood fill, with and without the fast library."""

import itertools

import pytest
import torch

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


def test_a_diagonal_wall_holds_water():
    ring = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert fill_holes(ring, spatial_dims=2)[1, 1] == 1


def test_errors_name_the_rule():
    with pytest.raises(InputError, match="connectivity 4.*1 to 3"):
        connected_components(torch.ones(2, 2, 2), 4)
    with pytest.raises(InputError, match=r"\(2, 1, 4, 4, 4\).*one volume"):
        connected_components(torch.ones(2, 1, 4, 4, 4))
