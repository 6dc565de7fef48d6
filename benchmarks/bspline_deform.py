"""Deformed patches: this package's RandDeformedPatchd beside MONAI's Rand3DElasticd, alternating in one run.

    python benchmarks/bspline_deform.py [--rounds 5] [--threads 1]

Both rotate by up to 15 degrees per axis, scale by up to 10 %, bend, and give image (linear) and label (nearest) of
132x132x116 voxels out of a volume of 160^3. MONAI smooths one random vector a voxel by a Gaussian; its width is
that of a cubic B-spline on a grid of 32 voxels, and the magnitude is set so that both fields have the same standard
deviation, so that the two bend alike. A narrower Gaussian, cheaper and rougher, is timed as well.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Rand3DElasticd
from scipy.interpolate import BSpline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.geometry.bspline import bspline_basis, control_shape, evaluate_bspline
from common.transforms.deform import RandDeformedPatchd

PATCH, VOLUME, SPACING, SIGMA, DEGREES = (132, 132, 116), 160, 32, 4.0, 15.0
# a cubic B-spline on a grid of h voxels has the variance h^2 / 3
WIDTH = SPACING / 3**0.5
NARROW = 6.0  # a third of the smoothness: what MONAI costs where its kernel is short
KEYS, BASE = ["image", "label"], "MONAI, equally smooth"


def bending(rotate: bool, elastic: bool, label_size: tuple[int, ...] | None = None) -> RandDeformedPatchd:
    """This package's transform."""
    return RandDeformedPatchd(
        KEYS,
        "label",
        PATCH,
        label_size,
        rotation_degrees=DEGREES if rotate else 0.0,
        scale_range=(0.9, 1.1) if rotate else (1.0, 1.0),
        grid_spacing=SPACING,
        sigma=SIGMA if elastic else 0.0,
    ).set_random_state(0)


def monai_bending(width: float) -> Rand3DElasticd:
    """MONAI's, with a Gaussian of `width` voxels, bending as strongly as this package's."""
    angle = float(np.deg2rad(DEGREES))
    # standard deviation of our field: sigma * (mean of the sum of squared B-spline weights)^(3/2)
    strength = SIGMA * float((bspline_basis(SPACING + 1, SPACING)[:-1] ** 2).sum(1).mean()) ** 1.5
    # uniform(-1, 1) noise has deviation 3^-1/2; a Gaussian of width s lowers it by (2 s sqrt(pi))^(3/2)
    magnitude = strength * 3**0.5 * (2 * width * np.pi**0.5) ** 1.5
    return Rand3DElasticd(
        KEYS,
        sigma_range=(width, width),
        magnitude_range=(magnitude, magnitude),
        spatial_size=PATCH,
        prob=1.0,
        rotate_range=(angle,) * 3,
        scale_range=(0.1,) * 3,
        mode=["bilinear", "nearest"],
        padding_mode="reflection",
    ).set_random_state(0)


def worst_difference() -> float:
    """Largest distance in voxels between our field and SciPy's B-spline in float64, for one patch."""
    grid = (SPACING,) * 3
    controls = np.random.RandomState(0).normal(0, SIGMA, (3, *control_shape(PATCH, grid)))
    expected = controls
    for axis, voxels in enumerate(PATCH, start=1):
        knots = (np.arange(expected.shape[axis] + 4) - 3.0) * SPACING
        expected = np.moveaxis(BSpline(knots, np.moveaxis(expected, axis, 0), 3)(np.arange(voxels)), 0, axis)
    bases = [bspline_basis(voxels, SPACING) for voxels in PATCH]
    field = evaluate_bspline(torch.from_numpy(controls).float(), bases).double().numpy()
    return float(np.linalg.norm(field - expected, axis=0).max())


def main() -> int:
    """Time all candidates in turn, print medians and ratios; 0 where the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    data = {
        "image": torch.rand(1, VOLUME, VOLUME, VOLUME),
        "label": torch.randint(0, 4, (1, VOLUME, VOLUME, VOLUME), dtype=torch.uint8),
    }
    candidates: dict[str, Callable[[], object]] = {}
    for name, transform in (
        (BASE, monai_bending(WIDTH)),
        (f"MONAI, Gaussian of {NARROW:.0f} voxels", monai_bending(NARROW)),
        ("rotation, scale, B-spline", bending(True, True)),
        ("same, label 44x44x28", bending(True, True, (44, 44, 28))),
        ("rotation and scale only", bending(True, False)),
        ("nothing: a plain crop", bending(False, False)),
    ):
        candidates[name] = lambda transform=transform: transform(data)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(arguments.rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds[BASE])
    print(
        f"image + label {'x'.join(map(str, PATCH))} from {VOLUME}^3, {arguments.threads} thread(s), "
        f"median of {arguments.rounds} rounds, torch {torch.__version__}"
    )
    print(f"{'':28}{'seconds':>10}{'first / this':>14}")
    for name, times in seconds.items():
        print(f"{name:28}{statistics.median(times):>10.3f}{base / statistics.median(times):>14.1f}")
    difference = worst_difference()
    print(f"largest difference to a reference B-spline: {difference:.1e} voxel (at most 1e-3)")
    ratio = base / statistics.median(seconds["rotation, scale, B-spline"])
    return 0 if ratio >= 4 and difference <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
