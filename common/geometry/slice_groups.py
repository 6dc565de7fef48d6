"""Planes of a volume in groups of which one is held out: drawn, spread, and how far they stand apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .planes import on_planes

__all__ = ["beside_share", "crossed_share", "plane_mask", "split_slices", "spread_slices"]


def spread_slices(count: int, size: int) -> list[int]:
    """The planes at the middles of `count` equal parts of an axis of `size` voxels.

    >>> spread_slices(3, 60)
    [10, 30, 50]
    """
    return [int((2 * part + 1) * size / (2 * count)) for part in range(count)]


def split_slices(planes: Sequence[Sequence[int]], folds: int, seed: int = 0) -> list[list[list[int]]]:
    """Split annotated planes of three axes into `folds` groups that each spread over the volume and over the axes.

    Neighbouring planes of an axis go to different groups, in an order drawn from `seed`; the groups' sizes, all axes
    together, differ by one plane at most, and an axis with at least `folds` planes has some in every group.

    Args:
        planes: indices of the annotated planes, per axis, ascending.
        folds: number of groups.
        seed: seed of the order.

    Returns:
        the planes of each group, per axis, ascending.
    """
    random = np.random.RandomState(seed)
    groups: list[list[list[int]]] = [[[] for _ in planes] for _ in range(folds)]
    sizes = np.zeros(folds, dtype=int)
    for axis, indices in enumerate(planes):
        for start in range(0, len(indices), folds):
            run = indices[start : start + folds]
            # a run shorter than the number of groups goes to those that have fewest
            chosen = np.lexsort((random.rand(folds), sizes))[: len(run)]
            for index, group in zip(run, random.permutation(chosen), strict=True):
                groups[group][axis].append(int(index))
                sizes[group] += 1
    return groups


def crossed_share(groups: Sequence[Sequence[Sequence[int]]], values: torch.Tensor, ignore_index: int) -> float:
    """Of the labelled voxels on held-out planes, all folds together, the share that lies on planes of training."""
    times = torch.stack([plane_mask(group, values) for group in groups]).sum(0, dtype=torch.int16)
    times[values == ignore_index] = 0
    return float(times[times > 1].sum()) / max(float(times.sum()), 1.0)


def beside_share(groups: Sequence[Sequence[Sequence[int]]]) -> float:
    """Of the two sides of every held-out plane, all folds together, the share at which a plane of training lies."""
    group_of = {
        (axis, index): number
        for number, group in enumerate(groups)
        for axis, indices in enumerate(group)
        for index in indices
    }
    beside = [
        group_of.get((axis, index + side), number) != number
        for (axis, index), number in group_of.items()
        for side in (-1, 1)
    ]
    return sum(beside) / max(len(beside), 1)


def plane_mask(planes: Sequence[Sequence[int]], values: torch.Tensor) -> torch.Tensor:
    """Mask of the shape of `values` (1, D, H, W), on its device: True on any of the planes."""
    return torch.from_numpy(on_planes(values.shape[1:], planes))[None].to(values.device)
