"""A pelvis around the organs of an MR phantom: skin, fat, bones, muscles, great vessels; none of it is labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .anatomy import EVERYWHERE, Box, Canvas, Patient, ellipsoid, girdle, smooth_union, spline_tube

__all__ = ["paint_body", "paint_bones", "paint_muscles", "paint_vessels"]

# Muscles of the right side: middle, half axes, turns (degrees) of ellipsoids; the left ones are mirrored.
MUSCLES = (
    ((72, -66, -18), (64, 22, 95), (0, 0, 20)),  # gluteus maximus
    ((112, -12, 42), (46, 13, 44), (0, 0, 58)),  # gluteus medius
    ((82, 2, 48), (42, 10, 48), (0, 0, 54)),  # iliacus
    ((54, -2, -10), (8, 33, 40), (0, 0, 4)),  # obturator internus
    ((44, 24, -46), (28, 10, 14), (0, 0, -28)),  # obturator externus
    ((58, 46, -52), (22, 11, 22), (0, 20, -30)),  # pectineus
    ((46, 22, -84), (34, 26, 28), (0, 0, 0)),  # adductors
    ((122, 44, -12), (13, 16, 60), (0, 0, -20)),  # tensor of the fascia lata
    ((98, 56, -50), (17, 12, 50), (0, 0, 0)),  # rectus femoris, sartorius
    ((96, 22, -72), (24, 20, 34), (0, 0, 0)),  # quadriceps
    ((86, -28, -62), (18, 9, 22), (0, 0, 10)),  # quadratus femoris
    ((46, -52, 18), (36, 7, 12), (0, 0, 22)),  # piriformis
    ((26, 84, 30), (27, 7, 110), (0, 0, -6)),  # rectus abdominis
    ((20, -92, 60), (19, 9, 40), (0, 0, 0)),  # multifidus
)
# Bones of the right side: points and radii of tubes.
BONES = (
    (((104, -4, -18), (114, -8, -34), (116, -2, -58), (112, 2, -110)), (15, 20, 16, 14)),  # femur
    (((74, -26, 22), (69, -32, -10), (60, -26, -36), (50, -18, -58)), (15, 13, 13, 12)),  # ischium
    (((72, 26, 14), (56, 42, -8), (34, 54, -20), (8, 58, -28)), (13, 10, 9, 11)),  # upper branch of the pubis
    (((8, 54, -38), (26, 28, -54), (46, -10, -60)), (8, 6, 9)),  # lower branch of the pubis
)


def paint_body(
    canvas: Canvas, patient: Patient, bright: Mapping[str, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Skin, the fat beneath it with its septa, the mass of muscle with seams of fat, the fat round the organs.

    Args:
        canvas: to paint on.
        patient: whose body it is.
        bright: brightness of the tissues by name.
        rng: source of randomness.

    Returns:
        texture of unit variance that all tissues share, and signed distance to the wall of the cavity, X Y Z each.
    """
    x, y, z = patient.coordinates
    stout = rng.uniform(0, 1)
    a, b = 146 + 16 * stout, 96 + 12 * stout
    body = girdle(x, y + 2, a, b, 2.9)
    cleft = ellipsoid((x, y, z), (0, -112, -72), (6, 34, 52))
    crotch = ellipsoid((x, y, z), (0, 70, -116), (8, 62, 38))
    body = np.maximum(body, -smooth_union(cleft, crotch, 6.0))
    texture, sheets = patient.noise(4.0, rng), patient.noise(20.0, rng)
    septa = np.exp(-((patient.noise(13.0, rng) / np.float32(0.09)) ** 2))
    fat = bright["fat"] * (1 + 0.04 * texture)
    canvas.paint(EVERYWHERE, body, bright["skin"])
    canvas.paint(EVERYWHERE, body + np.float32(2.5), fat * (1 - 0.25 * septa))
    muscle = girdle(x, y + 3, a - rng.uniform(14, 24), b - rng.uniform(13, 22), 2.6) + sheets
    seams = np.exp(-((sheets / np.float32(0.1)) ** 2))
    value = bright["muscle"] * (1 + 0.16 * texture) + (bright["fat"] - bright["muscle"]) * 0.85 * seams
    canvas.paint(EVERYWHERE, np.maximum(muscle, body + 6), value)
    # Wide above, between the wings of the hips; narrow and far back below, round the anal canal.
    across, deep = np.clip(51 + np.float32(0.3) * z, 33, 78), np.clip(65 + np.float32(0.2) * z, 48, 73)
    middle = np.clip(1 + np.float32(0.25) * z, -22, 9)
    cavity = girdle(x / across, (y - middle) / deep, 1.0, 1.0, 2.5) * across + 2 * sheets
    cavity = np.maximum(cavity, body + 9)
    strands = np.clip(np.abs(patient.noise(4.5, rng)) - np.float32(1.2), 0, 1)
    canvas.paint(EVERYWHERE, cavity, fat * (1 - 0.6 * strands))
    return texture, cavity


