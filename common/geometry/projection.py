"""Projections of a volume along directions about one of its axes, and their back-projection.

The convention, for all that is here: the volume turns about `rotation_axis`; of its other two axes the earlier is a
with A voxels, the later c with C voxels. Angles are degrees. With centres ca = (A - 1) / 2 and cc = (C - 1) / 2, a
voxel (a, c) falls on the detector coordinate

    s = (c - cc) cos(theta) + (a - ca) sin(theta) + (W - 1) / 2

of a detector of W bins, so that theta = 0 looks along axis a and the detector's axis is then c. Everything is rigid in
voxels: angles are true where voxels are cubes, and spacings play no part.
"""

from __future__ import annotations

import math

import torch

from ..checks import InputError, problem
from .ray_sums import SharedSum, SpreadSum, highest_samples, recorded, shared_sum, spread_sum

__all__ = [
    "back_project",
    "check_angles",
    "detector_width",
    "direction_angles",
    "project",
    "ramp_filter",
    "sector_angles",
]


def direction_angles(directions: int) -> list[float]:
    """Equidistant angles k * 180 / m of half a turn, degrees (angermann2019random25d, section 2).

    >>> direction_angles(4)
    [0.0, 45.0, 90.0, 135.0]
    """
    if directions < 1:
        raise InputError(
            problem(f"directions is {directions}", "a projection needs at least one direction", "give 1 or more")
        )
    return [k * 180.0 / directions for k in range(directions)]


def sector_angles(sectors: int, seed: int, epoch: int) -> list[float]:
    """One random angle in each of p equal sectors of half a turn, degrees (angermann2019random25d, section 2).

    Sector k holds k * 180 / p <= angle < (k + 1) * 180 / p. Whole degrees are drawn where every sector has one, any
    angle of the sector otherwise. The draw depends on the arguments alone, so that every process has the same.

    Reading: the printed sectors {k, ..., k + 180 / p - 1} overlap and cover a small part of the half turn only.

    Args:
        sectors: p.
        seed: of the whole training.
        epoch: of the draw (or any other count).

    Returns:
        p ascending angles.
    """
    lower = direction_angles(sectors)
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    draws = torch.rand(sectors, generator=generator, dtype=torch.float64).tolist()
    step = 180.0 / sectors
    first = [math.ceil(low - 1e-9) for low in lower]
    count = [math.ceil(low + step - 1e-9) - start for low, start in zip(lower, first, strict=True)]
    if min(count) < 1:
        return [low + draw * step for low, draw in zip(lower, draws, strict=True)]
    return [float(start + int(draw * n)) for start, n, draw in zip(first, count, draws, strict=True)]


