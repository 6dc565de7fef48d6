"""Neck and head in contrast-enhanced MR angiography, with the arteries of the brain labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..arguments import parse_amount, parse_triple
from .anatomy import EVERYWHERE, Canvas, Patient, ellipsoid, girdle, smooth_union
from .neck_vessels import draw_vessels
from .phantom import Phantom, PhantomCase

gaussian_filter, _ = optional_import("scipy.ndimage", name="gaussian_filter")

__all__ = ["HEAD_NECK", "make_head_neck", "paint_head_neck"]

SIZE = (96, 288, 224)
FIELD_OF_VIEW = (87, 260, 202)
MOST_NOISE = 50
# On the canvas, what is not wanted has a label too, so that it can be told in tests.
WANTED, OTHER_VESSEL, GLAND = 1, 2, 3
# Glands of the right side, which take up the contrast agent: middle, half axes, turns (degrees).
GLANDS = (
    ((15, 17, -80), (6, 8, 19), (0, 8, 0)),  # thyroid
    ((25, 27, -12), (7, 12, 9), (0, 0, 20)),  # submandibular
    ((52, 2, 16), (6, 11, 16), (0, 10, 0)),  # parotid
    ((8, 40, 42), (4, 14, 7), (0, 0, 0)),  # conchae of the nose
)


def make_head_neck(
    rng: np.random.Generator, size: Sequence[int], index: int, *, field_of_view: Any = None, noise: Any = None
) -> PhantomCase:
    """A coronal slab of neck and head in MR angiography, of the size of [angermann2019random25d, section 4].

    Wanted are the arteries of the brain. Veins, the external carotids and glands are as bright, and the vessels among
    them as wide: only its course through the whole volume tells what a vessel is.

    Args:
        rng: source of randomness.
        size: A S R, voxels; the first axis to the front, the second to the head, the third to the right.
        index: number of the case; it has no bearing.
        field_of_view: A S R, mm; None takes 87 x 260 x 202, some per cent more or less in each case.
        noise: standard deviation in per cent of the brightness of blood; None draws it for each case, 2 to 5.

    Returns:
        image A S R (int16, arbitrary scale) and label A S R (uint8: 0 background, 1 vessel). A vessel is never thinner
        than 2 voxels, so that a coarse grid shows the same tree; its share of the voxels is larger there.

    Raises:
        InputError: for a field of view that is not three positive whole numbers, or noise below 0 or above 50.
    """
    drawn = rng.uniform(2.0, 5.0)
    extent = np.multiply(FIELD_OF_VIEW, rng.uniform(0.97, 1.05))
    if field_of_view is not None:
        extent = np.array(parse_triple(field_of_view, "field_of_view"), float)
    asked = parse_amount(noise, "noise", MOST_NOISE, "per cent")
    grain = (drawn if asked is None else float(asked)) / 100
    canvas, patient = paint_head_neck(rng, size, extent)
    image = _measure(canvas.values, patient, grain, rng) * rng.uniform(250, 1200)
    label = (canvas.label == WANTED).astype(np.uint8)
    spacing = tuple(float(edge) for edge in extent / size)
    stored = (np.ascontiguousarray(volume.transpose(1, 2, 0)) for volume in (np.rint(image).astype(np.int16), label))
    return PhantomCase(*stored, spacing, orientation="ASR")  # type: ignore[arg-type]


def paint_head_neck(rng: np.random.Generator, size: Sequence[int], extent: Sequence[float]) -> tuple[Canvas, Patient]:
    """Neck and head before they are measured: brightness (blood has 1) and what each voxel is.

    Args:
        rng: source of randomness.
        size: A S R, voxels.
        extent: A S R, mm.

    Returns:
        the canvas, X Y Z = R A S, labels 1 wanted, 2 other vessel, 3 gland; and the patient.
    """
    shape = (size[2], size[0], size[1])
    spacing = np.divide((extent[2], extent[0], extent[1]), shape)
    patient = Patient(shape, spacing, rng)
    canvas = Canvas(patient, 0.0)
    _paint_tissue(canvas, patient, rng)
    for side in (1, -1):
        for middle, radii, turn in GLANDS:
            _paint_gland(
                canvas, patient, np.multiply(middle, (side, 1, 1)), radii, np.multiply(turn, (1, side, side)), rng
            )
    blood = 1 + 0.09 * patient.noise(45.0, rng)
    for vessel in draw_vessels(rng, patient.voxel):
        box, distance, _, along = patient.tubes([vessel.tube], 1.5)
        value = vessel.flow[np.clip(along, 0, 100)] * blood[box]
        canvas.paint(box, distance, value, WANTED if vessel.wanted else OTHER_VESSEL)
    return canvas, patient


def _paint_tissue(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Skin, fat and muscle, spine, airway, jaws, skull and brain."""
    x, y, z = patient.coordinates
    stout = rng.uniform(0.94, 1.08)
    texture = patient.noise(6.0, rng)
    # The neck widens to the shoulders below; the head is wider than the neck and reaches beyond the slab.
    widen = np.clip((-86 - z) / 30, 0, 1)
    half = np.float32(58 * stout) + 75 * widen * widen
    neck = girdle(x / half, (y + 12) / 52, 1.0, 1.0, 2.3) * 52
    head = np.maximum(ellipsoid((x, y, z), (0, -2, 62), (71, 92, 88)), -100)
    jaw = ellipsoid((x, y, z), (0, 30, 4), (52, 40, 40))
    body = smooth_union(smooth_union(neck, head, 8.0), jaw, 8.0)
    body = np.where(z > 20, np.minimum(head, jaw), body)
    fat, muscle = rng.uniform(0.16, 0.34), rng.uniform(0.12, 0.22)
    canvas.paint(EVERYWHERE, body, fat * (1 + 0.12 * texture))
    sheets = patient.noise(16.0, rng)
    seams = np.exp(-((sheets / np.float32(0.15)) ** 2))
    value = muscle * (1 + 0.15 * texture) + (fat - muscle) * seams
    canvas.paint(EVERYWHERE, body + np.float32(5) + 2 * sheets, value)
    skull = ellipsoid((x, y, z), (0, -2, 88), (64, 82, 58))
    canvas.paint(EVERYWHERE, skull, 0.05)
    canvas.paint(EVERYWHERE, skull + np.float32(6), rng.uniform(0.12, 0.2) * (1 + 0.1 * texture))
    del body, neck, head, jaw, skull
    for middle, radii, value in (
        ((0, -14, -60), (13, 12, 110), 0.09),  # spine
        ((0, 20, -70), (8, 8, 75), 0.0),  # airway
        ((0, 36, 34), (10, 16, 22), 0.02),  # nose
        ((0, 22, 12), (9, 7, 26), 0.0),  # throat
    ):
        box = patient.box(np.subtract(middle, radii), np.add(middle, radii))
        shape = ellipsoid(patient.within(box), middle, radii) + patient.noise(12.0, rng, box)
        canvas.paint(box, shape, value)
    for side in (1, -1):
        box = patient.box((side * 40 - 10, -5, -25), (side * 40 + 10, 60, 50))
        at = patient.within(box)
        canvas.paint(box, ellipsoid(at, (side * 44, 18, 10), (4, 26, 30), (0, 0, side * 12)), 0.04)


