"""What the scanner of computed tomography makes of a patient painted in HU."""

from __future__ import annotations

import numpy as np
from monai.utils import optional_import

from .anatomy import Patient

gaussian_filter, _ = optional_import("scipy.ndimage", name="gaussian_filter")

__all__ = ["AIR", "scan"]

AIR = -1000.0


def scan(hu: np.ndarray, patient: Patient, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What the scanner makes of true densities: blur, noise with the grain of CT, faint streaks, cupping; int16.

    Args:
        hu: X Y Z, true HU.
        patient: gives voxel size and place.
        noise: standard deviation in the middle of the body, HU.
        rng: source of randomness.

    Returns:
        X Y Z, int16, within -1024 to 3071.
    """
    sharp = gaussian_filter(hu, np.array((0.9, 0.9, 1.1)) / patient.spacing, truncate=3.0)
    white = rng.standard_normal(hu.shape, dtype=np.float32)
    # Filtered back projection passes middle frequencies of the plane: a blur less a wider blur.
    grain = gaussian_filter(white, (0.6, 0.6, 0.45), truncate=3.0)
    grain -= np.float32(0.7) * gaussian_filter(grain, (1.3, 1.3, 0), truncate=3.0)
    grain /= max(float(grain.std()), 1e-6)
    # Rays along x cross most of the body: horizontal streaks, strongest in its middle.
    streaks = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (12.0, 0.7, 0.4), truncate=2.5)
    streaks /= max(float(streaks.std()), 1e-6)
    x, y = ((axis - centre) / radius for axis, centre, radius in zip(patient.axes, patient.centre, (160.0, 110.0)))
    depth = np.exp(-0.9 * (x[:, None] ** 2 + y**2))[..., None]
    sharp += np.float32(noise) * ((0.45 + 0.55 * depth) * grain + 0.22 * depth * streaks) - 5.0 * (depth - 0.5)
    return np.clip(np.rint(sharp), -1024, 3071).astype(np.int16)
