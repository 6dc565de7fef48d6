"""Draw labelled voxels, and read patches around them: whole voxels or any positions, mirrored or filled outside."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["ClassVoxels", "LabelledVoxels", "crop_patch", "mirror_positions", "sample_positions"]


def mirror_positions(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Fold positions that lie outside 0 .. size-1 back in, mirrored at the centres of the border voxels.

    Args:
        positions: voxel positions along one axis, any shape, whole or fractional.
        size: voxels of the axis.

    Returns:
        positions within [0, size - 1]; the same tensor where nothing lies outside.

    >>> mirror_positions(torch.tensor([-2, 0, 3, 4, 7]), 4).tolist()
    [2, 0, 3, 2, 1]
    """
    if positions.numel() == 0 or (positions.amin() >= 0 and positions.amax() <= size - 1):
        return positions
    if size == 1:
        return torch.zeros_like(positions)
    last = size - 1
    return last - (torch.remainder(positions, 2 * last) - last).abs()


def crop_patch(volume: torch.Tensor, start: Sequence[int], size: Sequence[int], fill: float | None) -> torch.Tensor:
    """Copy the box of `size` voxels that begins at `start` and may reach beyond the volume.

    Args:
        volume: shape (C, D, H, W).
        start: first voxel of the box per axis; may be negative.
        size: voxels of the box per axis.
        fill: value beyond the volume; None mirrors the volume there.

    Returns:
        a new tensor of shape (C, *size), type of `volume`.
    """
    outside = []
    for axis, (first, count, voxels) in enumerate(zip(start, size, volume.shape[1:], strict=True), start=1):
        index = torch.arange(first, first + count, device=volume.device)
        outside.append((index < 0) | (index >= voxels))
        index = mirror_positions(index, voxels) if fill is None else index.clamp(0, voxels - 1)
        volume = volume.index_select(axis, index)
    if fill is not None:
        for axis, beyond in enumerate(outside, start=1):
            if beyond.any():
                volume.index_fill_(axis, beyond.nonzero().flatten(), fill)
    return volume


def sample_positions(
    volume: torch.Tensor, field: torch.Tensor, centre: Sequence[int], fill: float | None, nearest: bool = False
) -> torch.Tensor:
    """Sample a volume at ``centre + field``; only the part of the volume that is needed is read and converted.

    Args:
        volume: shape (C, D, H, W), any real type.
        field: float32 positions in voxels relative to `centre`, shape (3, d, h, w), on the volume's device.
        centre: voxel of the volume that the field's zero stands for.
        fill: value beyond the volume; None mirrors the volume there.
        nearest: take the nearest voxel instead of interpolating linearly.

    Returns:
        float32 tensor of shape (C, d, h, w); with `nearest`, the volume's own type.
    """
    grid, box = torch.empty_like(field), []
    for axis, voxels in enumerate(volume.shape[1:]):
        offsets, origin = field[axis], int(centre[axis])
        low, high = (float(bound) + origin for bound in offsets.aminmax())
        if fill is None and (low < 0 or high > voxels - 1):
            offsets = mirror_positions(offsets + origin, voxels) - origin
            low, high = (float(bound) + origin for bound in offsets.aminmax())
        first, last = (min(max(int(bound), 0), voxels - 1) for bound in (math.floor(low), math.ceil(high)))
        box.append(slice(first, last + 1))
        # voxel centres to grid_sample's -1 .. 1 with align_corners=False, which alone is right for an axis of one
        # voxel; offsets stay small numbers, so that float32 keeps them exact to about 1e-5 voxel
        count = last - first + 1
        torch.mul(offsets, 2.0 / count, out=grid[axis]).add_((2.0 * (origin - first) + 1.0) / count - 1.0)
    part = volume[(slice(None), *box)].to(torch.float32)
    if fill:
        part = part - fill  # grid_sample fills with zeros
    sampled = F.grid_sample(
        part.permute(0, 3, 2, 1)[None],  # its first coordinate belongs to the last axis: turn the view, not the grid
        grid.permute(1, 2, 3, 0)[None],
        mode="nearest" if nearest else "bilinear",
        padding_mode="border" if fill is None else "zeros",
        align_corners=False,
    )[0]
    if fill:
        sampled += fill
    return (
        sampled.round_().to(volume.dtype)
        if nearest and not volume.is_floating_point()
        else sampled.to(volume.dtype if nearest else torch.float32)
    )


class LabelledVoxels:
    """The voxels of a label volume (D, H, W) that have none of some values, counted slab by slab.

    One pass over the volume and no list of indices, so that drawing stays cheap where a volume has 10^8 voxels.
    """

    def __init__(self, labels: torch.Tensor, without: tuple[int, ...]) -> None:
        self.labels, self.without = labels, without
        self.ends = np.cumsum([int(torch.count_nonzero(self._mask(slab))) for slab in range(len(labels))])
        self.total = int(self.ends[-1]) if len(self.ends) else 0

    def _mask(self, slab: int) -> torch.Tensor:
        mask = self.labels[slab] != self.without[0]
        for value in self.without[1:]:
            mask &= self.labels[slab] != value
        return mask

    def voxel(self, rank: int) -> tuple[int, int, int]:
        """The voxel number `rank` of those counted, in the order of the array."""
        slab = int(np.searchsorted(self.ends, rank, side="right"))
        before = int(self.ends[slab - 1]) if slab else 0
        row, column = self._mask(slab).nonzero()[rank - before].tolist()
        return slab, row, column


class ClassVoxels:
    """How many voxels of one class a label volume (D, H, W) has in each slab: numbers only, to be kept for later draws.

    Args:
        labels: the volume.
        value: the class.

    >>> labels = torch.tensor([[[0, 1]], [[2, 1]]])
    >>> ones = ClassVoxels(labels, 1)
    >>> [ones.voxel(labels, rank) for rank in range(ones.total)]
    [(0, 0, 1), (1, 0, 1)]
    """

    def __init__(self, labels: torch.Tensor, value: int) -> None:
        self.value = value
        self.ends = (labels == value).flatten(1).sum(1).cumsum(0).cpu().numpy()
        self.total = int(self.ends[-1]) if len(self.ends) else 0

    def voxel(self, labels: torch.Tensor, rank: int) -> tuple[int, int, int]:
        """The voxel number `rank` of those counted in the same `labels`, in the order of the array."""
        slab = int(np.searchsorted(self.ends, rank, side="right"))
        before = int(self.ends[slab - 1]) if slab else 0
        row, column = (labels[slab] == self.value).nonzero()[rank - before].tolist()
        return slab, row, column
