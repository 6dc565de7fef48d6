"""What a confocal microscope makes of a volume of stain: blur, loss of light with depth, tiles, noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.utils import optional_import

gaussian_filter, _ = optional_import("scipy.ndimage", name="gaussian_filter")

__all__ = ["photograph", "smooth_noise"]


def smooth_noise(shape: Sequence[int], spacing: Sequence[float], length: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of zero mean and unit variance that varies over about `length`.

    Args:
        shape: X Y Z, voxels.
        spacing: voxel edges, in the unit of `length`.
        length: distance between independent values.
        rng: source of randomness.

    Returns:
        X Y Z, float32.
    """
    coarse = [max(2, int(round(size * edge / length)) + 1) for size, edge in zip(shape, spacing, strict=True)]
    values = torch.from_numpy(rng.standard_normal(coarse).astype(np.float32))[None, None]
    fine = torch.nn.functional.interpolate(values, size=tuple(shape), mode="trilinear", align_corners=True)[
        0, 0
    ].numpy()
    return (fine - fine.mean()) / max(float(fine.std()), 1e-6)


def photograph(
    stain: np.ndarray, spacing: Sequence[float], decay: float, photons: float, rng: np.random.Generator
) -> np.ndarray:
    """The 8-bit image of a stain.

    Deeper planes (larger z) are blurred more and get less light; the plane is stitched from two by two fields of view,
    each brighter in its middle; photons are counted (Poisson) and read with Gaussian noise.

    Args:
        stain: X Y Z, density, about 0 to 1.
        spacing: voxel edges, um.
        decay: depth at which 1/e of the light is left, um.
        photons: photons counted for density 1 at the surface.
        rng: source of randomness.

    Returns:
        X Y Z, uint8.
    """
    depth = ((np.arange(stain.shape[2]) + 0.5) * spacing[2]).astype(np.float32)
    share = depth / max(float(depth[-1]), 130.0)
    near = gaussian_filter(stain, (0.6, 0.6, 0.8), truncate=3.0)
    far = gaussian_filter(stain, (1.3, 1.3, 1.7), truncate=3.0)
    light = (near * (1 - share) + far * share) * np.exp(-depth / decay)
    light *= (
        _fields_of_view(stain.shape[:2], rng)
        * (1 + 0.12 * smooth_noise(stain.shape[:2] + (2,), spacing, 200.0, rng)[..., 0])
    )[..., None]
    counts = rng.poisson(photons * np.clip(light, 0, None) + 0.6).astype(np.float32)
    read = counts + rng.standard_normal(counts.shape, dtype=np.float32) * 0.7
    return np.clip(read * (200.0 / photons) + 6.0, 0, 255).astype(np.uint8)


def _fields_of_view(plane: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Brightness of two by two stitched fields, each with its own gain and darker towards its corners; X Y."""
    distance = []
    for size in plane:
        half = (size + 1) // 2
        within = (np.arange(size) % half + 0.5) / half * 2 - 1
        distance.append((within**2).astype(np.float32))
    gains = np.repeat(np.repeat(rng.uniform(0.92, 1.08, (2, 2)), (plane[0] + 1) // 2, 0), (plane[1] + 1) // 2, 1)
    return (gains[: plane[0], : plane[1]] * (1 - 0.14 * (distance[0][:, None] + distance[1][None]))).astype(np.float32)
