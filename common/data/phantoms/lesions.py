"""Tumours and cysts of the liver in portal-venous CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .anatomy import Canvas, Patient, ellipsoid, smooth_union
from .organs import Liver

__all__ = ["Lesion", "draw_cysts", "draw_tumours", "paint_lesion"]

DIAMETERS = (8.0, 60.0)
# Nothing is drawn that is thinner than this many voxels: no grid could show it.
LEAST_VOXELS = 2.2


@dataclass(frozen=True)
class Lesion:
    """A tumour or a cyst.

    Args:
        centre: in the average patient, mm.
        radius: mm.
        brightness: of its tissue, HU.
        fade: over how many mm it turns into the liver's tissue.
        ragged: how far its surface strays, share of the radius.
        lobe: whether a second, smaller lump grows out of it.
        rim: brightness of a rim that takes up contrast, HU; None for none.
        core: brightness of its dead middle, HU; None for none.
    """

    centre: np.ndarray
    radius: float
    brightness: float
    fade: float = 0.0
    ragged: float = 0.0
    lobe: bool = False
    rim: float | None = None
    core: float | None = None


def draw_tumours(patient: Patient, liver: Liver, others: Sequence[Lesion], rng: np.random.Generator) -> list[Lesion]:
    """One to six tumours of one origin: much alike in brightness, about 8 to 60 mm in diameter.

    The first is at least 22 mm large and never faint. Of all, about a third lie at the liver's surface, a fifth of the
    further ones touch the one before, and a fifth of them are so faint, 9 to 16 HU below the liver, that they drown in
    the noise of single voxels; the others are 18 to 58 HU below it. Large ones may have a dead middle or a bright rim.

    Args:
        patient: whose liver it is.
        liver: to place them in.
        others: lesions to keep clear of.
        rng: source of randomness.
    """
    spots = _Spots(patient, liver, others)
    usual, rimmed, dying = rng.uniform(22, 54), rng.random() < 0.4, rng.random() < 0.5
    fade = rng.uniform(0, 5)
    tumours: list[Lesion] = []
    for number in range(int(rng.integers(1, 7))):
        low, high = (22.0, DIAMETERS[1]) if number == 0 else (DIAMETERS[0], 34.0)
        low = max(low, LEAST_VOXELS * patient.voxel)
        radius = 0.5 * float(np.exp(rng.uniform(np.log(low), np.log(max(high, 1.5 * low)))))
        at_surface, touching, faint = rng.random(3) < (0.3, 0.2, 0.2)
        faint &= number > 0
        contrast = rng.uniform(9, 16) if faint else usual + rng.uniform(-4, 4)
        tumour = Lesion(
            spots.draw(radius, rng, at_surface, tumours[-1] if touching and tumours else None),
            radius,
            liver.brightness - contrast,
            fade * rng.uniform(0.6, 1.4),
            rng.uniform(0.06, 0.16),
            radius > 8 and rng.random() < 0.4,
            liver.brightness + rng.uniform(12, 38) if rimmed and radius > 7 and not faint else None,
            rng.uniform(12, 34) if dying and radius > 11 and not faint else None,
        )
        spots.occupy(tumour)
        tumours.append(tumour)
    return tumours


def draw_cysts(patient: Patient, liver: Liver, rng: np.random.Generator) -> list[Lesion]:
    """None in three of five livers, else one or two: round, sharp, of water, 7 to 24 mm in diameter."""
    spots, cysts = _Spots(patient, liver, ()), []
    for _ in range(int(rng.choice((0, 1, 2), p=(0.6, 0.25, 0.15)))):
        radius = max(rng.uniform(3.5, 12), 0.5 * LEAST_VOXELS * patient.voxel)
        cyst = Lesion(spots.draw(radius, rng, rng.random() < 0.4), radius, rng.uniform(-2, 14), ragged=0.03)
        spots.occupy(cyst)
        cysts.append(cyst)
    return cysts


def paint_lesion(
    canvas: Canvas, patient: Patient, liver: Liver, lesion: Lesion, label: int, rng: np.random.Generator
) -> None:
    """Lay a lesion over the liver's tissue and vessels, nowhere beyond the liver.

    Args:
        canvas: to paint on.
        patient: whose liver it is.
        liver: where it is.
        lesion: what to paint.
        label: given to its voxels.
        rng: source of randomness.
    """
    reach = 1.8 * lesion.radius
    box = tuple(
        slice(max(one.start, whole.start), max(one.start, whole.start, min(one.stop, whole.stop)))
        for one, whole in zip(patient.box(lesion.centre - reach, lesion.centre + reach), liver.box)
    )
    within = tuple(slice(one.start - whole.start, one.stop - whole.start) for one, whole in zip(box, liver.box))
    at = patient.within(box)
    turn = rng.uniform(-90, 90, 3)
    shape = ellipsoid(at, lesion.centre, lesion.radius * rng.uniform(0.82, 1.2, 3), turn)
    if lesion.lobe:
        aside = rng.normal(size=3)
        aside *= 0.75 * lesion.radius / np.linalg.norm(aside)
        lump = ellipsoid(at, lesion.centre + aside, lesion.radius * rng.uniform(0.45, 0.7, 3))
        shape = smooth_union(shape, lump, 0.2 * lesion.radius)
    shape = shape + lesion.ragged * lesion.radius * patient.noise(max(5.0, 0.7 * lesion.radius), rng, box)
    grain = 4 * patient.noise(5.0, rng, box)
    # A voxel that is not the liver's lies outside whatever the shape says.
    outside = np.where(liver.inside[within], np.float32(-1e3), np.float32(canvas.voxel))
    shape = np.maximum(shape, np.maximum(liver.surface[within], outside))
    soft = np.float32(canvas.voxel / max(canvas.voxel, lesion.fade))
    if lesion.rim is None:
        canvas.paint(box, shape * soft, lesion.brightness + grain, label)
    else:
        canvas.paint(box, shape, lesion.rim + grain, label)
        canvas.paint(box, shape + max(2.0, 0.16 * lesion.radius), lesion.brightness + grain, label)
    if lesion.core is not None:
        hollow = shape + lesion.radius * (0.42 + 0.1 * patient.noise(0.5 * lesion.radius, rng, box))
        canvas.paint(box, hollow, lesion.core + 1.5 * grain, label)


class _Spots:
    """Where in a liver a lesion may lie."""

    def __init__(self, patient: Patient, liver: Liver, others: Sequence[Lesion]) -> None:
        inside = liver.inside & (liver.surface < 0)
        self.points = np.stack([one[inside] for one in patient.within(liver.box)], axis=1)
        self.depth = -liver.surface[inside]
        self.room = np.full(len(self.points), np.inf, np.float32)
        self.voxel = patient.voxel
        for lesion in others:
            self.occupy(lesion)

    def occupy(self, lesion: Lesion) -> None:
        """Keep clear of a lesion from now on."""
        self.room = np.minimum(self.room, self._apart(lesion))

    def draw(
        self, radius: float, rng: np.random.Generator, at_surface: bool, beside: Lesion | None = None
    ) -> np.ndarray:
        """A centre in the average patient, mm: the first of these wishes that the liver has room for.

        Args:
            radius: of the lesion, mm.
            rng: source of randomness.
            at_surface: whether the liver's surface shall cut it; else it lies as deep in the liver as it is large.
            beside: a lesion to touch.
        """
        clear = self.room > 1.25 * radius + 2
        place = self.depth < 0.5 * radius if at_surface else self.depth > min(1.1 * radius, 0.8 * self.depth.max())
        wishes = [clear & place, clear, self.room >= self.room.max()]
        if beside is not None:
            gap = self._apart(beside) / radius
            wishes = [(gap > 0.7) & (gap < 0.95) & (self.room > 0.7 * radius) & (self.depth > 0.3 * radius), *wishes]
        found = next(spots for spots in map(np.flatnonzero, wishes) if len(spots))
        return self.points[rng.choice(found)] + rng.uniform(-0.5, 0.5, 3) * self.voxel

    def _apart(self, lesion: Lesion) -> np.ndarray:
        """Distance of every spot to a lesion's surface, mm, were it a ball."""
        away = self.points - lesion.centre.astype(np.float32)
        return np.sqrt(np.einsum("nc,nc->n", away, away)) - np.float32(lesion.radius)
