"""Curved, branching tubes that pack a box without running through each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from monai.utils import optional_import

CubicSpline, _ = optional_import("scipy.interpolate", name="CubicSpline")

__all__ = ["Tube", "TubeGrower", "tube_fields"]


@dataclass(frozen=True)
class Tube:
    """A tube as dense points along its centre line.

    Args:
        points: N 3, centre line, physical units.
        outer: N, outer radius at each point.
        inner: N, radius of the lumen.
        kind: N, what stretch of the tube the point belongs to.
    """

    points: np.ndarray
    outer: np.ndarray
    inner: np.ndarray
    kind: np.ndarray


@dataclass
class TubeGrower:
    """Grows tubes by a random walk of bounded turning that keeps clear of what has been grown before.

    Args:
        extent: upper corner of the box; the lower one is the origin.
        rng: source of randomness.
        step: length of one step of the walk.
        turn: largest change of direction in one step, radians.
        overlap: how deep two tubes may press into each other, so that some touch.
        spacing: distance between the points of the finished centre line.
    """

    extent: Sequence[float]
    rng: np.random.Generator
    step: float = 10.0
    turn: float = 0.55
    overlap: float = 1.0
    spacing: float = 2.0
    tubes: list[Tube] = field(default_factory=list)

    @property
    def volume(self) -> float:
        """Volume of all tubes so far, lumens included."""
        return sum(float(np.pi * np.square(tube.outer).sum()) * self.spacing for tube in self.tubes)

    def grow(
        self, radius: float, lumen: tuple[float, float], kinds: Sequence[int], longest: float, branch: float = 0.0
    ) -> bool:
        """Try to add one tube; true when there was room for one of at least five radii.

        Args:
            radius: mean outer radius.
            lumen: smallest and largest ratio of the lumen's radius to the outer one, met in turn along the tube.
            kinds: values that `Tube.kind` takes in turn along the tube.
            longest: largest length.
            branch: chance that it starts on the centre line of an earlier tube and not anywhere.
        """
        direction = _unit(self.rng.normal(size=3))
        start = self.rng.uniform(0, self.extent)
        parent = None
        if self.tubes and self.rng.random() < branch:
            tube = self.tubes[self.rng.integers(len(self.tubes))]
            start = parent = tube.points[self.rng.integers(len(tube.points))]
        path = self._walk(start, direction, radius, longest, parent)
        if (len(path) - 1) * self.step < 5 * radius:
            return False
        self.tubes.append(self._finish(np.array(path), radius, lumen, kinds))
        return True

    def _walk(
        self, start: np.ndarray, direction: np.ndarray, radius: float, longest: float, parent: np.ndarray | None
    ) -> list[np.ndarray]:
        # Every third point is dense enough to keep clear of a tube much thicker than their distance.
        points = np.concatenate([np.empty((0, 3)), *(tube.points[::3] for tube in self.tubes)])
        reach = np.concatenate([np.empty(0), *(tube.outer[::3] for tube in self.tubes)]) + radius - self.overlap
        if parent is not None:  # a branch may lie within its parent where it leaves it
            free = np.linalg.norm(points - parent, axis=1) > 3 * radius
            points, reach = points[free], reach[free]
        path = [start]
        if _clearance(start[None], points, reach)[0] < 0:
            return path
        while (len(path) - 1) * self.step < longest:
            turned = direction + np.tan(self.turn) * self.rng.uniform(0, 1, (14, 1)) * _unit(
                self.rng.normal(size=(14, 3))
            )
            ends = path[-1] + self.step * _unit(turned)
            own = np.array(path[: -max(1, int(np.ceil(2.6 * radius / self.step)))]).reshape(-1, 3)
            room = np.minimum(
                _clearance(ends, points, reach), _clearance(ends, own, np.full(len(own), 2 * radius - self.overlap))
            )
            room[np.any((ends < -radius) | (ends > np.asarray(self.extent) + radius), axis=1)] = -1
            if room.max() < 0:
                break
            # The tightest way that fits: tubules of a kidney lie packed against each other.
            best = np.where(room < 0, np.inf, room + self.rng.uniform(0, radius, len(room))).argmin()
            direction = _unit(ends[best] - path[-1])
            path.append(ends[best])
        return path

    def _finish(self, path: np.ndarray, radius: float, lumen: tuple[float, float], kinds: Sequence[int]) -> Tube:
        """A spline through the walk, with radii that swell and shrink along it."""
        length = (len(path) - 1) * self.step
        along = np.linspace(0, length, int(np.ceil(length / self.spacing)) + 1)
        points = CubicSpline(np.arange(len(path)) * self.step, path)(along)
        wave, breath = (np.sin(2 * np.pi * (along / self.rng.uniform(60, 120) + self.rng.random())) for _ in range(2))
        outer = radius * (1 + 0.1 * wave)
        inner = outer * (lumen[0] + (lumen[1] - lumen[0]) * (0.5 + 0.5 * breath))
        stretch = np.minimum((along / max(length, 1e-6) * len(kinds)).astype(int), len(kinds) - 1)
        return Tube(points, outer, inner, np.asarray(kinds)[stretch])


def tube_fields(
    tubes: Sequence[Tube], shape: Sequence[int], spacing: Sequence[float], margin: float = 6.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distances to the tubes' outer and lumen surfaces (negative inside), and the kind of the nearest tube.

    Args:
        tubes: the tubes, in physical units.
        shape: X Y Z, voxels.
        spacing: voxel edges in physical units.
        margin: distances are right up to this far outside a tube and cut off there.

    Returns:
        outer distance, lumen distance (both X Y Z, float32) and kind (X Y Z, int8; -1 where no tube is near).
    """
    outer = np.full(shape, margin, np.float32)
    inner = np.full(shape, margin, np.float32)
    kinds = np.full(shape, -1, np.int8)
    axes = [((np.arange(size) + 0.5) * edge).astype(np.float32) for size, edge in zip(shape, spacing, strict=True)]
    for tube in tubes:
        for point, big, small, kind in zip(tube.points, tube.outer, tube.inner, tube.kind, strict=True):
            reach = big + margin
            box = tuple(
                slice(*np.searchsorted(axis, (x - reach, x + reach))) for axis, x in zip(axes, point, strict=True)
            )
            if any(part.start >= part.stop for part in box):
                continue
            x, y, z = (
                (axis[part] - np.float32(centre)) ** 2 for axis, part, centre in zip(axes, box, point, strict=True)
            )
            distance = np.sqrt(x[:, None, None] + y[None, :, None] + z[None, None, :])
            np.minimum(inner[box], distance - np.float32(small), out=inner[box])
            distance -= np.float32(big)
            nearer = distance < outer[box]
            np.copyto(outer[box], distance, where=nearer)
            np.copyto(kinds[box], np.int8(kind), where=nearer)
    return outer, inner, kinds


def _clearance(ends: np.ndarray, points: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """How far each end is from the nearest obstacle's surface, negative inside; infinite without obstacles."""
    if not len(points):
        return np.full(len(ends), np.inf)
    squares = sum((ends[:, None, axis] - points[None, :, axis]) ** 2 for axis in range(3))
    return (np.sqrt(squares) - reach).min(axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