def paint_muscles(
    canvas: Canvas, patient: Patient, bright: Mapping[str, float], texture: np.ndarray, rng: np.random.Generator
) -> None:
    """Muscles as dark bundles with strands of fat in them, apart by seams of fat."""
    lean = rng.uniform(0.3, 1.6)
    size = rng.uniform(0.9, 1.05)
    for side in (1, -1):
        for middle, radii, turn in MUSCLES:
            middle = np.multiply(middle, (side, 1, 1)) + rng.normal(0, 1.5, 3)
            reach = max(radii)
            box = patient.box(middle - reach, middle + reach)
            shape = ellipsoid(patient.within(box), middle, np.multiply(radii, size), np.multiply(turn, (1, side, side)))
            _lay_muscle(canvas, box, shape, bright, texture, lean)
        psoas = spline_tube(
            [(side * x, y, z) for x, y, z in ((50, 2, 110), (60, 14, 60), (80, 44, 10), (92, 32, -50))],
            (20, 19, 17, 11),
            step=4.0,
        )
        box, shape, _, _ = patient.tubes([psoas])
        _lay_muscle(canvas, box, shape, bright, texture, lean)
    # The floor of the pelvis, a funnel round the lowest part of the rectum.
    box = patient.box((-60, -75, -70), (60, 20, -8))
    at = patient.within(box)
    funnel = ellipsoid(at, (0, -27, -16), (42, 31, 42)) + 2 * patient.noise(18.0, rng, box)
    funnel = np.abs(funnel) - np.float32(1.4)
    canvas.paint(box, np.maximum(funnel, at[2] + np.float32(20)), bright["muscle"])


def _lay_muscle(
    canvas: Canvas,
    box: Box,
    shape: np.ndarray,
    bright: Mapping[str, float],
    texture: np.ndarray,
    lean: float,
) -> None:
    strands = np.clip(texture[box] - np.float32(1.1), 0, 1) * np.float32(lean)
    value = bright["muscle"] * (1 + 0.16 * texture[box]) + (bright["fat"] - bright["muscle"]) * 0.4 * strands
    # Where it would run into another muscle, fat stays between them.
    canvas.paint(box, shape - np.float32(1.2), bright["fat"])
    canvas.paint(box, shape, value)


def paint_bones(
    canvas: Canvas, patient: Patient, bright: Mapping[str, float], texture: np.ndarray, rng: np.random.Generator
) -> None:
    """Bones: a dark rim, marrow whose share of fat varies."""
    red = rng.uniform(0.75, 1.0)

    def lay(box: Box, shape: np.ndarray, rim: float, share: float = 1.0) -> None:
        canvas.paint(box, shape, bright["cortex"])
        canvas.paint(box, shape + np.float32(rim), bright["marrow"] * share * (1 + 0.1 * texture[box]))

    for side in (1, -1):
        box = patient.box((side * 82 - 70, -90, 2), (side * 82 + 70, 60, 120))
        at = patient.within(box)
        wing = ellipsoid(at, (side * 92, -14, 58), (62, 7, 56), (0, 0, side * 54))
        lay(box, wing, 2.2, red)
        for points, radii in BONES:
            tube = spline_tube([(side * x, y, z) for x, y, z in points], radii, step=4.0)
            box, shape, _, _ = patient.tubes([tube])
            lay(box, shape, 2.2, red)
        head = np.array((side * 88, 2, -4)) + rng.normal(0, 1, 3)
        box = patient.box(head - 32, head + 32)
        ball = ellipsoid(patient.within(box), head, (24, 24, 24))
        canvas.paint(box, ball - np.float32(3), bright["cortex"])
        canvas.paint(box, ball - np.float32(1.5), bright["fluid"] * 0.6)
        lay(box, ball, 1.5)
    tail = spline_tube([(0, -80, 14), (0, -75, -6), (0, -62, -24), (0, -52, -32)], (11, 9, 6, 3), step=3.0)
    box, shape, _, _ = patient.tubes([tail], 10.0)
    lay(box, shape, 1.5, red)
    box = patient.box((-62, -105, 5), (62, -45, 120))
    at = patient.within(box)
    sacrum = ellipsoid(at, (0, -80, 60), (54, 15, 56), (12, 0, 0))
    lay(box, sacrum, 2.0, red)
    canvas.paint(box, ellipsoid(at, (0, -88, 70), (11, 5, 50), (12, 0, 0)), bright["fluid"] * 0.9)
    box = patient.box((-5, 40, -45), (5, 75, -10))
    canvas.paint(box, ellipsoid(patient.within(box), (0, 57, -28), (2.5, 12, 14)), bright["muscle"])


def paint_vessels(
    canvas: Canvas, patient: Patient, flow: Sequence[float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Great vessels on both sides.

    Args:
        canvas: to paint on.
        patient: whose vessels they are.
        flow: brightness of arteries and of veins.
        rng: source of randomness.

    Returns:
        their centre lines in the average patient, N 3 each: nodes lie beside them.
    """
    lines = []
    outer = ((34, -8, 100), (48, 14, 50), (60, 46, 15), (64, 60, -25), (66, 54, -90))
    inner = ((36, -10, 90), (40, -34, 46), (43, -40, 16), (42, -22, -12))
    for side in (1, -1):
        for path, shift, radius, value in (
            (outer, (3, 5, 0), rng.uniform(3.6, 5.0), flow[0]),
            (outer, (-7, -5, 0), rng.uniform(5.0, 7.5), flow[1]),
            (inner, (2, 2, 0), rng.uniform(1.8, 2.6), flow[0]),
            (inner, (-3, -4, 0), rng.uniform(2.2, 3.6), flow[1]),
        ):
            points = [(side * (x + shift[0]), y + shift[1], z) for x, y, z in path]
            tube = spline_tube(points, [radius] * len(points), 1.0, rng, 3.0, 2.5, 0.6 * patient.voxel)
            lines.append(tube.points)
            box, shape, lumen, _ = patient.tubes([tube])
            canvas.paint(box, shape, 0.5 * flow[0] + 0.2 * flow[1])
            canvas.paint(box, lumen, value)
    return lines
