"""The vessels of the abdomen as tubes in the average patient: aorta, portal vein and hepatic veins with branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .anatomy import spline_tube
from .tubes import Tube

__all__ = ["arteries", "hepatic_veins", "portal_veins", "systemic_veins"]

Inside = Callable[[np.ndarray], np.ndarray]


def arteries(rng: np.random.Generator, smallest: float) -> list[Tube]:
    """Aorta with iliac, coeliac, hepatic, splenic, gastric, mesenteric and renal branches.

    Args:
        rng: source of randomness.
        smallest: no radius is less, mm.
    """
    wide = rng.uniform(8.2, 10.8)
    trunk = np.array((-9, 10, 27)) + rng.normal(0, 2, 3)
    fork = np.array((-5, -9, -112)) + rng.normal(0, 2, 3)
    mesenteric = np.array([(-10.0, -13, 11), (-7, 2, 2), (-5, 7, -28), (-4, 13, -62), (0, 22, -112)])
    mesenteric[1:] += rng.normal(0, 1.5, (4, 3))
    upper, lower = rng.uniform(-26, -14, 2)
    courses: list[tuple[Sequence, Sequence]] = [
        (
            [(-10, -26, 240), (-10, -23, 120), (-9, -15, 55), (-10, -13, 0), (-8, -11, -70), fork],
            [1.1, 1.1, 1, 0.95, 0.85, 0.8],
        ),
        ([fork, (-20, -6, -140), (-40, 6, -190), (-58, 24, -250)], [0.62, 0.58, 0.55, 0.5]),
        ([fork, (12, -7, -140), (36, 6, -190), (56, 24, -250)], [0.62, 0.58, 0.55, 0.5]),
    ]
    courses = [(points, np.multiply(radii, wide)) for points, radii in courses]
    courses += [
        ([(-10, -14, 20), (-9, 2, 25), trunk], [4.2, 4.0, 3.8]),
        ([trunk, (9, 15, 21), (25, 22, 16), (36, 24, 23), (46, 21, 35)], [3.3, 3.0, 2.7, 2.3, 1.9]),
        (
            [trunk, (-22, 2, 25), (-35, 4, 14), (-50, -12, 22), (-66, -17, 21), (-85, -25, 34)],
            [3.4, 3.1, 3.0, 2.8, 2.6, 2.2],
        ),
        ([trunk, (-15, 14, 42), (-24, 14, 56)], [2.2, 2.0, 1.7]),
        (mesenteric, [4.2, 4.0, 3.7, 3.3, 2.5]),
        ([mesenteric[3], (16, 20, -84), (46, 16, -112)], [2.4, 2.1, 1.7]),
        ([mesenteric[2], (-22, 18, -46), (-46, 24, -62)], [2.2, 2.0, 1.6]),
        ([mesenteric[3], (-24, 24, -88), (-44, 26, -112)], [2.2, 1.9, 1.6]),
        ([(-9, -14, lower), (14, -28, lower - 8), (45, -34, lower - 24)], [3.2, 2.8, 2.4]),
        ([(-9, -14, upper), (-28, -25, upper - 4), (-50, -34, upper - 16)], [3.2, 2.8, 2.4]),
    ]
    return [spline_tube(points, radii, 0.0, rng, 2.0, smallest=smallest) for points, radii in courses]


def portal_veins(rng: np.random.Generator, inside: Inside, smallest: float) -> list[Tube]:
    """Portal vein, splenic and mesenteric veins, and the tree within the liver.

    Args:
        rng: source of randomness.
        inside: signed distance of N points to the liver's surface, negative in it.
        smallest: no radius is less, mm.
    """
    wide = rng.uniform(0.88, 1.12)
    meet = np.array((9, 17, -19)) + rng.normal(0, 2, 3)
    hilum = np.array((40, 12, 29)) + rng.normal(0, 2, 3)
    left, right = np.array((-10, 40, 44)) + rng.normal(0, 3, 3), np.array((60, 6, 27)) + rng.normal(0, 3, 3)
    middle = np.array((-32, 2, 2)) + rng.normal(0, 2, 3)
    low = np.array((10, 20, -82)) + rng.normal(0, 3, 3)
    courses = [
        ([(12, 26, -128), low, (10, 14, -48), meet], [4.5, 5.2, 5.8, 6.4]),
        ([meet, (16, 13, -4), (28, 12, 14), hilum], [7.6, 7.4, 7.0, 6.6]),
        ([(-90, -28, 15), (-60, -15, 7), middle, (-9, 18, -9), meet], [3.4, 4.2, 4.6, 4.9, 5.4]),
        ([middle, (-36, 2, -45), (-54, -8, -112)], [2.7, 2.4, 1.9]),
        ([low, (34, 22, -108), (60, 14, -130)], [3.0, 2.6, 2.0]),
        ([low, (-16, 28, -92), (-38, 28, -108)], [2.8, 2.4, 1.9]),
        ([hilum, (24, 19, 37), (6, 32, 42), left], [5.2, 4.8, 4.4, 3.8]),
        ([hilum, right], [5.8, 5.4]),
    ]
    tubes = [
        spline_tube(points, np.multiply(radii, wide), 0.0, rng, 1.8, smallest=smallest) for points, radii in courses
    ]
    for start, way, radius in (
        (right, (0.6, 0.75, 0.1), 4.4),
        (right, (0.7, -0.65, -0.35), 4.6),
        (right, (0.7, 0.1, 0.6), 3.4),
        (left, (-0.9, 0.3, 0.2), 3.2),
        (left, (-0.2, 0.6, -0.7), 2.9),
    ):
        tubes += _sprout(rng, start, np.array(way), radius * wide, inside, smallest)
    return tubes


def systemic_veins(rng: np.random.Generator) -> list[Tube]:
    """Inferior vena cava with iliac and renal veins."""
    wide = rng.uniform(0.8, 1.1)
    fork = np.array((16, -17, -116)) + rng.normal(0, 2, 3)
    cava = [fork, (19, -17, -65), (21, -15, -10), (25, -15, 45), (25, -10, 84), (14, 6, 128)]
    courses = [
        (cava, [9.5, 10.5, 11.5, 12.5, 12.5, 13]),
        ([fork, (32, -13, -145), (50, 2, -195), (66, 16, -250)], [7.5, 7, 6.5, 6.5]),
        ([fork, (-8, -19, -138), (-42, -6, -190), (-62, 14, -250)], [7.5, 7, 6.5, 6.5]),
        ([(21, -15, -24), (40, -28, -36), (52, -34, -46)], [5.5, 5, 4.5]),
        ([(20, -15, -18), (-4, 0, -16), (-26, -12, -24), (-50, -34, -36)], [5, 3.8, 4.8, 4.5]),
    ]
    return [spline_tube(points, np.multiply(radii, wide), 0.0, rng, 1.5) for points, radii in courses]


def hepatic_veins(rng: np.random.Generator, inside: Inside, smallest: float) -> list[Tube]:
    """The three veins from the liver to the cava, with branches; the arguments of `portal_veins`."""
    tubes = []
    for path in (
        [(25, -8, 80), (50, -14, 70), (78, -24, 48), (96, -26, 14)],
        [(24, -2, 80), (36, 16, 66), (50, 32, 40), (58, 38, 4)],
        [(20, 0, 78), (10, 16, 68), (-12, 34, 58), (-36, 42, 50)],
    ):
        trunk = spline_tube(path, np.array((5.2, 4.8, 3.9, 2.4)) * rng.uniform(0.85, 1.1), 0.0, rng, 4.0)
        trunk = _kept(trunk, inside, -3.0)
        if trunk is None:
            continue
        tubes.append(trunk)
        for share in (0.35, 0.55, 0.75, 0.97):
            k = int(share * (len(trunk.points) - 1))
            way = trunk.points[min(k + 2, len(trunk.points) - 1)] - trunk.points[max(k - 2, 0)]
            way = _unit(_unit(way) + 0.8 * _unit(rng.normal(size=3)))
            tubes += _sprout(rng, trunk.points[k], way, 0.7 * trunk.outer[k], inside, smallest)
    return tubes


def _sprout(
    rng: np.random.Generator, start: np.ndarray, way: np.ndarray, radius: float, inside: Inside, smallest: float
) -> list[Tube]:
    """A branch that bends and forks in two, again and again, until it is thin or leaves the organ."""
    if radius < 1.5:
        return []
    way, length = _unit(way), 6.0 * radius + rng.uniform(6, 14)
    bend = _unit(way + 0.35 * rng.normal(size=3))
    middle, end = start + 0.5 * length * way, start + length * _unit(way + bend)
    tube = _kept(spline_tube([start, middle, end], [radius, 0.92 * radius, 0.82 * radius], smallest=smallest), inside)
    if tube is None:
        return []
    tubes = [tube]
    aside = _unit(np.cross(bend, rng.normal(size=3)))
    spread = rng.uniform(0.4, 0.75)
    for side, share in ((spread, rng.uniform(0.72, 0.85)), (-1.2 * spread, rng.uniform(0.55, 0.75))):
        tubes += _sprout(rng, tube.points[-1], bend + side * aside, share * radius, inside, smallest)
    return tubes


def _kept(tube: Tube, inside: Inside, depth: float = -5.0) -> Tube | None:
    """The tube from its start to where it first comes nearer than `depth` to the surface; None for hardly anything."""
    shallow = inside(tube.points) > depth
    shallow[: len(shallow) // 6] = False  # it may begin at the hilum
    stop = int(shallow.argmax()) if shallow.any() else len(shallow)
    if stop < 4:
        return None
    return Tube(tube.points[:stop], tube.outer[:stop], tube.inner[:stop], tube.kind[:stop])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
