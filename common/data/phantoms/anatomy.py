"""What phantoms of the body share: a patient's own coordinates, soft-edged painting, rounded shapes and tubes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.utils import optional_import

from .tubes import Tube, tube_fields

gaussian_filter1d, _ = optional_import("scipy.ndimage", name="gaussian_filter1d")
CubicSpline, _ = optional_import("scipy.interpolate", name="CubicSpline")

__all__ = [
    "EVERYWHERE",
    "Box",
    "Canvas",
    "Patient",
    "SmoothField",
    "ellipsoid",
    "girdle",
    "heights",
    "push_aside",
    "smooth_union",
    "spline_tube",
    "tube_distance",
]

Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None),) * 3


class SmoothField:
    """Random numbers of zero mean and unit variance that vary over about `length`: a cubic B-spline.

    Args:
        extent: edges of the box it is defined in, mm; the lower corner is the origin.
        length: distance between control points, mm.
        rng: source of randomness.
        channels: number of independent fields.
    """

    # The standard deviation of a sum of white noise weighted by the cubic B-spline, mean over a cell, three axes.
    _SPREAD = (151 / 315) ** 1.5

    def __init__(self, extent: Sequence[float], length: float, rng: np.random.Generator, channels: int = 1) -> None:
        self.length = length
        self.counts = [int(np.ceil(edge / length)) + 4 for edge in extent]
        self.values = rng.standard_normal((channels, *self.counts), dtype=np.float32) / np.float32(self._SPREAD)

    def on_axes(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Values on the grid of three axes (mm): C X Y Z, float32."""
        field = self.values
        for axis, positions in enumerate(axes):
            field = np.moveaxis(np.tensordot(self._weights(positions, axis), field, (1, axis + 1)), 0, axis + 1)
        return np.ascontiguousarray(field)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at N points (N 3, mm): N C."""
        x, y, z = (self._weights(points[:, axis], axis) for axis in range(3))
        return np.einsum("ni,nj,nk,cijk->nc", x, y, z, self.values, optimize=True)

    def _weights(self, positions: np.ndarray, axis: int) -> np.ndarray:
        """Weight of each control point of an axis at each position: N count."""
        place = np.clip(np.asarray(positions) / self.length, 0, self.counts[axis] - 4)
        away = np.abs(place[:, None] + 1.5 - np.arange(self.counts[axis]))
        near = 2 / 3 - away**2 + away**3 / 2
        return np.where(away < 1, near, np.clip(2 - away, 0, None) ** 3 / 6).astype(np.float32)


class Patient:
    """The grid of voxels, and the coordinates of the average patient at each of them.

    Anatomy is written down once, for the average patient, in mm: x to the right, y to the front, z to the head, origin
    in the middle. Each patient lies, and is grown, a little differently: turned, scaled, shifted, smoothly deformed.

    Args:
        shape: X Y Z, voxels.
        spacing: voxel edges, mm.
        rng: source of randomness.
        bend: standard deviation of the smooth deformation along each axis, mm.
    """

    def __init__(
        self, shape: Sequence[int], spacing: Sequence[float], rng: np.random.Generator, bend: float = 4.5
    ) -> None:
        self.shape, self.spacing, self.bend = tuple(shape), np.asarray(spacing, float), bend
        self.extent = self.spacing * self.shape
        # Rounded shapes lose no more than this to the grid; vessels are never thinner than that on it.
        self.voxel = float(np.cbrt(self.spacing.prod()))
        self.axes = [((np.arange(n) + 0.5) * edge).astype(np.float32) for n, edge in zip(self.shape, self.spacing)]
        turn = _rotation(np.deg2rad(rng.uniform(-1, 1, 3) * (2.0, 2.0, 4.0)))
        self.matrix = turn / rng.uniform(0.95, 1.04, 3)[:, None]
        self.centre = self.extent / 2 + rng.uniform(-1, 1, 3) * (6.0, 5.0, 12.0)
        self.field = SmoothField(self.extent, 62.0, rng, 3)
        x, y, z = (axis - centre for axis, centre in zip(self.axes, self.centre.astype(np.float32)))
        warp = self.field.on_axes(self.axes)
        self.coordinates = [
            m[0] * x[:, None, None] + m[1] * y[:, None] + m[2] * z + np.float32(bend) * w
            for m, w in zip(self.matrix.astype(np.float32), warp)
        ]

    def locate(self, points: np.ndarray) -> np.ndarray:
        """Where points of the average patient (N 3, mm) are in this one: N 3, mm from the corner of the grid."""
        points = np.asarray(points, float)
        back = np.linalg.inv(self.matrix)
        found = points @ back.T + self.centre
        for _ in range(6):  # the deformation is gentle, so the iteration contracts
            found = (points - self.bend * self.field.at(found)) @ back.T + self.centre
        return found

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box:
        """The voxels that hold a box of the average patient."""
        corners = np.stack(np.meshgrid(*zip(low, high), indexing="ij"), -1).reshape(-1, 3)
        corners = corners @ np.linalg.inv(self.matrix).T + self.centre
        margin = 3.5 * self.bend + self.voxel
        return self._voxels(corners.min(0) - margin, corners.max(0) + margin)

    def within(self, box: Box) -> list[np.ndarray]:
        """Coordinates of the average patient at the voxels of a box: three times X Y Z."""
        return [one[box] for one in self.coordinates]

    def noise(self, length: float, rng: np.random.Generator, box: Box = EVERYWHERE) -> np.ndarray:
        """`SmoothField` on the voxels of a box: X Y Z."""
        axes = [axis[part] for axis, part in zip(self.axes, box)]
        if min(map(len, axes)) == 0:
            return np.zeros([len(axis) for axis in axes], np.float32)
        low = [float(axis[0]) for axis in axes]
        field = SmoothField([float(axis[-1]) - start for axis, start in zip(axes, low)], length, rng)
        return field.on_axes([axis - np.float32(start) for axis, start in zip(axes, low)])[0]

    def tubes(self, tubes: Sequence[Tube], margin: float = 6.0) -> tuple[Box, np.ndarray, np.ndarray, np.ndarray]:
        """Tubes given in the average patient: the voxels around them and `tube_fields` there."""
        placed = [Tube(self.locate(tube.points), tube.outer, tube.inner, tube.kind) for tube in tubes]
        margin = max(margin, self.voxel)
        low = np.min([(tube.points - tube.outer[:, None]).min(0) for tube in placed], axis=0) - margin
        high = np.max([(tube.points + tube.outer[:, None]).max(0) for tube in placed], axis=0) + margin
        box = self._voxels(low, high)
        origin = np.array([part.start for part in box]) * self.spacing
        moved = [Tube(tube.points - origin, tube.outer, tube.inner, tube.kind) for tube in placed]
        shape = [part.stop - part.start for part in box]
        return box, *tube_fields(moved, shape, self.spacing, margin)

    def _voxels(self, low: np.ndarray, high: np.ndarray) -> Box:
        start = np.clip(np.floor(low / self.spacing), 0, self.shape).astype(int)
        stop = np.clip(np.ceil(high / self.spacing), start, self.shape).astype(int)
        return tuple(slice(int(a), int(b)) for a, b in zip(start, stop))  # type: ignore[return-value]


class Canvas:
    """Brightness and label of a patient, painted one structure over the other with soft edges.

    Args:
        patient: gives the grid.
        empty: brightness of the air around.
    """

    def __init__(self, patient: Patient, empty: float) -> None:
        self.values = np.full(patient.shape, empty, np.float32)
        self.label = np.zeros(patient.shape, np.uint8)
        self.voxel = np.float32(patient.voxel)

    def paint(self, box: Box, distance: np.ndarray, value: float | np.ndarray, label: int = 0) -> None:
        """Lay a structure over what is there; a voxel that its surface cuts becomes a mixture.

        Args:
            box: voxels.
            distance: signed distance to the surface in the box, negative inside, mm.
            value: its brightness, one or one for each voxel of the box.
            label: given to voxels whose centres lie inside; 0 for what has no label.
        """
        share = np.clip(np.float32(0.5) - distance / self.voxel, 0, 1)
        region = self.values[box]
        region += share * (value - region)
        self.label[box][distance < 0] = label


def ellipsoid(
    at: Sequence[np.ndarray], centre: Sequence[float], radii: Sequence[float], turn: Sequence[float] = (0, 0, 0)
) -> np.ndarray:
    """Signed distance to an ellipsoid, right to first order at its surface, negative inside.

    Args:
        at: x, y, z coordinates, arrays that broadcast.
        centre: of the ellipsoid.
        radii: its half axes.
        turn: degrees by which it is turned about x, then y, then z.

    >>> round(float(ellipsoid((5.0, 0.0, 0.0), (0, 0, 0), (3, 2, 1))), 4)
    2.0
    """
    x, y, z = (one - np.float32(middle) for one, middle in zip(at, centre))
    if any(turn):
        m = _rotation(np.deg2rad(np.asarray(turn, float))).T.astype(np.float32)
        x, y, z = (row[0] * x + row[1] * y + row[2] * z for row in m)
    a, b, c = (np.float32(1 / radius) for radius in radii)
    x, y, z = x * a, y * b, z * c
    size = np.sqrt(x * x + y * y + z * z)
    # Length of the gradient of `size`, times `size`.
    slope = np.sqrt((x * a) ** 2 + (y * b) ** 2 + (z * c) ** 2)
    return size * (size - 1) / np.maximum(slope, np.float32(1e-3 / max(radii)))


def smooth_union(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """Signed distance to two shapes that flow into each other over `blend` mm."""
    near = np.clip(0.5 + (second - first) / np.float32(2 * blend), 0, 1)
    return second + near * (first - second) - np.float32(blend) * near * (1 - near)


def girdle(x: np.ndarray, y: np.ndarray, a: float, b: float, power: float) -> np.ndarray:
    """Distance to a rounded rectangle's outline along the ray from its middle, negative inside.

    Args:
        x: coordinates from its middle.
        y: the same across.
        a: half its width.
        b: half its height.
        power: 2 for an ellipse, more for squarer corners.
    """
    half = np.float32(power / 2)
    square_x, square_y = x * x, y * y
    size = ((square_x / np.float32(a * a)) ** half + (square_y / np.float32(b * b)) ** half) ** np.float32(1 / power)
    return np.sqrt(square_x + square_y) * (1 - 1 / np.maximum(size, np.float32(0.02)))


def heights(patient: Patient, box: Box) -> np.ndarray:
    """Height above the table's side of the grid, mm, which gravity sorts contents by: 1 Y 1."""
    return patient.axes[1][box[1]][None, :, None]


