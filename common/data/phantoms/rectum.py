"""The rectum of an MR phantom, layer by layer, and a tumour that grows from its wall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .anatomy import Box, Canvas, Patient, heights, spline_tube
from .tubes import Tube

__all__ = ["Tumour", "Wall", "draw_rectum", "draw_tumour", "paint_rectum", "paint_tumour"]

TUMOUR = 1
MUSCULARIS = 2.4
# Where along the rectum, in per cent of the tube, a tumour's middle may lie: above the anal canal, below the sigmoid.
SITES = (32.0, 66.0)
# How far from the rectum distances are known, mm.
REACH = 16.0


@dataclass(frozen=True)
class Tumour:
    """A tumour in the coordinates of the rectum: along the tube and round it.

    Args:
        site: of its middle, per cent of the tube.
        side: of its middle, radians from the front, towards the right.
        length: half of it, mm.
        girth: half the angle it takes, radians; beyond pi it closes the ring.
        inward: how far it rises into the lumen, mm.
        outward: how far it grows beyond the muscularis, mm; negative where it stays within.
        ulcer: how much of its middle has fallen in, 0 to 1.
    """

    site: float
    side: float
    length: float
    girth: float
    inward: float
    outward: float
    ulcer: float


def draw_rectum(rng: np.random.Generator) -> Tube:
    """Anal canal, rectum and the lowest sigmoid in the average patient; collapsed here, wide there."""
    path = [(0, -42, -100), (0, -32, -74), (0, -25, -54), (0, -36, -30), (2, -47, -4), (-2, -48, 24), (-9, -38, 48)]
    path += [(-26, -20, 62), (-50, -4, 74)]
    radii = np.array((12, 12, 12, 17, 19, 18, 16, 14, 13)) * rng.uniform(0.85, 1.12) * rng.uniform(0.92, 1.08, 9)
    tube = spline_tube(path, radii, 0.0, rng, 3.0, 2.0)
    full = np.interp(
        np.linspace(0, 8, len(tube.outer)), np.arange(9), rng.beta(0.6, 1.2, 9) * (0, 0, 0, 1, 1, 1, 1, 1, 1)
    )
    wall = rng.uniform(4.2, 5.5)
    return Tube(tube.points, tube.outer, 1.0 + full * np.maximum(tube.outer - wall - 1, 0), tube.kind)


def draw_tumour(rng: np.random.Generator) -> Tumour:
    """A tumour of any side, from a plaque to a closed ring."""
    return Tumour(
        site=rng.uniform(*SITES),
        side=rng.uniform(-np.pi, np.pi),
        length=rng.uniform(15, 33),
        girth=rng.uniform(1.1, 3.9),
        inward=rng.uniform(3.0, 9.0),
        outward=rng.uniform(-1.0, 6.0),
        ulcer=rng.uniform(0, 1.2) if rng.random() < 0.5 else 0.0,
    )


@dataclass
class Wall:
    """The painted rectum: its voxels, and where each of them lies in it.

    Args:
        box: voxels.
        outer: signed distance to the outer surface, mm.
        lumen: signed distance to the lumen, mm.
        along: mm from the tube's lower end.
        angle: radians from the front, towards the right.
        tube: in the average patient.
        length: of the tube in this patient, mm.
    """

    box: Box
    outer: np.ndarray
    lumen: np.ndarray
    along: np.ndarray
    angle: np.ndarray
    tube: Tube
    length: float


def paint_rectum(
    canvas: Canvas,
    patient: Patient,
    tube: Tube,
    bright: Mapping[str, float],
    texture: np.ndarray,
    rng: np.random.Generator,
) -> Wall:
    """The fat round the rectum in its fascia, the dark muscularis, the folded mucosa, what is in the lumen."""
    wall = _place(patient, tube, rng)
    box, grain = wall.box, texture[wall.box]
    strands = np.clip(np.abs(patient.noise(4.5, rng, box)) - np.float32(1.2), 0, 1)
    # The fascia wraps the fat, and ends at the pelvic floor.
    fat = wall.outer - np.float32(11) + 2 * patient.noise(20.0, rng, box)
    fat = np.maximum(fat, np.float32(0.28 * wall.length) - wall.along)
    canvas.paint(box, fat - np.float32(0.7), 0.5 * (bright["muscle"] + bright["fat"]))
    canvas.paint(box, fat + np.float32(0.7), bright["fat"] * (1 + 0.04 * grain) - 0.6 * bright["fat"] * strands)
    canvas.paint(box, wall.outer, bright["muscularis"] * (1 + 0.08 * grain))
    folds = patient.noise(4.5, rng, box)
    mucosa = bright["mucosa"] + (bright["submucosa"] - bright["mucosa"]) * np.clip(0.4 + 0.8 * folds, 0, 1)
    canvas.paint(box, wall.outer + np.float32(MUSCULARIS), mucosa * (1 + 0.06 * grain))
    _fill(canvas, patient, wall, bright, rng)
    return wall


def paint_tumour(
    canvas: Canvas,
    patient: Patient,
    wall: Wall,
    tumour: Tumour,
    bright: float,
    texture: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """The tumour over the wall that it grows from, labelled 1.

    Args:
        canvas: to paint on.
        patient: whose tumour it is.
        wall: of the rectum.
        tumour: what it is like.
        bright: its brightness.
        texture: that all tissues share, X Y Z.
        rng: source of randomness.
    """
    box = wall.box
    lumps, bumps, spikes = (patient.noise(length, rng, box) for length in (14.0, 7.0, 5.0))
    middle = np.float32(tumour.site / 100 * wall.length)
    turned = np.abs(np.mod(wall.angle - np.float32(tumour.side) + np.pi, 2 * np.pi) - np.pi).astype(np.float32)
    # 0 at its middle, 1 at its margin, which is ragged.
    away = np.hypot((wall.along - middle) / np.float32(tumour.length), turned / np.float32(tumour.girth))
    away += np.float32(0.13) * lumps
    rise = np.clip(1 - away**3, 0, 1)
    sunk = 1 - np.float32(tumour.ulcer) * np.exp(-((away / np.float32(0.4)) ** 2))
    thick = np.float32(5.0) + rise * np.float32(tumour.inward) * sunk + np.float32(1.2) * bumps
    out = rise * np.float32(tumour.outward + 1.0) - 1 + rise * (bumps + 2.8 * np.clip(spikes - 0.8, 0, 1.5))
    margin = (away - 1) * np.float32(min(tumour.length, 16 * tumour.girth))
    shape = np.maximum(np.maximum(wall.outer - out, -wall.outer - thick), margin)
    # Some lumen is left even where it closes the ring.
    radius = np.float32(np.interp(tumour.site, wall.tube.kind, wall.tube.outer))
    shape = np.maximum(shape, 2.2 - (wall.outer + radius))
    value = bright * (1 + 0.1 * texture[box] + 0.07 * lumps)
    canvas.paint(box, shape, value, TUMOUR)


def _place(patient: Patient, tube: Tube, rng: np.random.Generator) -> Wall:
    box, outer, lumen, kind = patient.tubes([tube], REACH)
    wobble = 1.8 * patient.noise(16.0, rng, box) + 0.6 * patient.noise(7.0, rng, box)
    placed = patient.locate(tube.points)
    steps = np.linalg.norm(np.diff(placed, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    # `kind` is the per cent along the tube: the middle line at each of them.
    share = np.arange(101) / 100 * along[-1]
    x, y = (np.interp(share, along, placed[:, axis]).astype(np.float32)[kind] for axis in (0, 1))
    angle = np.arctan2(patient.axes[0][box[0]][:, None, None] - x, patient.axes[1][box[1]][:, None] - y)
    where = share.astype(np.float32)[kind]
    return Wall(box, outer + wobble, lumen + wobble, where, angle, tube, float(along[-1]))


def _fill(canvas: Canvas, patient: Patient, wall: Wall, bright: Mapping[str, float], rng: np.random.Generator) -> None:
    """Stool as bright as a tumour, gel, or nothing; gas gathers at the front."""
    contents = rng.choice(["stool", "gel", "fluid"], p=[0.6, 0.2, 0.2])
    value = bright[contents] * (1 + (0.25 if contents == "stool" else 0.04) * patient.noise(5.0, rng, wall.box))
    canvas.paint(wall.box, wall.lumen, value)
    gas = rng.uniform(0.2, 0.9) if rng.random() < 0.45 else 0.0
    above = np.broadcast_to(heights(patient, wall.box), wall.lumen.shape)
    held = wall.lumen < 0
    if gas > 0 and held.any():
        level = np.float32(np.quantile(above[held], 1 - gas))
        canvas.paint(wall.box, np.maximum(wall.lumen, level - above), 0.0)
