"""A torso around the organs of a CT phantom: wall, bones, chest, kidneys, bowel, table; none of it is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .anatomy import EVERYWHERE, Canvas, Patient, ellipsoid, girdle, heights, smooth_union, spline_tube
from .ct import AIR
from .tubes import Tube

__all__ = ["Contents", "paint_bowel", "paint_chest", "paint_hollow", "paint_kidneys", "paint_skeleton", "paint_wall"]

FAT, MUSCLE, BLOOD = -100.0, 58.0, 145.0


@dataclass(frozen=True)
class Contents:
    """What is in a hollow organ.

    Args:
        fluid: HU.
        gas: share of the lumen that is gas; it gathers at the front of a patient lying supine.
        lumps: standard deviation of HU of what floats in the fluid; food and faeces hold fat and small bubbles.
    """

    fluid: float
    gas: float = 0.0
    lumps: float = 0.0


def paint_wall(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """The table, the skin, the fat beneath it, the muscles and the fat that the organs lie in.

    Returns:
        signed distance to the wall of the cavity, negative in it, X Y Z, mm.
    """
    _paint_table(canvas, patient)
    x, y, z = patient.coordinates
    stout, rump = rng.uniform(0, 1), 0.03 * rng.standard_normal()
    # Hips and chest differ in girth.
    swell = 1 + np.float32(rump / 150) * z
    x, y = x / swell, y / swell
    body = girdle(x, y + 2, 154 + 10 * stout, 105 + 9 * stout, 2.5)
    muscle = girdle(x, y + 4, 138 + 3 * stout, 91 + 2 * stout, 2.4)
    cavity = girdle(x, y - np.float32(2), 125, 78, 2.35)
    del x, y
    texture = patient.noise(7.0, rng)
    canvas.paint(EVERYWHERE, body, 25.0)
    canvas.paint(EVERYWHERE, body + np.float32(2.2), FAT + 6 * texture)
    # A seam of fat between the layers of muscle.
    seam = np.exp(-(((muscle + np.float32(6)) / np.float32(1.4)) ** 2))
    canvas.paint(EVERYWHERE, muscle, MUSCLE + 7 * texture - 75 * seam)
    # Stringy vessels and lymph nodes, too small to be drawn one by one, speckle the fat of the cavity.
    strands = np.clip(patient.noise(6.0, rng) - 1.5, 0, 1)
    canvas.paint(EVERYWHERE, cavity, FAT - 4 + 5 * texture + 90 * strands)
    for side in (-1, 1):
        box = patient.box((side * 34 - 34, -106, -400), (side * 34 + 34, -14, 400))
        at = patient.within(box)
        back = ellipsoid((at[0], at[1], np.float32(0)), (side * 33, -76, 0), (29, 17, 1e3), (0, 0, side * 8))
        canvas.paint(box, np.maximum(back, muscle[box]), MUSCLE + 7 * texture[box])
        psoas = ellipsoid(at, (side * 40, -46, -175), (20, 18, 150), (0, side * -4, 0))
        canvas.paint(box, psoas, MUSCLE + 4 + 6 * texture[box])
    return cavity


def paint_skeleton(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Vertebrae with discs and canal, ribs with their cartilages, breastbone, hips."""
    _paint_spine(canvas, patient, rng)
    first = rng.uniform(-6, 6)
    # Height at the spine and how far round the body each rib reaches, degrees.
    for level, end in ((166, 150), (137, 150), (108, 146), (79, 128), (50, 96), (22, 58)):
        for side in (-1, 1):
            rib = _rib(side, level + first, end)
            box, outer, inner, along = patient.tubes([rib])
            cartilage = (along > 100 * 118 / end).astype(np.float32)
            canvas.paint(box, outer, 620 - 510 * cartilage)
            canvas.paint(box, inner, 230 - 120 * cartilage)
    box = patient.box((-20, 60, 100), (20, 100, 400))
    canvas.paint(box, ellipsoid(patient.within(box), (0, 82, 190), (17, 7, 75), (8, 0, 0)), 330.0)
    for side in (-1, 1):
        box = patient.box((side * 105 - 40, -90, -400), (side * 105 + 40, 50, -95))
        hip = ellipsoid(patient.within(box), (side * 108, -28, -165), (11, 55, 55), (0, 0, side * -28))
        canvas.paint(box, hip, 560.0)
        canvas.paint(box, hip + 3, 220.0)


