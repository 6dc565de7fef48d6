"""The organs of the upper abdomen, painted into a torso in portal-venous CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..arguments import parse_amount, parse_triple
from .anatomy import Box, Canvas, Patient, ellipsoid, push_aside, smooth_union, spline_tube, tube_distance
from .ct import AIR
from .torso import Contents, paint_bowel, paint_chest, paint_hollow, paint_kidneys, paint_skeleton, paint_wall
from .tubes import Tube
from .vessels import arteries, hepatic_veins, portal_veins, systemic_veins

connected, _ = optional_import("scipy.ndimage", name="label")

__all__ = ["NAMES", "Abdomen", "Liver", "paint_abdomen"]

FIELD_OF_VIEW = (400, 320, 300)
BACKGROUND, ARTERY, VEIN, LIVER, SPLEEN, STOMACH, GALLBLADDER, PANCREAS = range(8)
NAMES = ("background", "artery", "portal vein", "liver", "spleen", "stomach", "gallbladder", "pancreas")
MOST_NOISE = 200
# The trunks of vessels count as the liver's from where they are this deep in it, mm.
HILUM = 4.0


@dataclass(frozen=True)
class Liver:
    """A painted liver as an organ, the vessels in it included.

    Args:
        box: the voxels that hold it.
        surface: signed distance to its surface in the box, negative inside, mm; other organs may reach into it.
        inside: whether a voxel of the box belongs to it.
        brightness: of its tissue, HU.
    """

    box: Box
    surface: np.ndarray
    inside: np.ndarray
    brightness: float


@dataclass(frozen=True)
class Abdomen:
    """A painted abdomen, before the scanner.

    Args:
        patient: whose it is.
        canvas: true HU, and the labels of `NAMES`.
        noise: standard deviation that the scanner is to add in the middle of the body, HU.
        liver: where the liver is.
    """

    patient: Patient
    canvas: Canvas
    noise: float
    liver: Liver

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edges, mm."""
        return tuple(float(edge) for edge in self.patient.spacing)  # type: ignore[return-value]


def paint_abdomen(rng: np.random.Generator, size: Sequence[int], field_of_view: Any, noise: Any) -> Abdomen:
    """A torso with all organs and vessels of an abdomen in the portal-venous phase.

    Args:
        rng: source of randomness.
        size: X Y Z, voxels; X to the right, Y to the front, Z to the head.
        field_of_view: X Y Z, mm; None takes 400 x 320 x 300, some percent more or less in each case.
        noise: standard deviation in the middle of the body, whole HU; None draws it for each case, 8 to 14.

    Raises:
        InputError: for a field of view that is not three positive whole numbers, or noise below 0 or above 200.
    """
    drawn = rng.uniform(8, 14)
    extent = np.multiply(FIELD_OF_VIEW, rng.uniform(0.98, 1.06, 2)[[0, 0, 1]])
    if field_of_view is not None:
        extent = np.array(parse_triple(field_of_view, "field_of_view"), float)
    asked = parse_amount(noise, "noise", MOST_NOISE, "HU")
    grain = drawn if asked is None else float(asked)
    patient = Patient(size, extent / size, rng)
    canvas = Canvas(patient, AIR)
    cavity = paint_wall(canvas, patient, rng)
    below = paint_chest(canvas, patient, cavity, rng)
    paint_skeleton(canvas, patient, rng)
    liver = _paint_organs(canvas, patient, np.maximum(below, cavity), rng)
    return Abdomen(patient, canvas, grain, liver)


def _paint_organs(canvas: Canvas, patient: Patient, room: np.ndarray, rng: np.random.Generator) -> Liver:
    """Everything labelled, and the veins and kidneys between; later ones press into earlier ones."""
    liver, stomach, smallest = _Liver(rng), _stomach(rng), 0.6 * patient.voxel

    def inside(points: np.ndarray) -> np.ndarray:
        return np.maximum(liver(np.asarray(points, np.float32).T), -tube_distance(points, stomach))

    veins, arterial = portal_veins(rng, inside, smallest), arteries(rng, smallest)
    veins, arterial = ([push_aside(tube, stomach, 1.5) for tube in tubes] for tubes in (veins, arterial))
    paint_bowel(canvas, patient, [*veins, *arterial], room, rng)
    texture = patient.noise(6.0, rng)
    box = patient.box((-110, -100, -120), (150, 110, 130))
    shape = liver(patient.within(box)) + 1.2 * patient.noise(20.0, rng, box)
    surface, tissue = np.maximum(shape, room[box] + 0.7), rng.uniform(100, 122)
    canvas.paint(box, surface, tissue + 5 * texture[box], LIVER)
    _paint_spleen(canvas, patient, room, texture, rng)
    paint_kidneys(canvas, patient, rng)
    wall = _paint_stomach(canvas, patient, stomach, room, rng)
    _paint_pancreas(canvas, patient, stomach, wall, texture, rng)
    _paint_gallbladder(canvas, patient, rng)
    # What is the liver's before vessels run through it, is so after, except for the trunks at its surface and the cava.
    whole = canvas.label[box] == LIVER

    portal = rng.uniform(158, 182)
    systemic, hepatic = systemic_veins(rng), hepatic_veins(rng, inside, smallest)
    for tubes, hu, label in (
        (systemic, rng.uniform(122, 162), BACKGROUND),
        (hepatic, portal - rng.uniform(4, 22), BACKGROUND),
        (veins, portal, VEIN),
        (arterial, rng.uniform(140, 172), ARTERY),
    ):
        part, outer, _, _ = patient.tubes(tubes)
        if tubes is veins or tubes is hepatic:  # they end where the diaphragm cuts the liver off
            outer = np.maximum(outer, room[part] + 2)
        canvas.paint(part, outer, hu + 2 * texture[part], label)
        if tubes is systemic:
            whole &= canvas.label[box] == LIVER
    whole &= (canvas.label[box] == LIVER) | (surface < -HILUM)
    return Liver(box, surface, _in_one_piece(whole), tissue)


