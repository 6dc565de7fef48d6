"""Which plane to annotate next: the one expected to settle most of what is uncertain, a random one, an even spacing.

Published results disagree on whether a choice by uncertainty pays: slices that were chosen by active learning were no
better than random or evenly spaced ones (zhang2025slices), middle slices of hearts were worth most (stein2024sparse),
uncertainty was rarely better than random choice that is aware of the foreground (luth2025nnactive), and was with
classes balanced and some randomness added (luth2026clasp). So none of them is called best here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_tensor

from ..checks import InputError, problem

__all__ = ["RankedPlane", "even_planes", "random_planes", "rank_planes"]

Planes = Sequence[Sequence[int]]

_REACH = 0.1  # of the side of a cube that is as large as the volume


class RankedPlane(NamedTuple):
    """A plane across an array axis.

    Args:
        axis: the array axis, 0 to 2, that the plane lies across.
        index: its voxel index along that axis, from 0.
        gain: share of the volume's uncertainty that it is expected to settle, given all before it.
    """

    axis: int
    index: int
    gain: float


def rank_planes(
    uncertainty: torch.Tensor | np.ndarray,
    planes: Planes = ((), (), ()),
    count: int = 5,
    axes: Sequence[int] = (0, 1, 2),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    reach: float | None = None,
    candidates: Planes | None = None,
) -> list[RankedPlane]:
    """The planes whose annotation is expected to settle most, best first, each given those before it.

    A plane p settles the share w = exp(-d / reach) of a voxel's uncertainty u, d being the voxel's distance to it. What
    a set S of planes leaves is the sum over voxels of u times the product over S of (1 - w); the gain of a plane is by
    how much it lowers that sum. Planes that are annotated are in S from the start, each ranked plane joins S, so that
    neighbours of both come late, and so do planes at the volume's border, which have neighbours on one side only.
    Each further plane lowers the sum by less (what is settled is submodular), so that the greedy choice settles at
    least 1 - 1/e of what the best planes of that number do (nemhauser1978submodular).

    Reading: the sources rank single slices by their mean uncertainty; the exponential law and its reach are ours.

    Args:
        uncertainty: X Y Z, not negative, 0 where nothing is uncertain.
        planes: annotated planes per array axis; one that is annotated in part counts as whole.
        count: number of planes wanted.
        axes: array axes across which planes may lie.
        spacing: distance of voxels along each array axis, in the unit of `reach`.
        reach: distance at which a plane still settles the share 1/e; a tenth of the side of a cube of the volume's
            size by default.
        candidates: planes per array axis to choose from; all that are not annotated by default.

    Returns:
        at most `count` planes, fewer where no further one has any gain.

    Raises:
        InputError: for a map that is no volume or holds negative or undefined values, planes or axes out of range.

    >>> rank_planes(torch.ones(3, 9, 9), planes=((), (4,), ()), count=1, axes=(1,), reach=1.0)[0][:2]
    (1, 1)
    """
    left = convert_to_tensor(uncertainty, track_meta=False, dtype=torch.float32).clone()
    _check(tuple(left.shape), planes, count, axes, candidates)
    low = left.min()
    if not bool(low >= 0) or not bool(torch.isfinite(left.sum(dtype=torch.float64))):
        came = f"the uncertainty holds values such as {float(low):g}"
        raise InputError(problem(came, "each is a finite number from 0 on", "make the map anew"))
    if len(spacing) != 3 or min(spacing) <= 0 or (reach is not None and reach <= 0):
        came = f"spacing is {tuple(spacing)} and reach {reach}"
        raise InputError(problem(came, "both are distances above 0", "pass for example spacing (1, 1, 1), reach 10"))
    total = float(left.sum(dtype=torch.float64))
    if total == 0:
        return []
    if reach is None:
        reach = _REACH * float(np.prod([size * step for size, step in zip(left.shape, spacing, strict=True)])) ** (
            1 / 3
        )
    settled = [_settled(size, step / reach, left.device) for size, step in zip(left.shape, spacing, strict=True)]
    for axis, indices in enumerate(planes):
        for index in indices:
            _settle(left, settled[axis], axis, index)
    open_planes = _candidates(tuple(left.shape), planes, axes, candidates)
    ranked: list[RankedPlane] = []
    while len(ranked) < count:
        gains = [settled[axis].double() @ profile for axis, profile in enumerate(_profiles(left))]
        told = [profile.tolist() for profile in gains]
        best = max(open_planes, key=lambda plane: told[plane[0]][plane[1]], default=None)
        if best is None or told[best[0]][best[1]] <= 1e-9 * total:
            break
        ranked.append(RankedPlane(*best, told[best[0]][best[1]] / total))
        open_planes.remove(best)
        _settle(left, settled[best[0]], *best)
    return ranked


def random_planes(
    foreground: torch.Tensor | np.ndarray,
    planes: Planes = ((), (), ()),
    count: int = 5,
    axes: Sequence[int] = (0, 1, 2),
    candidates: Planes | None = None,
    seed: int = 0,
) -> list[tuple[int, int]]:
    """Planes drawn with a probability in proportion to the foreground on them, without replacement.

    That is as if a voxel of the foreground were drawn, then one of the planes through it (luth2025nnactive, whose
    foreground-aware random choice centres patches on such voxels). Where no foreground is left, all are as likely.

    Args:
        foreground: X Y Z, not zero where there is (predicted) foreground.
        planes: annotated planes per array axis, which are not drawn.
        count: number of planes wanted.
        axes: array axes across which planes may lie.
        candidates: planes per array axis to choose from; all that are not annotated by default.
        seed: of the draw.

    Returns:
        axis and index of each plane, as drawn; fewer where there are not so many.

    Raises:
        InputError: for a mask that is no volume, planes or axes out of range.
    """
    mask = convert_to_tensor(foreground, track_meta=False) != 0
    _check(tuple(mask.shape), planes, count, axes, candidates)
    counts = [mask.sum([other for other in range(3) if other != axis]).tolist() for axis in range(3)]
    open_planes = _candidates(tuple(mask.shape), planes, axes, candidates)
    random, drawn = np.random.default_rng(seed), []
    while open_planes and len(drawn) < count:
        weights = np.array([counts[axis][index] for axis, index in open_planes], dtype=float)
        weights = weights if weights.any() else np.ones(len(open_planes))
        drawn.append(open_planes.pop(int(random.choice(len(open_planes), p=weights / weights.sum()))))
    return drawn


def even_planes(
    size: Sequence[int],
    planes: Planes = ((), (), ()),
    count: int = 5,
    axes: Sequence[int] = (0, 1, 2),
    candidates: Planes | None = None,
) -> list[tuple[int, int]]:
    """Planes that divide the axes as evenly as those there are allow, each as far from the others as can be.

    The next plane is the one farthest from all planes of its axis, as a share of the axis; the volume's border counts
    as a mirror, so that planes come to lie in the middles of equal parts. Of axes with gaps as wide, the one with
    fewest planes comes first.

    Args:
        size: voxels of the volume along each array axis.
        planes: annotated planes per array axis.
        count: number of planes wanted.
        axes: array axes across which planes may lie.
        candidates: planes per array axis to choose from; all that are not annotated by default.

    Returns:
        axis and index of each plane, in the order of choice; fewer where there are not so many.

    Raises:
        InputError: for a size that is none of a volume, planes or axes out of range.

    >>> even_planes((90, 90, 90), planes=((45,), (), ()), count=2, axes=(0,))
    [(0, 15), (0, 74)]
    """
    _check(tuple(size), planes, count, axes, candidates)
    there = [list(of_axis) for of_axis in planes]
    open_planes = _candidates(tuple(size), planes, axes, candidates)
    chosen: list[tuple[int, int]] = []

    def gap(plane: tuple[int, int]) -> float:
        axis, index = plane
        ends = (2 * index + 1, 2 * (size[axis] - index) - 1)
        return min(*ends, *(abs(index - other) for other in there[axis])) / size[axis]

    def turn(plane: tuple[int, int]) -> tuple[float, int]:
        number = len(there[plane[0]])
        # indices are whole numbers, so that gaps are alike within a hundredth of the axis
        return (round(gap(plane), 2) if number else 1.0), -number

    while open_planes and len(chosen) < count:
        widest = [max((one for one in open_planes if one[0] == axis), key=gap, default=None) for axis in range(3)]
        best = max(filter(None, widest), key=turn)
        chosen.append(best)
        open_planes.remove(best)
        there[best[0]].append(best[1])
    return chosen


def _profiles(volume: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Sums over the planes across each axis, float64; the volume is read twice, and no copy of it made."""
    of_rows, of_planes = volume.sum(2).double(), volume.sum(0).double()
    return of_rows.sum(1), of_rows.sum(0), of_planes.sum(0)


