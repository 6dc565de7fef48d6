"""Means and majorities of blocks of voxels, against a count block by block."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry import blocks
from common.geometry.blocks import block_majority, block_mean
from common.geometry.subsampling import parse_factor, upsample_nearest

GRIDS = [
    ((6, 4, 8), 2),
    ((7, 5, 9), (2, 3, 1)),
    ((1, 2, 3), (2, 2, 4)),
    ((5, 1, 1), (1, 1, 1)),
    ((4, 5, 4), (9, 1, 4)),
]


def each_block(volume: np.ndarray, factor) -> dict[tuple[int, ...], np.ndarray]:
    steps = parse_factor(factor)
    coarse = [-(-length // step) for length, step in zip(volume.shape, steps)]
    return {
        place: volume[tuple(slice(i * step, (i + 1) * step) for i, step in zip(place, steps))]
        for place in np.ndindex(*coarse)
    }


@pytest.mark.parametrize("size, factor", GRIDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int64, torch.float32, torch.float64])
def test_mean_of_every_block(size, factor, dtype):
    volume = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (2, 1, *size))).to(dtype)
    result = block_mean(volume, factor)
    assert result.dtype == (torch.float64 if dtype in (torch.int64, torch.float64) else torch.float32)
    for item in range(2):
        expected = each_block(volume[item, 0].numpy(), factor)
        assert result.shape == (2, 1, *map(lambda last: last + 1, list(expected)[-1]))
        for place, block in expected.items():
            assert result[(item, 0, *place)].item() == pytest.approx(block.mean(dtype=np.float64), rel=1e-6)


def test_mean_of_a_ramp_is_its_value_at_the_centre_of_the_block():
    """Where the coarse voxel lies: (factor - 1) / 2 from the first of its block, along every axis."""
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (6, 8, 9)], indexing="ij")
    ramp = 2 * axes[0] - 3 * axes[1] + 0.5 * axes[2]
    centres = [torch.arange(n // f) * f + (f - 1) / 2 for n, f in zip((6, 8, 9), (2, 4, 3))]
    coarse = torch.meshgrid(*centres, indexing="ij")
    torch.testing.assert_close(block_mean(ramp, (2, 4, 3)).float(), 2 * coarse[0] - 3 * coarse[1] + 0.5 * coarse[2])


def test_mean_of_large_whole_numbers_is_exact():
    volume = torch.tensor([2**30, 2**30 + 2]).reshape(1, 1, 2)
    assert block_mean(volume, 2).item() == 2**30 + 1


@pytest.mark.parametrize("size, factor", GRIDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("ignore_index, least", [(None, 0.0), (3, 0.0), (3, 0.5), (3, 1.0), (0, 0.0), (255, 0.0)])
def test_majority_of_every_block(size, factor, dtype, ignore_index, least):
    drawn = np.random.default_rng(1).integers(0, 4, (2, *size))
    label = torch.from_numpy(np.where(drawn == 3, ignore_index if ignore_index == 255 else 3, drawn))
    if ignore_index == 255 and dtype != torch.uint8:
        label[label == 2] = -1  # numbers below zero are labels like others
    result = block_majority(label.to(dtype), factor, ignore_index, least)
    assert result.dtype == dtype
    for item in range(2):
        for place, block in each_block(label[item].numpy(), factor).items():
            counts = Counter(value for value in block.ravel().tolist() if value != ignore_index)
            if not counts or sum(counts.values()) < least * block.size:
                expected = ignore_index
            else:
                expected = min(value for value, count in counts.items() if count == max(counts.values()))
            assert result[(item, *place)].item() == expected


def test_an_annotated_plane_stays_whole():
    label = torch.full((9, 8, 6), 3)
    label[4], label[:, :, 3] = 1, 2
    coarse = block_majority(label, 2, ignore_index=3)
    assert (coarse[2, :, [0, 2]] == 1).all() and (coarse[[0, 1, 3, 4], :, 1] == 2).all()
    assert (coarse == 3).sum() == coarse.numel() - 4 * 3 - 5 * 4 + 4
    assert (block_majority(label, 2, ignore_index=3, least=0.9)[:4] == 3).all()


@pytest.mark.parametrize("size, factor", GRIDS)
def test_blocks_of_one_label_lead_there_and_back(size, factor):
    steps = parse_factor(factor)
    coarse = torch.randint(0, 9, [-(-n // f) for n, f in zip(size, steps)], generator=torch.Generator().manual_seed(0))
    fine = upsample_nearest(coarse, factor, size)
    assert torch.equal(block_majority(fine, factor), coarse)
    torch.testing.assert_close(block_mean(fine, factor), coarse.double())


def test_large_volumes_go_slab_by_slab(monkeypatch):
    label = torch.randint(0, 5, (2, 9, 8, 7), generator=torch.Generator().manual_seed(0))
    expected = block_majority(label, (2, 3, 2), ignore_index=4)
    for room in (1, 2 * 2 * 8 * 7, 10**9):
        monkeypatch.setattr(blocks, "_ROOM", room)
        assert torch.equal(block_majority(label, (2, 3, 2), ignore_index=4), expected)


def test_metadata_that_would_be_stale_is_left_behind():
    volume = MetaTensor(torch.ones(1, 4, 4, 4, dtype=torch.uint8))
    assert type(block_mean(volume, 2)) is torch.Tensor and type(block_majority(volume, 2)) is torch.Tensor


@pytest.mark.gpu
def test_gpu_agrees():
    label = torch.randint(0, 5, (2, 9, 8, 7), dtype=torch.uint8)
    assert torch.equal(block_majority(label.cuda(), 2, 4).cpu(), block_majority(label, 2, 4))
    torch.testing.assert_close(block_mean(label.cuda(), 2).cpu(), block_mean(label, 2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: block_mean(torch.zeros(4, 4), 2), r"has shape \(4, 4\): it must have three axes in space"),
        (lambda: block_majority(torch.zeros(4, 0, 4, dtype=int), 2), r"\(4, 0, 4\): .* none empty"),
        (lambda: block_mean(torch.zeros(4, 4, 4), 0), "downsampling factor 0 was given"),
        (lambda: block_majority(torch.zeros(4, 4, 4), 2), "label of float32.*labels are whole numbers"),
        (lambda: block_majority(torch.zeros(4, 4, 4, dtype=int), 2, least=2), "least is 2: it is a share"),
    ],
)
def test_wrong_input_is_named(call, text):
    with pytest.raises(InputError, match=text):
        call()
