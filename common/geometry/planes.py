"""The planes of a volume on which somebody has drawn, found from the voxels that were drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["covering_planes", "on_planes"]

_STRAY = 0.01  # of the voxels of the fullest plane


def covering_planes(drawn: np.ndarray) -> list[list[int]]:
    """A small set of planes, across any of the three axes, that holds what was drawn.

    Planes are taken one by one: the one on which most of what no plane holds yet lies, in voxels times their share of
    the plane. Only voxels with a drawn neighbour along both axes of the plane count for it as long as there are any,
    since a plane of another axis is crossed in lines. Lines and single voxels go to the axis that most planes were
    found across. A plane that adds less than a hundredth of what the fullest holds is left out: a slip of the pen
    annotates no plane.

    Args:
        drawn: X Y Z, bool.

    Returns:
        for each axis the indices of its planes, rising.

    >>> drawn = np.zeros((6, 5, 4), bool)
    >>> drawn[2], drawn[:, :, 3] = True, True
    >>> covering_planes(drawn)
    [[2], [], [3]]
    """
    some = [np.flatnonzero(drawn.any(_others(axis))) for axis in range(3)]
    if not some[0].size:
        return [[], [], []]
    start = [int(of_axis[0]) for of_axis in some]
    areas = [drawn.size / size for size in drawn.shape]
    drawn = drawn[tuple(slice(of_axis[0], of_axis[-1] + 1) for of_axis in some)]
    held = _take(drawn, areas)
    kept = [plane for plane, count in held.items() if count >= _STRAY * max(held.values())]
    return [sorted(start[axis] + index for across, index in kept if across == axis) for axis in range(3)]


def on_planes(shape: Sequence[int], planes: Sequence[Sequence[int]]) -> np.ndarray:
    """The voxels of a volume that lie on any of the planes.

    Args:
        shape: X Y Z.
        planes: for each axis the indices of the planes across it.

    Returns:
        X Y Z, bool.
    """
    mask = np.zeros(tuple(shape), bool)
    for axis, indices in enumerate(planes):
        for index in indices:
            mask[_span(axis, index)] = True
    return mask


def _take(drawn: np.ndarray, areas: Sequence[float]) -> dict[tuple[int, int], int]:
    """Planes (axis, index) in the order taken, and how many drawn voxels each holds that no earlier one does.

    Args:
        drawn: X Y Z, bool, not empty.
        areas: voxels of a whole plane across each axis.
    """
    left = drawn.copy()
    wide = [_wide(drawn, axis) for axis in range(3)]
    # for each axis: of every plane across it, the voxels left, and those of them that are wide on it
    all_left = [left.sum(_others(axis)) for axis in range(3)]
    wide_left = [wide[axis].sum(_others(axis)) for axis in range(3)]
    taken: dict[tuple[int, int], int] = {}
    while all_left[0].any():
        if any(of_axis.any() for of_axis in wide_left):
            scores = [of_axis.astype(float) ** 2 / area for of_axis, area in zip(wide_left, areas, strict=True)]
        else:  # a line lies on two planes and a voxel on three, with as many voxels on each
            scores = all_left
        used = [sum(across == axis for across, _ in taken) for axis in range(3)]
        axis = max(range(3), key=lambda axis: (scores[axis].max(), used[axis]))
        index = int(scores[axis].argmax())
        taken[axis, index] = int(all_left[axis][index])
        at = _span(axis, index)
        gone = left[at].copy()
        for other in range(3):
            wide_gone = gone & wide[other][at]
            if other == axis:
                all_left[other][index] = wide_left[other][index] = 0
                continue
            # in the plane, the remaining axes keep their order
            along = 1 - [rest for rest in range(3) if rest != axis].index(other)
            all_left[other] -= gone.sum(along)
            wide_left[other] -= wide_gone.sum(along)
        left[at] = False
    return taken


def _wide(drawn: np.ndarray, axis: int) -> np.ndarray:
    """Drawn voxels with a drawn neighbour along both axes of the plane across `axis`."""
    wide = drawn.copy()
    for along in _others(axis):
        beside = np.zeros_like(drawn)
        first, last = _span(along, slice(None, -1)), _span(along, slice(1, None))
        beside[first] |= drawn[last]
        beside[last] |= drawn[first]
        wide &= beside
    return wide


def _others(axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != axis)


def _span(axis: int, part: slice | int) -> tuple[slice | int, ...]:
    return tuple(part if other == axis else slice(None) for other in range(3))
