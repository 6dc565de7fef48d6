"""Volumes whose voxels lie on one lattice: other axes first, axes reversed, a part of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LatticeMap", "OffLattice", "lattice_map"]

_BESIDE = 0.05  # shares of a voxel's edge: what headers lose by rounding stays below
_FLAT = 1e-6  # volume of a voxel with edges of length 1
_TURNED = 1e-2  # of the cosine of an angle, and of a ratio of edges, where a fault is named


class OffLattice(ValueError):
    """Why the voxels of two volumes do not lie on one lattice: which of spacing, orientation and position differs."""


@dataclass(frozen=True)
class LatticeMap:
    """Where the voxels of one volume lie among those of another.

    Voxel ``t`` of the other volume, along its axis ``i``, is voxel ``s`` of this one with
    ``t[i] = signs[i] * s[axes[i]] + offset[i]``.

    Args:
        axes: for each axis of the other volume, the axis of this one.
        signs: 1, or -1 where the axis runs the other way.
        offset: index, along each axis of the other volume, at which voxel 0 lies.
    """

    axes: tuple[int, int, int]
    signs: tuple[int, int, int]
    offset: tuple[int, int, int]

    @property
    def permuted(self) -> bool:
        """Whether the axes come in another order."""
        return self.axes != (0, 1, 2)

    @property
    def flipped(self) -> tuple[int, ...]:
        """Axes of the other volume along which this one runs the other way."""
        return tuple(axis for axis, sign in enumerate(self.signs) if sign < 0)

    def turn(self, array: np.ndarray) -> np.ndarray:
        """The voxels in the other volume's order of axes and directions; a view.

        Args:
            array: A B C, of this volume.

        Returns:
            X Y Z, axes as those of the other volume.
        """
        steps = tuple(slice(None, None, sign) for sign in self.signs)
        return array.transpose(self.axes)[steps]

    def start(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Index in the other volume of the first voxel of what `turn` gives, negative where it begins before it.

        Args:
            shape: A B C, of this volume before it is turned.
        """
        sizes = [shape[axis] for axis in self.axes]
        return tuple(
            first if sign > 0 else first - size + 1
            for first, sign, size in zip(self.offset, self.signs, sizes, strict=True)
        )


def lattice_map(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> LatticeMap:
    """Where the voxels of a volume lie among those of another, when both lie on one lattice.

    Reading: they do when no voxel centre of the volume lies more than a twentieth of an edge beside the lattice, along
    any axis. Headers round: a quaternion of single precision moves the far end of 500 voxels by a thousandth.

    Args:
        affine: 4x4, voxels to world, of the volume.
        other: 4x4, voxels to the same world, of the other volume.
        shape: A B C, of the volume.

    Returns:
        the map.

    Raises:
        OffLattice: naming what differs.

    >>> lattice_map(np.diag([2.0, -1, 1, 1]), np.diag([2.0, 1, 1, 1]), (4, 5, 6)).flipped
    (1,)
    """
    ours, theirs = np.asarray(affine, float), np.asarray(other, float)
    for what in (ours, theirs):
        edges = np.linalg.norm(what[:3, :3], axis=0)
        if not edges.all() or abs(np.linalg.det(what[:3, :3] / edges)) < _FLAT:
            raise OffLattice("no volume: an affine of them has no inverse")
    matrix = np.linalg.inv(theirs) @ ours
    whole = np.rint(matrix)
    linear = whole[:3, :3]
    if not np.array_equal(np.abs(linear).sum(0), (1, 1, 1)) or not np.array_equal(np.abs(linear).sum(1), (1, 1, 1)):
        raise OffLattice(_difference(ours, theirs))
    corners = np.stack(np.meshgrid(*[(0, max(size - 1, 0)) for size in shape], [1], indexing="ij")).reshape(4, -1)
    if np.abs((matrix - whole) @ corners).max() > _BESIDE:
        raise OffLattice(_difference(ours, theirs))
    axes = tuple(int(axis) for axis in np.abs(linear).argmax(1))
    return LatticeMap(
        axes=axes,  # type: ignore[arg-type]
        signs=tuple(int(linear[row, axis]) for row, axis in enumerate(axes)),  # type: ignore[arg-type]
        offset=tuple(int(value) for value in whole[:3, 3]),  # type: ignore[arg-type]
    )


def _difference(ours: np.ndarray, theirs: np.ndarray) -> str:
    """What differs, edges first, since these are read off most easily."""
    edges, other = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (ours, theirs))
    cosines = (theirs[:3, :3] / other).T @ (ours[:3, :3] / edges)
    nearest = np.abs(cosines).argmax(1)
    if (np.abs(np.abs(cosines).max(1) - 1) > _TURNED).any():
        degrees = np.degrees(np.arccos(np.clip(np.abs(cosines).max(1).min(), 0, 1)))
        return f"another orientation: an axis is turned by {degrees:.1f} degrees"
    if (np.abs(edges[nearest] / other - 1) > _TURNED).any():
        return f"another spacing: edges {_numbers(edges[nearest])} beside {_numbers(other)}"
    shift = (np.linalg.inv(theirs) @ ours)[:3, 3]
    return f"another position: its first voxel lies at voxel ({_numbers(shift, ', ')}), which is between voxels"


def _numbers(values: np.ndarray, between: str = " x ") -> str:
    return between.join(f"{value:.4g}" for value in values)