def paint_chest(canvas: Canvas, patient: Patient, cavity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The diaphragm and what is above it: lungs, heart, gullet.

    Args:
        canvas: to paint on.
        patient: whose chest it is.
        cavity: signed distance to the wall of the cavity, X Y Z, mm.
        rng: source of randomness.

    Returns:
        signed distance to the diaphragm, negative below it, X Y Z, mm.
    """
    x, y, z = patient.coordinates
    high = np.maximum(z, np.float32(-20))
    breath = rng.uniform(-10, 10)
    right = ellipsoid((x, y, high), (58, 4, -20), (88, 104, 122 + breath))
    left = ellipsoid((x, y, high), (-60, 0, -20), (86, 102, 93 + breath))
    below = smooth_union(smooth_union(right, left, 22.0), z - np.float32(25), 8.0)
    canvas.paint(EVERYWHERE, np.maximum(cavity, -below), MUSCLE)
    box = patient.box((-400, -400, 15), (400, 400, 400))
    over, wall = below[box], cavity[box]
    vessels = np.clip(patient.noise(7.0, rng, box) - 1.1, 0, 1)
    lungs = -840 + 25 * patient.noise(25.0, rng, box) + 650 * vessels
    canvas.paint(box, np.maximum(wall + 1, 3 - over), lungs)
    at = patient.within(box)
    middle = ellipsoid((at[0], at[1], np.float32(0)), (-3, 6, 0), (33, 98, 1e3))
    canvas.paint(box, np.maximum(np.maximum(middle, wall), 2 - over), FAT + 8 * patient.noise(10.0, rng, box))
    heart = ellipsoid(at, (-22, 38, 152), (62, 38, 58), (0, 12, 20))
    canvas.paint(box, np.maximum(np.maximum(heart, wall + 2), 2 - over), 105.0)
    canvas.paint(box, np.maximum(np.maximum(heart + 9, wall + 10), 9 - over), BLOOD)
    gullet = spline_tube([(-6, -16, 210), (-8, -15, 130), (-16, -6, 100), (-34, -2, 78)], [9, 9, 9, 10], 5.0)
    box, outer, inner, _ = patient.tubes([gullet])
    canvas.paint(box, outer, 52.0)
    canvas.paint(box, inner, 30.0)
    return below


def paint_kidneys(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Kidneys with cortex, pyramids, pelvis and the fat around them, and adrenals: as bright as the vessels."""
    bright = rng.uniform(178, 205)
    for side, height in ((1, -52), (-1, -38)):
        middle = np.array((side * rng.uniform(60, 66), -42 + rng.uniform(-4, 4), height + rng.uniform(-10, 8)))
        adrenal = middle + (side * -19, 22, 48)
        for lean in (-28, 22):  # two limbs that meet at the front
            limb = adrenal + 11 * np.array((np.sin(np.deg2rad(lean)), -np.cos(np.deg2rad(lean)), 0))
            box = patient.box(limb - 18, limb + 18)
            canvas.paint(box, ellipsoid(patient.within(box), limb, (2.4, 13, 13), (12, 0, lean)), 72.0)
        box = patient.box(middle - (48, 48, 80), middle + (48, 48, 80))
        at, turn = patient.within(box), (-10.0, side * -12.0, side * 30.0)
        bumps = 1.2 * patient.noise(16.0, rng, box)
        kidney = ellipsoid(at, middle, rng.uniform(0.93, 1.07, 3) * (26, 30, 55), turn) + bumps
        hilum = ellipsoid(at, middle + (side * -25, 12, 0), (17, 17, 21), turn)
        canvas.paint(box, kidney - rng.uniform(3, 7), FAT)
        shape = np.maximum(kidney, -hilum)
        canvas.paint(box, shape, bright + 3 * bumps)
        pyramids = np.maximum(kidney + 7.5, 5 - hilum) + 5 * np.clip(patient.noise(13.0, rng, box), -0.4, 1)
        canvas.paint(box, pyramids, bright - 32)
        pelvis = ellipsoid(at, middle + (side * -15, 8, 0), (11, 9, 13), turn)
        canvas.paint(box, pelvis, 12.0 if rng.random() < 0.7 else 320.0)


def paint_bowel(
    canvas: Canvas, patient: Patient, clear: Sequence[Tube], room: np.ndarray, rng: np.random.Generator
) -> None:
    """Duodenum, coils of small bowel, colon: wall and contents as the stomach has them.

    Args:
        canvas: to paint on.
        patient: whose bowel it is.
        clear: tubes that no coil runs into.
        room: signed distance to the wall of the cavity, X Y Z, mm.
        rng: source of randomness.
    """
    free = np.concatenate([tube.points[::4] for tube in clear])
    drunk = rng.random() < 0.4  # positive contrast has been given by mouth
    for _ in range(70):
        middle = rng.uniform(-1, 1, 3) * (62, 30, 52) + (-8, 30, -108)
        path = middle + np.cumsum(rng.normal(0, 1, (4, 3)) * (20, 15, 15), axis=0)
        path = np.clip(path, (-95, -12, -400), (90, 66, -52))
        loop = spline_tube(path, rng.uniform(9, 13) * rng.uniform(0.85, 1.15, 4), rng.uniform(2.0, 3.5), step=2.0)
        apart = np.linalg.norm(loop.points[:, None] - free, axis=2).min(axis=1)
        if np.any(apart < loop.outer + 3):
            continue
        fluid = rng.uniform(130, 260) if drunk and rng.random() < 0.6 else rng.uniform(8, 45)
        gas = rng.uniform(0.2, 0.7) if rng.random() < 0.25 else 0.0
        paint_hollow(canvas, patient, [loop], rng.uniform(60, 100), Contents(fluid, gas), rng, within=room)
    colon = [
        [(98, -28, -240), (98, -20, -150), (97, -14, -100), (92, 12, -74), (72, 42, -78)],
        [(72, 42, -78), (45, 58, -88), (0, 66, -92), (-45, 60, -78), (-82, 34, -48)],
        [(-82, 34, -48), (-104, 2, -18), (-108, -18, -40), (-106, -26, -110), (-104, -26, -240)],
    ]
    for path, radii in zip(colon, ((25, 24, 22, 20, 19), (19, 17, 16, 17, 17), (17, 17, 15, 14, 13))):
        part = spline_tube(path, np.multiply(radii, rng.uniform(0.75, 1.1)), 2.2, rng, 6.0, 2.0)
        sacs = 1 + 0.13 * np.sin(np.arange(len(part.outer)) * 2.0 / 26 * 2 * np.pi + rng.uniform(0, 6))
        part = Tube(part.points, part.outer * sacs, part.inner * sacs, part.kind)
        stool = Contents(rng.uniform(0, 50), rng.uniform(0.0, 0.75), lumps=70.0)
        paint_hollow(canvas, patient, [part], 62.0, stool, rng, within=room)
    duodenum = [
        (30, 36, -22),
        (46, 22, -26),
        (54, 4, -42),
        (48, -8, -64),
        (18, -6, -74),
        (-20, -4, -66),
        (-34, 16, -50),
    ]
    part = spline_tube(duodenum, [11, 12, 12, 12, 10, 10, 10], 3.0, rng, 2.5, 2.0)
    fluid = rng.uniform(130, 260) if drunk else rng.uniform(10, 35)
    paint_hollow(canvas, patient, [part], 80.0, Contents(fluid, 0.3 if rng.random() < 0.3 else 0.0), rng)


def paint_hollow(
    canvas: Canvas,
    patient: Patient,
    tubes: Sequence[Tube],
    wall: float,
    contents: Contents,
    rng: np.random.Generator,
    label: int = 0,
    within: np.ndarray | None = None,
) -> np.ndarray:
    """A hollow organ with its contents.

    Args:
        canvas: to paint on.
        patient: whose organ it is.
        tubes: the organ, with the thickness of its wall.
        wall: its HU.
        contents: of its lumen.
        rng: source of randomness.
        label: of wall and contents.
        within: signed distance to what holds the organ, X Y Z, mm.

    Returns:
        signed distance to the organ's surface, X Y Z, mm; positive and not right far from it.
    """
    box, outer, inner, _ = patient.tubes(tubes)
    wobble = 0.9 * patient.noise(14.0, rng, box)
    outer, inner = outer + wobble, inner + wobble
    if within is not None:
        thick = np.float32(np.median(tubes[0].outer - tubes[0].inner))
        outer, inner = np.maximum(outer, within[box]), np.maximum(inner, within[box] + thick)
    canvas.paint(box, outer, wall, label)
    hu = np.full(inner.shape, contents.fluid, np.float32)
    if contents.lumps:
        grain = patient.noise(6.0, rng, box)
        hu += contents.lumps * (0.35 * patient.noise(13.0, rng, box) + 0.5 * np.minimum(grain, 0.5))
        hu -= 350 * np.clip(grain - 1.6, 0, 1)
    canvas.paint(box, inner, hu, label)
    above = np.broadcast_to(heights(patient, box), inner.shape)
    if contents.gas > 0 and (inner < 0).any():
        level = np.float32(np.quantile(above[inner < 0], 1 - contents.gas))
        canvas.paint(box, np.maximum(inner, level - above), AIR, label)
    whole = np.full(patient.shape, outer.max(initial=1), np.float32)
    whole[box] = outer
    return whole


def _paint_table(canvas: Canvas, patient: Patient) -> None:
    x, y, _ = (axis - np.float32(centre) for axis, centre in zip(patient.axes, patient.centre))
    x, y = x[:, None, None], y[None, :, None]
    # A shallow trough of foam in a thin shell, a gap below the patient's back.
    trough = y + np.float32(126) - np.float32(0.0005) * x * x
    plate = np.maximum(np.abs(trough) - np.float32(10), np.abs(x) - np.float32(190))
    plate = np.ascontiguousarray(np.broadcast_to(plate, patient.shape))
    canvas.paint(EVERYWHERE, plate, 10.0)
    canvas.paint(EVERYWHERE, plate + np.float32(4), -930.0)


def _paint_spine(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    box = patient.box((-48, -106, -400), (48, -18, 400))
    x, y, z = patient.within(box)
    period, start = 33.0, rng.uniform(0, 33)
    z = np.mod(z + np.float32(start), np.float32(period)) - np.float32(period / 2)
    flat = np.float32(0)
    column = ellipsoid((x, y, flat), (0, -45, 0), (23, 17, 1e3))
    waist = column + np.float32(0.012) * (144 - np.minimum(z * z, 144))
    disc = np.float32(12.5) - np.abs(z)
    grain = patient.noise(6.0, rng, box)
    canvas.paint(box, column, 92.0)
    bone = np.maximum(waist, -disc)
    canvas.paint(box, bone, 520.0)
    canvas.paint(box, bone + np.float32(2.5), 185 + 35 * grain)
    arch = ellipsoid((x, y, z), (0, -88, -4), (3.6, 14, 11))
    for side in (-1, 1):
        pedicle = ellipsoid((x, y, z), (side * 13, -66, 2), (5.5, 15, 8), (0, 0, side * 8))
        process = ellipsoid((x, y, z), (side * 26, -72, 2), (18, 4.5, 6), (0, 0, side * -14))
        lamina = ellipsoid((x, y, z), (side * 9, -79, -3), (11, 4, 11), (0, 0, side * 28))
        arch = np.minimum(np.minimum(arch, lamina), np.minimum(pedicle, process))
    canvas.paint(box, arch, 480.0)
    canal = ellipsoid((x, y, flat), (0, -69.5, 0), (10.5, 8, 1e3))
    canvas.paint(box, canal, -20.0)
    canvas.paint(box, canal + 2, 32.0)


def _rib(side: int, level: float, end: float) -> Tube:
    """From the spine round to the front, sinking on its way and rising again in its cartilage."""
    angle = np.deg2rad(np.linspace(17, end, 9))
    sink = np.where(angle < 2.05, 38 * angle, 38 * 2.05 - 45 * (angle - 2.05))
    points = np.stack([side * 132 * np.sin(angle), -3 - 84 * np.cos(angle), level + 8 - sink], axis=1)
    return spline_tube(points, [4.6] * 7 + [4.2, 3.6], 2.2, step=3.0)
