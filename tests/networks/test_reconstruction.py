"""From projections to a volume: filtration, back-projection and their consensus."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.geometry.projection import direction_angles, project
from common.networks.reconstruction import Consensus, Filtration, Reconstruction


def test_filters_are_centred_and_the_detector_goes_on():
    mask = torch.tensor([2.0, 4.0, 0.0, 6.0]).reshape(1, 1, 1, 1, 4)
    with torch.no_grad():
        assert Filtration(1, 1, 2)(mask).flatten().tolist() == [2.0, 3.0, 2.0, 3.0, 6.0]
        assert Filtration(1, 1, 0)(mask).flatten().tolist() == [2.0, 2.0, 4.0, 0.0, 6.0, 6.0]
        for size in range(1, 6):
            filtered = Filtration(1, 1, size)(mask)
            assert filtered.shape[-1] == (6 if size % 2 else 5)
            torch.testing.assert_close(Filtration(1, 1, size)(mask.flip(-1)), filtered.flip(-1))


@torch.no_grad()
def test_ramp_inverts_sum_projections():
    """T's pooling and normalisation aside, F and R at their start are filtered back-projection."""
    size, directions = 33, 90
    grid = torch.linspace(-1, 1, size)
    disk = ((grid[:, None] ** 2 + grid[None] ** 2) < 0.36).float()[None, None, :, None, :]
    angles = direction_angles(directions)
    part = Reconstruction(directions, 1, 2 * size - 1, "ramp")
    part.consensus.norm = nn.Identity()
    inverted = part(project(disk, angles, "sum", "full"), angles, size, size)
    inner = grid[:, None] ** 2 + grid[None] ** 2 < 0.25
    assert (inverted[0, 0, :, 0, :][inner] - 1).abs().mean() < 0.02
    assert (inverted - disk)[0, 0].square().mean().sqrt() < 0.1


@torch.no_grad()
def test_logits_of_all_and_of_no_directions():
    angles = direction_angles(12)
    for size, init in ((0, "mean"), (2, "mean")):
        part = Reconstruction(12, 1, size, init)
        for value, sign in ((0.0, -1), (1.0, 1)):
            logits = part(torch.full((1, 12, 1, 3, 16), value), angles, 5, 16)
            centre = logits[0, 0, :, :, 6:10]
            assert (centre * sign > 2).all()


def test_pooling_is_the_mean_of_eight_corners():
    x = torch.rand(1, 2, 4, 5, 2)
    pooled = Consensus(2, 1.0)
    pooled.norm = nn.Identity()
    expected = torch.nn.functional.avg_pool3d(x, 2, stride=1)
    torch.testing.assert_close(pooled(x), expected)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@torch.no_grad()
def test_nothing_moves_and_the_border_stays_bright(size):
    part = Reconstruction(2, 1, size)
    part.consensus.norm = nn.Identity()
    masks = torch.rand(1, 2, 1, 6, 5)
    logits = part(masks, [0.0, 90.0], 5, 5)
    mirrored = part(masks.flip(3, 4), [0.0, 90.0], 5, 5)
    torch.testing.assert_close(mirrored, logits.flip(2, 3, 4))
    torch.testing.assert_close(part(torch.ones_like(masks), [0.0, 90.0], 5, 5), torch.full((1, 1, 5, 6, 5), 2.0))