def _paint_gland(
    canvas: Canvas,
    patient: Patient,
    middle: np.ndarray,
    radii: Sequence[float],
    turn: np.ndarray,
    rng: np.random.Generator,
) -> None:
    middle = middle + rng.normal(0, 2, 3)
    radii = np.maximum(np.multiply(radii, rng.uniform(0.8, 1.2)), 0.7 * patient.voxel)
    reach = float(radii.max())
    box = patient.box(middle - reach, middle + reach)
    lumps = patient.noise(7.0, rng, box)
    shape = ellipsoid(patient.within(box), middle, radii, turn) + 1.2 * lumps
    canvas.paint(box, shape, rng.uniform(0.6, 1.0) * (1 + 0.12 * lumps), GLAND)


def _measure(brightness: np.ndarray, patient: Patient, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What the scanner makes of true brightness: blur, the coils' uneven sensitivity, noise of the magnitude (Rice)."""
    shown = gaussian_filter(brightness, 0.45, truncate=3.0)
    shown *= np.exp(np.float32(0.16) * patient.noise(90.0, rng))
    z = (patient.axes[2] - patient.axes[2].mean()) / np.float32(0.5 * patient.extent[2])
    shown *= 1 - np.float32(rng.uniform(0.15, 0.4)) * z**4  # the coil ends above and below
    real, imaginary = (np.float32(noise) * rng.standard_normal(shown.shape, dtype=np.float32) for _ in range(2))
    return np.hypot(shown + real, imaginary)


HEAD_NECK = Phantom(
    make=make_head_neck,
    size=SIZE,
    description="Neck and head in contrast-enhanced MR angiography with the arteries of the brain; made by a program",
    modality={"0": "MR"},
    labels={"0": "background", "1": "vessel"},
    notes={"reference": "made after the description of the data in arXiv 1910.10398, section 4"},
)
