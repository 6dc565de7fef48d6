"""What T2-weighted magnetic resonance makes of a patient: brightness of the tissues, thick slices, coils, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.utils import optional_import

from .anatomy import Patient

gaussian_filter, _ = optional_import("scipy.ndimage", name="gaussian_filter")

__all__ = ["LAYERS", "SpinEcho", "Tissue", "coil_sensitivity", "majority", "measure"]

# A slice is painted in so many layers: thick slices average over what lies in them.
LAYERS = 3


@dataclass(frozen=True)
class Tissue:
    """What a tissue's brightness follows from.

    Args:
        t2: transverse relaxation time in a train of echoes, ms.
        t1: longitudinal relaxation time, ms.
        density: of protons, water has 1.
    """

    t2: float
    t1: float = 1200.0
    density: float = 0.85


@dataclass(frozen=True)
class SpinEcho:
    """A spin-echo sequence.

    Args:
        repetition: time between excitations, ms.
        echo: effective echo time, ms.
    """

    repetition: float
    echo: float

    def __call__(self, tissue: Tissue) -> float:
        """Brightness of a tissue, 1 for a fluid that neither relaxation touches.

        >>> round(SpinEcho(4000.0, 100.0)(Tissue(100.0, 1000.0, 1.0)), 3)
        0.361
        """
        recovered = 1 - np.exp(-self.repetition / tissue.t1)
        return float(tissue.density * recovered * np.exp(-self.echo / tissue.t2))


def coil_sensitivity(patient: Patient, correction: float, rng: np.random.Generator) -> np.ndarray:
    """How bright an array of surface coils shows each place of the slices, 1 in the mean: X Y Z.

    Args:
        patient: painted in layers, X Y LAYERS*Z; lies between a front and a back row of coils.
        correction: share of the unevenness that the scanner has taken out, 0 to 1.
        rng: source of randomness.
    """
    x, y, z = (
        axis - np.float32(middle + shift)
        for axis, middle, shift in zip(patient.axes, patient.centre, rng.normal(0, 12, 3))
    )
    z = z[LAYERS // 2 :: LAYERS]
    total = np.zeros((len(x), len(y), len(z)), np.float32)
    for side in (-118, 118):
        for across in (-110, 0, 110):
            reach = np.float32(rng.uniform(75, 110))
            near = ((x - across) / reach)[:, None, None] ** 2 + ((y - side) / reach)[:, None] ** 2 + (z / reach) ** 2
            total += np.float32(rng.uniform(0.7, 1.3)) / (1 + near) ** 3
    total **= np.float32((1 - correction) / 2)  # the root of a sum of squares
    return total / total.mean()


def majority(label: np.ndarray) -> np.ndarray:
    """The label of each slice from its layers, 0 or 1: X Y LAYERS*Z to X Y Z, uint8."""
    return (_layers(label).sum(-1, dtype=np.uint8) > LAYERS // 2).astype(np.uint8)


def measure(brightness: np.ndarray, sensitivity: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What the scanner makes of true brightness: slices, blur in the plane, coils, noise of the magnitude (Rice).

    Args:
        brightness: X Y LAYERS*Z.
        sensitivity: of the coils, X Y Z.
        noise: standard deviation of the real and of the imaginary part.
        rng: source of randomness.

    Returns:
        X Y Z, float32, at least 0.
    """
    shown = gaussian_filter(_layers(brightness).mean(-1), (0.5, 0.5, 0.25), truncate=3.0) * sensitivity
    real, imaginary = (np.float32(noise) * rng.standard_normal(shown.shape, dtype=np.float32) for _ in range(2))
    return np.hypot(shown + real, imaginary)


def _layers(fine: np.ndarray) -> np.ndarray:
    return fine.reshape(*fine.shape[:2], -1, LAYERS)
