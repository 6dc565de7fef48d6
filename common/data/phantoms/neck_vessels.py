"""The vessels of neck and head as tubes in the average patient: arteries of the brain, and all that looks like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .anatomy import push_aside, spline_tube
from .tubes import Tube

__all__ = ["Vessel", "draw_vessels"]

# Points of the average patient, mm: x to the right, y to the front, z to the head, origin in the middle of the slab.
# Those of the right side; the left ones are mirrored, and every inner point is moved at random.
CAROTID_CANAL = [(24, 1, 46), (14, 7, 50), (11, 13, 56), (10, 21, 60), (11, 19, 68), (12, 12, 72)]
VERTEBRAL = [(24, -8, -122), (17, -11, -92), (17, -13, -45), (18, -13, -2), (26, -15, 17), (28, -21, 28)]
VERTEBRAL_END = [(20, -26, 37), (9, -17, 46)]
JUGULAR_END = [(36, -8, 16), (33, -13, 34), (41, -23, 40), (48, -32, 54), (45, -46, 68), (20, -70, 72)]
# Other veins of one side, with the radii of their ends.
VEINS = (
    ([(34, -2, -124), (50, 4, -90), (55, 10, -50), (56, 4, -8), (57, 0, 32)], (2.8, 1.7)),  # external jugular
    ([(12, 24, -124), (8, 33, -92), (9, 36, -55), (13, 34, -18)], (2.4, 1.7)),  # anterior jugular
    ([(30, -16, -128), (27, -27, -85), (26, -30, -40), (27, -30, 2), (24, -33, 30)], (2.2, 1.7)),  # deep cervical
    ([(60, 4, 32), (59, 9, 62), (50, 16, 98), (42, 20, 125)], (1.7, 1.8)),  # superficial temporal
    ([(52, -4, 112), (46, 10, 96), (33, 21, 77), (20, 22, 63), (15, 12, 54)], (1.6, 2.0)),  # of the Sylvian fissure
    ([(15, 6, 86), (21, -10, 91), (12, -26, 98), (2, -34, 100)], (1.5, 1.9)),  # basal
    ([(112, -12, -122), (76, -8, -112), (50, 2, -112), (30, 10, -126), (22, 14, -170)], (3.6, 3.9)),  # subclavian
)
# Branches of the external carotid: where on it they leave, per cent, what follows, and radii.
BRANCHES = (
    (6, [(17, 21, -30), (13, 22, -62), (15, 17, -84)], (1.6, 1.5)),  # superior thyroid
    (14, [(16, 27, -8), (9, 34, 4), (8, 42, 14)], (1.8, 1.5)),  # lingual
    (22, [(35, 26, -4), (38, 37, 12), (30, 48, 34)], (1.9, 1.5)),  # facial
    (28, [(44, -10, 14), (50, -28, 34), (44, -48, 52)], (1.8, 1.6)),  # occipital
    (56, [(38, 15, 38), (24, 24, 42), (12, 33, 46)], (2.0, 1.6)),  # maxillary
)


@dataclass(frozen=True)
class Vessel:
    """A tube of blood.

    Args:
        tube: in the average patient, mm.
        wanted: it is an artery of the brain.
        flow: brightness against that of blood without turbulence, at 0, 1 .. 100 per cent of the tube: 101 values.
    """

    tube: Tube
    wanted: bool
    flow: np.ndarray


def draw_vessels(rng: np.random.Generator, smallest: float) -> list[Vessel]:
    """The vessels of one patient, those that are wanted last.

    Wanted are the arteries of the brain: the common carotids from the lower edge and the internal ones from their fork,
    the vertebral arteries from the subclavian ones, the basilar artery, the circle of Willis and what leaves it. The
    external carotids and their branches, the subclavian arteries and all veins are not.

    Args:
        rng: source of randomness.
        smallest: no radius is less, mm.

    Returns:
        the vessels; tubes of one tree touch.
    """
    forks = [np.array((27.0, 6.0, rng.normal(-25, 9))) + rng.normal(0, (2.0, 2.5, 0)) for _ in range(2)]
    carotids, externals = [], []
    for side, fork in zip((1, -1), forks):
        carotids.append(
            _tube(rng, [(15, 2, -170), (19, 4, -122), (23, 4, -80), (25, 5, -52), fork], (3.3, 3.1), side, 3)
        )
        externals.append(_external(rng, fork, side))
    brain = _brain(rng, forks)
    wide = rng.uniform(0.82, 1.0)
    wanted = [_widen(tube, wide, smallest) for tube in carotids + brain]
    veins = [_widen(tube, wide, smallest) for tube in _veins(rng, carotids)]
    branches = [_widen(tube, wide, smallest) for tube in sum(externals, [])]
    others = [_clear(tube, wanted, max(1.0, smallest)) for tube in veins]
    others += [_clear(tube, wanted, max(0.8, smallest), start=14.0) for tube in branches]
    return [_fill(rng, tube, False) for tube in others] + [_fill(rng, tube, True) for tube in wanted]


def _brain(rng: np.random.Generator, forks: Sequence[np.ndarray]) -> list[Tube]:
    """Internal carotids, vertebral and basilar arteries, and the circle that they feed."""
    tubes = []
    join = np.array((rng.normal(0, 1.5), -4.0, 57.0)) + rng.normal(0, 1, 3)
    top = np.array((rng.normal(0, 2), 2.0, 76.0)) + rng.normal(0, 1, 3)
    front = np.array((0.0, 25.0, 87.0)) + rng.normal(0, 1.2, 3)
    tubes.append(_tube(rng, [join, (0, 0, 66), top], (2.0, 1.8), 1, 1))
    weaker = rng.integers(2)
    for number, (side, fork) in enumerate(zip((1, -1), forks)):
        tip = np.array((side * 12.0, 13.0, 79.0)) + rng.normal(0, 1.2, 3)
        bulge, height = rng.normal(4, 3), fork[2]
        neck = [
            fork + (bulge, -4, 14),
            (31, -1, 0.5 * (height + 36) + 4),
            (28, -4, 36),
            *CAROTID_CANAL,
            tip * (side, 1, 1),
        ]
        tubes.append(_tube(rng, [fork, *neck], (2.9, 2.0), side, 1.6))
        share = rng.uniform(0.7, 0.95) if number == weaker else rng.uniform(0.95, 1.1)
        path = [*VERTEBRAL, *VERTEBRAL_END, join * (side, 1, 1)]
        tubes.append(_tube(rng, path, np.multiply((2.2, 1.9), share), side, 1.5))
        middle = [tip * (side, 1, 1), (22, 15, 82), (33, 12, 81), (43, 4, 90), (48, -8, 104)]
        tubes.append(_tube(rng, middle, (1.8, 1.5), side, 1.5))
        limit = front * (side, 1, 1) + (1.8, 0, 0)
        tubes.append(
            _tube(rng, [tip * (side, 1, 1), (6, 19, 81), limit, (2, 29, 101), (2, 14, 114)], (1.6, 1.4), side, 1)
        )
        back = [top * (side, 1, 1), (11, -4, 79), (19, -15, 80), (18, -30, 84)]
        tubes.append(_tube(rng, back, (1.7, 1.5), side, 1.2))
        if rng.random() < 0.7:  # it is missing in many people
            tubes.append(_tube(rng, [tip * (side, 1, 1), (11, 4, 78), (11, -4, 79)], (1.3, 1.3), side, 0))
    tubes.append(_tube(rng, [front + (-1.8, 0, 0), front + (1.8, 0, 0)], (1.5, 1.5), 1, 0))
    return tubes


def _external(rng: np.random.Generator, fork: np.ndarray, side: int) -> list[Tube]:
    """The external carotid of a side, with branches; at its start it lies on any side of the internal one."""
    turn = np.deg2rad(rng.uniform(0, 360) if rng.random() < 0.3 else rng.uniform(90, 190))
    start = fork + (6 * np.cos(turn), 7 * np.sin(turn), 14)
    path = [fork, start, (30, 13, fork[2] + 34), (42, 6, 24), (52, 1, 44), (58, 5, 84), (58, 12, 126)]
    trunk = _tube(rng, path, (2.9, 1.7), side, 2)
    tubes = [trunk]
    for share, rest, radii in BRANCHES:
        if rng.random() < 0.85:
            leaves = trunk.points[int(share / 100 * (len(trunk.points) - 1))] * (side, 1, 1)
            tubes.append(_tube(rng, [leaves, *rest], np.multiply(radii, rng.uniform(0.9, 1.2)), side, 3))
    return tubes


def _veins(rng: np.random.Generator, carotids: Sequence[Tube]) -> list[Tube]:
    """Internal jugular veins beside the carotids or in front of them, other veins, and the subclavian arteries."""
    tubes = []
    for side, carotid in zip((1, -1), carotids):
        turn, apart = np.deg2rad(rng.uniform(-30, 120)), rng.uniform(9, 12)
        beside = [carotid.points[int(share * (len(carotid.points) - 1))] for share in (0, 0.3, 0.6, 1)]
        path = [p * (side, 1, 1) + apart * np.array((np.cos(turn), np.sin(turn), 0)) for p in beside]
        radii = rng.uniform(2.4, 3.8) * rng.uniform(0.85, 1.15, 2)
        tubes.append(_tube(rng, [*path, *JUGULAR_END], radii, side, 2))
        for points, (first, last) in VEINS:
            if rng.random() < 0.85:
                tubes.append(_tube(rng, points, np.multiply((first, last), rng.uniform(0.85, 1.15)), side, 3))
        artery = [(20, -2, -170), VERTEBRAL[0] + np.array((0, 0, -3)), (52, -10, -116), (112, -18, -118)]
        tubes.append(_tube(rng, artery, (3.6, 3.2), side, 1.5))
    tubes.append(_tube(rng, [(0, 2, 104), (0, -14, 103), (0, -34, 100), (0, -60, 88)], (1.6, 2.2), 1, 1.5))
    tubes.append(_tube(rng, [(0, 60, 96), (0, 40, 122), (0, 0, 134), (0, -60, 130)], (2.0, 3.0), 1, 1.5))
    return tubes


def _tube(rng: np.random.Generator, points: Sequence, radii: Sequence[float], side: int, jitter: float) -> Tube:
    """A tube of the right side, or its mirror image; the radius goes evenly from one end to the other."""
    mirrored = np.array([tuple(point) for point in points], float) * (side, 1, 1)
    along = np.linspace(radii[0], radii[1], len(mirrored)) * rng.uniform(0.9, 1.1)
    return spline_tube(mirrored, along, 0.0, rng, jitter, 1.2)


def _widen(tube: Tube, wide: float, smallest: float) -> Tube:
    outer = np.maximum(wide * tube.outer, smallest)
    return Tube(tube.points, outer, outer, tube.kind)


def _clear(tube: Tube, others: Sequence[Tube], gap: float, start: float = 0.0) -> Tube:
    """The tube led round others; over its first `start` mm, where it leaves one of them, ever less so."""
    points, radii = (np.concatenate([getattr(one, name) for one in others]) for name in ("points", "outer"))
    reach = radii.max() + tube.outer.max() + 3 * gap
    near = np.all((points > tube.points.min(0) - reach) & (points < tube.points.max(0) + reach), axis=1)
    if not near.any():
        return tube
    pushed = push_aside(tube, Tube(points[near], radii[near], radii[near], np.zeros(near.sum(), int)), gap).points
    steps = np.linalg.norm(np.diff(tube.points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    share = np.clip(along / start, 0, 1)[:, None] if start else 1.0
    return Tube(tube.points + share * (pushed - tube.points), tube.outer, tube.inner, tube.kind)


def _fill(rng: np.random.Generator, tube: Tube, wanted: bool) -> Vessel:
    """Blood in a tube: here and there turbulence takes its signal."""
    length = float(np.linalg.norm(np.diff(tube.points, axis=0), axis=1).sum())
    along = np.linspace(0, length, 101)
    flow = np.ones(101)
    for _ in range(rng.poisson(length / 110)):
        width, depth = rng.uniform(2.0, 5.0), rng.uniform(0.4, 0.95)
        flow *= 1 - depth * np.exp(-(((along - rng.uniform(0, length)) / width) ** 2))
    return Vessel(tube, wanted, flow.astype(np.float32))