def _in_one_piece(mask: np.ndarray) -> np.ndarray:
    """A mask without the crumbs that other organs cut off."""
    parts, count = connected(mask, np.ones((3, 3, 3), bool))
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax() if count else mask


class _Liver:
    """Signed distance to a liver, in the average patient's coordinates: two lobes and a caudate one, cut off below."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.right = rng.uniform(0.93, 1.05, 3) * (64, 73, 104)
        self.left = rng.uniform(0.85, 1.1, 3) * (74, 34, 35)
        self.reach = rng.uniform(-14, 8)
        down = np.array((-0.55, -0.42, -0.8)) + rng.normal(0, 0.06, 3)
        self.down = down / np.linalg.norm(down)

    def __call__(self, at: Sequence[np.ndarray]) -> np.ndarray:
        right = ellipsoid(at, (66, -1, 20), self.right)
        under = sum((np.float32(n) * (x - np.float32(c)) for n, x, c in zip(self.down, at, (40, 0, -14))))
        right = -smooth_union(-right, -under, 9.0)
        left = ellipsoid(at, (2 + self.reach, 42, 42), self.left, (0, 6, 6))
        caudate = ellipsoid(at, (14, -2, 40), (17, 14, 24))
        return smooth_union(smooth_union(right, left, 9.0), caudate, 5.0)


def _paint_spleen(
    canvas: Canvas, patient: Patient, room: np.ndarray, texture: np.ndarray, rng: np.random.Generator
) -> None:
    box = patient.box((-160, -100, -70), (-40, 60, 120))
    at = patient.within(box)
    middle = np.array((-97, -34, 26)) + rng.normal(0, 3, 3)
    body = ellipsoid(at, middle, rng.uniform(0.9, 1.16, 3) * (30, 43, 52), (-24, 14, -16))
    hollow = ellipsoid(at, middle + (33, 22, -2), (26, 36, 50), (-24, 14, -10))
    shape = np.maximum(-smooth_union(-body, hollow, 3.0) + 0.9 * patient.noise(18.0, rng, box), room[box] + 1)
    canvas.paint(box, shape, rng.uniform(110, 132) + 4 * texture[box], SPLEEN)


def _stomach(rng: np.random.Generator) -> Tube:
    path = [(-54, -16, 58), (-60, -6, 50), (-65, 18, 30), (-58, 38, 4), (-34, 48, -18), (-8, 49, -25), (14, 44, -24)]
    path += [(30, 37, -22)]
    radii = np.array((26, 30, 29, 25, 21, 18, 14, 9)) * rng.uniform(0.84, 1.06) * rng.uniform(0.94, 1.06, 8)
    return spline_tube(path, radii, rng.uniform(3.0, 4.5), rng, 3.0, 2.5)


def _paint_stomach(
    canvas: Canvas, patient: Patient, tube: Tube, room: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    drink = rng.uniform(120, 230) if rng.random() < 0.25 else rng.uniform(4, 30)
    meal = rng.uniform(60, 110) if rng.random() < 0.5 else 0.0
    contents = Contents(drink + 0.3 * meal, rng.uniform(0.12, 0.45), meal)
    return paint_hollow(canvas, patient, [tube], rng.uniform(65, 95), contents, rng, STOMACH, room + 1.5)


def _paint_pancreas(
    canvas: Canvas, patient: Patient, stomach: Tube, surface: np.ndarray, texture: np.ndarray, rng: np.random.Generator
) -> None:
    path = [(34, 8, -42), (29, 14, -26), (14, 25, -15), (-8, 26, -4), (-32, 14, 6), (-58, -6, 15), (-82, -22, 23)]
    size = rng.uniform(0.92, 1.18)
    radii = np.array((14, 15, 10, 10, 11, 11, 8)) * size
    gland = push_aside(spline_tube(path, radii, 0.0, rng, 3.0), stomach, -2.0)
    process = spline_tube([(30, 6, -42), (20, 0, -46), (9, -2, -48)], np.array((12, 9, 6)) * size)
    box, shape, _, _ = patient.tubes([gland, process], 8.0)
    lobules = patient.noise(7.5, rng, box)
    shape = shape + 1.5 * lobules + 1.5 * patient.noise(16.0, rng, box)
    shape = np.maximum(shape, -surface[box])
    hu = rng.uniform(97, 115) + 5 * texture[box] - rng.uniform(10, 45) * np.clip(lobules - 0.6, 0, 1)
    canvas.paint(box, shape, hu, PANCREAS)
    duct = Tube(gland.points, np.full(len(gland.points), 1.4), gland.inner, gland.kind)
    box, shape, _, _ = patient.tubes([duct])
    canvas.paint(box, np.where(canvas.label[box] == PANCREAS, shape, np.float32(9)), 45.0, PANCREAS)


def _paint_gallbladder(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    full = rng.uniform(0.75, 1.15)
    path = np.array([(39, 21, -16), (47, 33, -25), (55, 47, -41), (60, 56, -54)]) + rng.normal(0, 3, 3)
    tube = spline_tube(path, np.array((5, 10, 15.5, 15)) * full, 1.2, rng, 2.0)
    paint_hollow(canvas, patient, [tube], 62.0, Contents(rng.uniform(2, 18)), rng, GALLBLADDER)