def spline_tube(
    points: Sequence[Sequence[float]],
    radii: Sequence[float],
    wall: float = 0.0,
    rng: np.random.Generator | None = None,
    jitter: float = 0.0,
    step: float = 1.5,
    smallest: float = 0.0,
) -> Tube:
    """A tube along a curve through given points.

    Args:
        points: N 3, mm.
        radii: N, outer radius at each.
        wall: thickness of the wall, mm.
        rng: source of randomness, needed for a `jitter`.
        jitter: standard deviation by which inner points are moved, mm.
        step: distance between points of the result, mm.
        smallest: thinner radii are widened to this.

    Returns:
        the tube; its `kind` is the position along it, 0 to 100.
    """
    knots, radii = np.array(points, float), np.asarray(radii, float)
    if rng is not None and jitter > 0:
        knots[1:-1] += rng.normal(0, jitter, knots[1:-1].shape)
    steps = np.maximum(np.linalg.norm(np.diff(knots, axis=0), axis=1), 0.1)  # points may coincide
    along = np.concatenate([[0.0], np.cumsum(steps)])
    fine = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1] / step)) + 1))
    curve = CubicSpline(along, knots, bc_type="natural")(fine)
    outer = np.maximum(np.interp(fine, along, radii), smallest)
    return Tube(curve, outer, np.maximum(outer - wall, 0), (100 * fine / along[-1]).astype(int))


def tube_distance(points: np.ndarray, tube: Tube) -> np.ndarray:
    """Signed distance of N points (N 3, mm) to the outer surface of a tube."""
    return (np.linalg.norm(points[:, None] - tube.points, axis=2) - tube.outer).min(axis=1)


def push_aside(tube: Tube, other: Tube, gap: float) -> Tube:
    """A tube led round the outside of another one, so that `gap` mm stay between them, or it presses in by as much."""
    points = tube.points
    for _ in range(3):
        apart = np.linalg.norm(points[:, None] - other.points, axis=2)
        nearest = np.argmin(apart - other.outer, axis=1)
        distance = np.take_along_axis(apart, nearest[:, None], 1)
        short = np.clip(other.outer[nearest] + tube.outer + gap - distance[:, 0], 0, None)
        away = (points - other.points[nearest]) / np.maximum(distance, 1e-3)
        points = points + gaussian_filter1d(short[:, None] * away, 2.0, axis=0)
    return Tube(points, tube.outer, tube.inner, tube.kind)


def _rotation(angles: Sequence[float]) -> np.ndarray:
    """Turns about x, then y, then z, radians: 3 3."""
    (a, b, c), (d, e, f) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    about_y = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    about_z = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