def _settled(size: int, step: float, device: torch.device) -> torch.Tensor:
    """Share that plane i (row) settles at position k (column) of an axis."""
    position = torch.arange(size, dtype=torch.float32, device=device)
    return torch.exp(-step * (position[:, None] - position).abs())


def _settle(left: torch.Tensor, settled: torch.Tensor, axis: int, index: int) -> None:
    """Take from the uncertainty that is left what a plane settles, in place."""
    shape = [1, 1, 1]
    shape[axis] = -1
    left.mul_((1 - settled[index]).reshape(shape))


def _candidates(
    size: tuple[int, ...], planes: Planes, axes: Sequence[int], candidates: Planes | None
) -> list[tuple[int, int]]:
    offered = [range(length) for length in size] if candidates is None else [sorted(set(c)) for c in candidates]
    return [(axis, int(index)) for axis in sorted(set(axes)) for index in offered[axis] if index not in planes[axis]]


def _check(size: tuple[int, ...], planes: Planes, count: int, axes: Sequence[int], candidates: Planes | None) -> None:
    if len(size) != 3 or min(size) < 1:
        came = f"the volume has shape {size}"
        raise InputError(problem(came, "planes are chosen in one of X Y Z", "take one case and one channel"))
    if count < 0 or not set(axes) <= {0, 1, 2} or not axes:
        came = f"{count} planes across the axes {tuple(axes)} were asked for"
        raise InputError(problem(came, "axes are some of 0, 1 and 2, and the number is not negative", "change them"))
    for name, given in (("annotated", planes), ("offered", candidates)):
        if given is None:
            continue
        if len(given) != 3 or any(not 0 <= index < size[axis] for axis, of in enumerate(given) for index in of):
            came = f"the {name} planes are {[list(of) for of in given]} in a volume of {size}"
            raise InputError(problem(came, "they are voxel indices, from 0, along each of three axes", "correct them"))
