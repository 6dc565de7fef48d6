"""A volume on blocks of voxels: the mean of grey values, the label that most of a block has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from monai.utils import convert_to_tensor
from torch.nn import functional as F

from ..checks import InputError, problem
from .subsampling import parse_factor

__all__ = ["block_majority", "block_mean"]

_ROOM = 2**24  # voxels that are compared at a time


def block_mean(volume: torch.Tensor, factor: Sequence[int] | int) -> torch.Tensor:
    """Mean of every block of `factor` voxels of the last three axes, the first block beginning with the first voxel.

    cicek2016unet3d works on volumes down-sampled by two (section 3). Reading: means of blocks, which average noise away
    and let no structure fall between two voxels; the paper does not say how it was done.

    The mean lies at its block's centre, ``(factor - 1) / 2`` voxels from its first voxel. A block that the volume's end
    cuts is the mean of what it holds. :func:`~common.geometry.subsampling.upsample_nearest` leads back.

    Args:
        volume: ``... D H W``, any real dtype.
        factor: voxels of a block, one number for all axes or one for each.

    Returns:
        ``... ceil(D/f) ceil(H/f) ceil(W/f)``, a plain tensor, float32; float64 for float64 and for whole numbers of 32
        bits or more.

    >>> block_mean(torch.arange(5).reshape(1, 1, 5), (1, 1, 2)).flatten().tolist()
    [0.5, 2.5, 4.0]
    """
    sizes = parse_factor(factor)
    volume = _volume(volume)
    wide = volume.dtype in (torch.float64, torch.int32, torch.int64, torch.uint32, torch.uint64)
    flat = volume.reshape(-1, 1, *volume.shape[-3:]).to(torch.float64 if wide else torch.float32)
    kernel = [min(size, length) for size, length in zip(sizes, volume.shape[-3:])]
    return F.avg_pool3d(flat, kernel, ceil_mode=True).reshape(*volume.shape[:-3], *_coarse(volume.shape[-3:], sizes))


def block_majority(
    label: torch.Tensor, factor: Sequence[int] | int, ignore_index: int | None = None, least: float = 0.0
) -> torch.Tensor:
    """The most frequent label of every block of `factor` voxels of the last three axes; of two as frequent the smaller.

    Unlabelled voxels have no say: a block takes the label of most of its labelled ones, so that a plane annotated one
    voxel thick is a whole plane of the coarse grid, and no hole.

    Args:
        label: ``... D H W``, whole numbers of any dtype.
        factor: voxels of a block, one number for all axes or one for each.
        ignore_index: label of unlabelled voxels; None where all are labelled.
        least: share of a block's voxels that must be labelled, else it is unlabelled. With 0 one voxel is enough.

    Returns:
        ``... ceil(D/f) ceil(H/f) ceil(W/f)`` of the same dtype, a plain tensor; `label` itself where the factor is 1.

    Raises:
        InputError: for a label that is no volume or of no whole numbers, or a share outside 0 to 1.

    >>> block_majority(torch.tensor([[[1, 2, 2, 3, 3, 3]]]), (1, 1, 3), ignore_index=3).tolist()
    [[[2, 3]]]
    """
    sizes = parse_factor(factor)
    label = _volume(label)
    if label.is_floating_point() or label.is_complex():
        came = f"a label of {str(label.dtype).removeprefix('torch.')} is to be brought to blocks"
        raise InputError(problem(came, "labels are whole numbers", "convert it, or take the mean of grey values"))
    if not 0 <= least <= 1:
        raise InputError(problem(f"least is {least!r}", "it is a share of a block, 0 to 1", "leave it out"))
    if sizes == (1, 1, 1):
        return label
    flat = label.reshape(-1, *label.shape[-3:])
    coarse = _coarse(label.shape[-3:], sizes)
    result = label.new_empty((len(flat), *coarse))
    for item, rows, part in _slabs(flat, sizes):
        result[item, rows] = _majority(part, sizes, ignore_index, least)
    return result.reshape(*label.shape[:-3], *coarse)


def _slabs(flat: torch.Tensor, sizes: tuple[int, int, int]) -> Iterator[tuple[int, slice, torch.Tensor]]:
    """Layers of whole blocks of each volume, few enough that comparing their voxels needs little memory."""
    layers = max(_ROOM // (sizes[0] * flat.shape[2] * flat.shape[3]), 1)
    blocks = -(-flat.shape[1] // sizes[0])
    for item, volume in enumerate(flat):
        for first in range(0, blocks, layers):
            last = min(first + layers, blocks)
            yield item, slice(first, last), volume[first * sizes[0] : last * sizes[0]]


def _majority(label: torch.Tensor, sizes: tuple[int, int, int], ignore_index: int | None, least: float) -> torch.Tensor:
    labelled = torch.ones_like(label, dtype=torch.bool) if ignore_index is None else label != ignore_index
    inside = _members(torch.ones_like(labelled), sizes)
    members, has = _members(label, sizes), _members(labelled, sizes)
    counts = [((members == one) & has).sum(0, dtype=torch.int32) * present for one, present in zip(members, has)]
    most = torch.stack(counts).amax(0)
    highest = torch.iinfo(torch.int64).max
    best = torch.full(most.shape, highest, dtype=torch.int64, device=label.device)
    for one, count in zip(members, counts):
        best = torch.where((count == most) & (count > 0), torch.minimum(best, one.long()), best)
    if ignore_index is not None:
        voted = has.sum(0, dtype=torch.int32)
        empty = (voted == 0) | (voted < least * inside.sum(0, dtype=torch.int32))
        best = torch.where(empty, ignore_index, best)
    return best.to(label.dtype)


def _members(volume: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
    """First, second, ... voxels of all blocks along a new first axis; zeros beyond the end of the volume."""
    pads = [0 if axis % 2 == 0 else -volume.shape[2 - axis // 2] % sizes[2 - axis // 2] for axis in range(6)]
    volume = F.pad(volume, pads) if any(pads) else volume
    coarse = [length // size for length, size in zip(volume.shape, sizes)]
    split = volume.reshape(coarse[0], sizes[0], coarse[1], sizes[1], coarse[2], sizes[2])
    return split.permute(1, 3, 5, 0, 2, 4).reshape(-1, *coarse)


def _coarse(size: Sequence[int], sizes: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(-(-int(length) // step) for length, step in zip(size, sizes))


def _volume(volume: torch.Tensor) -> torch.Tensor:
    if volume.ndim < 3 or 0 in volume.shape:
        came = f"the volume to bring to blocks has shape {tuple(volume.shape)}"
        raise InputError(problem(came, "it must have three axes in space, none empty", "give it as (..., D, H, W)"))
    return convert_to_tensor(volume, track_meta=False)