def check_angles(angles: list[float], sectors: int = 1) -> None:
    """Refuse angles that are not one or more a sector of half a turn, in order.

    Args:
        angles: degrees.
        sectors: p equal parts of [0, 180); angle i must lie in sector i * p // len(angles).

    Raises:
        InputError: for no angles, a number that the sectors do not divide, or an angle outside its sector.
    """
    if len(angles) < 1 or len(angles) % sectors:
        raise InputError(
            problem(
                f"{len(angles)} angles came for {sectors} sectors",
                "the number of directions must be a multiple of the number of sectors, and at least 1",
                "give the same number of angles in every sector",
            )
        )
    each = len(angles) // sectors
    for index, angle in enumerate(angles):
        low, high = (index // each) * 180.0 / sectors, (index // each + 1) * 180.0 / sectors
        if not low - 1e-9 <= angle < high:
            raise InputError(
                problem(
                    f"angle {index} is {angle:g} degrees",
                    f"it must lie in [{low:g}, {high:g}): a direction and its opposite are mirror images",
                    "give angles in degrees, in ascending order, one sector after the other",
                )
            )


def ramp_filter(size: int) -> torch.Tensor:
    """The ramp (Ram-Lak) filter of filtered back-projection, sampled at whole bins, shape (size,), float32.

    h(0) = 1/4, h(n) = -1 / (pi n)^2 for odd n, 0 for even n: the inverse Fourier transform of abs(frequency) below
    half a period per bin. Back-projection of m filtered sum projections over half a turn, times pi / m, is the image.

    Args:
        size: odd number of taps; 2 W - 1 taps filter a detector of W bins without truncation.
    """
    if size < 1 or size % 2 == 0:
        raise InputError(problem(f"size is {size}", "a ramp filter has an odd number of taps", "give 1, 3, 5, ..."))
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    odd = offsets.remainder(2) == 1
    taps = torch.where(odd, -1 / (math.pi * offsets).square(), torch.zeros_like(offsets))
    taps[size // 2] = 0.25
    return taps.float()


def detector_width(size_a: int, size_c: int, detector: str = "cropped") -> int:
    """Bins of the detector: "cropped" has C, as the paper; "full" holds every voxel centre at every angle.

    The full width has the parity of C, so that theta = 0 falls on voxel centres.

    >>> detector_width(96, 224), detector_width(96, 224, "full")
    (224, 244)
    """
    if detector == "cropped":
        return size_c
    if detector != "full":
        raise ValueError("detector is '" + detector + "': it must be cropped or full. To mend it, give one of these.")
    width = int(math.ceil(math.sqrt(float((size_a - 1) ** 2 + (size_c - 1) ** 2)) + 1 - 1e-9))
    return width + (width - size_c) % 2


def _rows(volume: torch.Tensor, rotation_axis: int) -> torch.Tensor:
    """A volume (B K + three axes) as A C rows of all else: rotation axis, batch, channels; shape (A, C, B, K, b)."""
    if rotation_axis < 0 or rotation_axis > 2:
        raise ValueError(f"rotation_axis is {rotation_axis}: it must be 0, 1 or 2. To mend it, give one of these.")
    if rotation_axis == 0:
        return volume.permute(3, 4, 0, 1, 2)
    if rotation_axis == 1:
        return volume.permute(2, 4, 0, 1, 3)
    return volume.permute(2, 3, 0, 1, 4)


def _volume(rows: torch.Tensor, rotation_axis: int) -> torch.Tensor:
    """The inverse of `_rows`."""
    if rotation_axis == 0:
        return rows.permute(2, 3, 4, 0, 1)
    if rotation_axis == 1:
        return rows.permute(2, 3, 0, 4, 1)
    return rows.permute(2, 3, 0, 1, 4)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The floating type to add up in: half precisions are too coarse for it."""
    return torch.float32 if dtype == torch.float16 or dtype == torch.bfloat16 else dtype


def project(
    volume: torch.Tensor,
    angles: list[float],
    mode: str = "max",
    detector: str = "cropped",
    rotation_axis: int = 1,
) -> torch.Tensor:
    """Projections of volumes from directions about an axis (M_theta of angermann2019random25d, section 2).

    "max" takes the maximum of bilinear samples at unit steps along each ray. Samples beyond the outermost voxel
    centres do not exist, so that negative intensities are right too; a ray that meets nothing gives 0.
    "sum" is the parallel-beam projector that is the exact adjoint of `back_project`.

    Args:
        volume: shape (B, C, and three spatial axes), any floating type.
        angles: degrees, D of them.
        mode: "max" or "sum".
        detector: "cropped" or "full" (see `detector_width`).
        rotation_axis: of the three spatial axes; 1 for volumes B C A B C of the paper.

    Returns:
        shape (B, D, C, b, W): b voxels along the rotation axis, W detector bins.

    Raises:
        ValueError: for a mode, a detector or an axis that does not exist.
    """
    if mode != "max" and mode != "sum":
        raise ValueError("mode is '" + mode + "': it must be max or sum. To mend it, give one of these.")
    if not torch.jit.is_scripting():
        volume = (
            volume if recorded() else volume.as_subclass(torch.Tensor)
        )  # the metadata of a volume say nothing true of its projections
    rows = _rows(volume.to(_wide(volume.dtype)), rotation_axis)
    size_a, size_c = rows.shape[0], rows.shape[1]
    shape = [len(angles), detector_width(size_a, size_c, detector), rows.shape[2], rows.shape[3], rows.shape[4]]
    table = rows.reshape(size_a * size_c, -1)
    if mode == "max":
        images = highest_samples(table, size_a, size_c, shape[1], angles)
    elif torch.jit.is_scripting():
        images = shared_sum(table, size_a, size_c, shape[1], angles)
    elif recorded():
        images = shared_sum(table, size_a, size_c, shape[1], angles)
    else:
        images = SharedSum.apply(table, size_a, size_c, shape[1], angles)
    return images.reshape(shape).permute(2, 0, 3, 4, 1).to(volume.dtype)


def back_project(
    projections: torch.Tensor, angles: list[float], size_a: int, size_c: int, rotation_axis: int = 1
) -> torch.Tensor:
    """Linear back-projection: a voxel is the sum over directions of the detector's value where it falls.

    The operator R of angermann2019random25d, section 2. Values between bins are linear, beyond the detector 0.

    Args:
        projections: shape (B, D, K, b, W), any floating type.
        angles: degrees, D of them.
        size_a: voxels of axis a.
        size_c: voxels of axis c.
        rotation_axis: of the volume that comes back.

    Returns:
        shape (B, K, A, b, C) with rotation_axis 1.

    Raises:
        ValueError: where there is not one angle per direction.
    """
    if projections.shape[1] != len(angles):
        raise ValueError(
            f"{projections.shape[1]} projections came with {len(angles)} angles: there must be one angle for each. "
            "To mend it, give the angles that the projections were taken from."
        )
    if not torch.jit.is_scripting():
        projections = projections if recorded() else projections.as_subclass(torch.Tensor)
    batch, directions, channels, length, width = projections.shape
    images = projections.to(_wide(projections.dtype)).permute(1, 4, 0, 2, 3).reshape(directions, width, -1)
    if torch.jit.is_scripting():
        rows = spread_sum(images, size_a, size_c, angles)
    elif recorded():
        rows = spread_sum(images, size_a, size_c, angles)
    else:
        rows = SpreadSum.apply(images, size_a, size_c, angles)
    rows = rows.reshape(size_a, size_c, batch, channels, length)
    return _volume(rows, rotation_axis).to(projections.dtype)
