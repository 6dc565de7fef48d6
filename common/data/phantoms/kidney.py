"""A kidney-like phantom under the confocal microscope, after the Xenopus kidneys of the 3D U-Net paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..arguments import parse_triple
from .microscope import photograph, smooth_noise
from .phantom import Phantom, PhantomCase
from .tubes import TubeGrower, tube_fields

distance_transform_edt, _ = optional_import("scipy.ndimage", name="distance_transform_edt")

__all__ = ["KIDNEY", "annotate_slices", "make_kidney"]

SPACING = (1.76, 1.76, 2.04)
SIZE = (248, 244, 64)
INSIDE, TUBULE, BACKGROUND, UNLABELLED = range(4)
# Annotated planes across x, y and z in the paper's three volumes: (yz, xz, xy) there.
PAPER_SLICES = ((7, 5, 21), (6, 7, 12), (4, 5, 10))
PROXIMAL, DISTAL, VESSEL = range(3)
# One try to start a tubule for so many cubic um: late tries mostly fail, and what they find fills the gaps.
TRIES_PER_VOLUME = 5e4


def make_kidney(rng: np.random.Generator, size: Sequence[int], index: int, *, slices: Any = None) -> PhantomCase:
    """One volume of packed, branching tubules with lumen, in three stains [cicek2016unet3d, section 3].

    Dark places are lumens, but also blood vessels and gaps in the tissue between the tubules; bright ones are walls,
    but also vessel linings and cells in between: no stain alone tells the classes apart.

    Args:
        rng: source of randomness.
        size: X Y Z, voxels of 1.76 x 1.76 x 2.04 um.
        index: number of the case; chooses among the paper's three counts of annotated slices.
        slices: annotated planes across x, y, z; None takes the paper's counts, scaled with the size.

    Returns:
        image X Y Z 3 (uint8: lectin, nuclei, beta-catenin) and label X Y Z (0 inside, 1 tubule, 2 background,
        3 unlabelled), sparse and dense.
    """
    shape = tuple(size)
    outer, inner, kind = _anatomy(shape, rng)
    dense = np.full(shape, BACKGROUND, np.uint8)
    dense[(outer < 0) & (kind != VESSEL)] = TUBULE
    dense[(inner < 0) & (kind != VESSEL)] = INSIDE
    lectin, nuclei, catenin = _stains(outer, inner, kind, rng)
    image = np.stack(
        [
            photograph(lectin, SPACING, 150.0, 55.0, rng),
            photograph(nuclei, SPACING, 100.0, 45.0, rng),
            photograph(catenin, SPACING, 170.0, 50.0, rng),
        ],
        axis=-1,
    )
    if slices is None:
        counts = tuple(
            max(2, round(n * now / full)) for n, now, full in zip(PAPER_SLICES[index % 3], shape, SIZE, strict=True)
        )
    else:
        counts = parse_triple(slices, "slices")
    return PhantomCase(image, annotate_slices(dense, counts, UNLABELLED), SPACING, dense)


def annotate_slices(dense: np.ndarray, counts: Sequence[int], unlabelled: int) -> np.ndarray:
    """Keep evenly spread planes of a dense label and mark the rest unlabelled.

    Args:
        dense: X Y Z.
        counts: number of planes across each axis, cut to the axis' length.
        unlabelled: value elsewhere.

    Returns:
        X Y Z, the dtype of `dense`.

    >>> annotate_slices(np.zeros((4, 4, 4), np.uint8), (1, 0, 0), 3)[:, 0, 0].tolist()
    [3, 3, 0, 3]
    """
    sparse = np.full_like(dense, unlabelled)
    for axis, (count, length) in enumerate(zip(counts, dense.shape, strict=True)):
        count = min(count, length)
        planes = (slice(None),) * axis + (((np.arange(count) + 0.5) * length / max(count, 1)).astype(int),)
        sparse[planes] = dense[planes]
    return sparse


def _anatomy(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distances (um) to outer wall and lumen of the nearest tube, and its kind; X Y Z each."""
    extent = np.multiply(shape, SPACING)
    grower = TubeGrower(extent, rng)
    room = float(np.prod(extent + 30))
    for _ in range(int(room / TRIES_PER_VOLUME)):
        if grower.volume > 0.5 * room:
            break
        kinds = [(PROXIMAL,), (PROXIMAL, DISTAL), (DISTAL,)][rng.integers(3)]
        grower.grow(rng.uniform(15, 22), (0.3, 0.55), kinds, longest=600.0, branch=0.3)
    grower.step, grower.overlap = 8.0, -1.0
    for _ in range(int(room / TRIES_PER_VOLUME / 4)):
        grower.grow(rng.uniform(4.5, 7.5), (0.8, 0.85), (VESSEL,), longest=250.0)
    outer, inner, kind = tube_fields(grower.tubes, shape, SPACING)
    wobble = smooth_noise(shape, SPACING, 7.0, rng)
    return outer + 0.7 * wobble, inner + 0.9 * smooth_noise(shape, SPACING, 6.0, rng), kind


def _stains(outer: np.ndarray, inner: np.ndarray, kind: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Density of lectin, of the nuclear stain and of beta-catenin; X Y Z each."""
    shape, tube = outer.shape, kind != VESSEL
    within = np.clip(0.5 - outer / SPACING[0], 0, 1)
    lumen = np.clip(0.5 - inner / SPACING[0], 0, 1) * within
    wall = within - lumen
    # Between the tubules: cells here, empty gaps there.
    stroma = (1 - within) * np.clip(0.35 + 0.8 * smooth_noise(shape, SPACING, 22.0, rng), 0, 1)
    tissue = wall * tube + stroma
    cell, distance = _cells(tissue, rng)
    membrane = _cell_borders(cell)
    lively = rng.lognormal(0.0, 0.3, int(cell.max()) + 1).astype(np.float32)
    radius = rng.uniform(2.6, 3.7, len(lively)).astype(np.float32)
    texture = 1 + 0.15 * smooth_noise(shape, SPACING, 5.0, rng) + 0.2 * smooth_noise(shape, SPACING, 40.0, rng)

    proximal, distal, vessel = ((kind == one) * wall for one in (PROXIMAL, DISTAL, VESSEL))
    brush = np.exp(-np.square(np.clip(inner, 0, None) / 2.2)) * proximal
    debris = np.clip(smooth_noise(shape, SPACING, 9.0, rng) - 1.3, 0, 1) * lumen
    lectin = (
        0.55 * brush + 0.3 * proximal + 0.13 * distal + 0.75 * vessel + 0.22 * stroma + 0.05 * lumen + 0.5 * debris
    ) * texture
    nucleus = np.clip(0.5 - (distance - radius[cell]) / SPACING[0], 0, 1) * lively[cell] * np.clip(2 * tissue, 0, 1)
    nuclei = 0.8 * nucleus + 0.07 * tissue + 0.03
    basal = np.exp(-np.square(outer / 1.5)) * tube * (kind >= 0)
    edge = membrane * (0.9 * distal + 0.4 * proximal + 0.35 * stroma) + 0.3 * basal * (0.4 * proximal + distal)
    catenin = (edge + 0.16 * distal + 0.12 * proximal + 0.14 * stroma + 0.25 * vessel) * lively[cell] * texture + 0.02
    return tuple(np.clip(one, 0, None).astype(np.float32) for one in (lectin, nuclei, catenin))


def _cells(tissue: np.ndarray, rng: np.random.Generator, pitch: float = 8.5) -> tuple[np.ndarray, np.ndarray]:
    """Cells, the Voronoi regions of nuclei strewn over the tissue: number of the cell, distance to its nucleus (um)."""
    counts = [int(np.ceil(size * edge / pitch)) for size, edge in zip(tissue.shape, SPACING, strict=True)]
    lattice = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, 3)
    place = ((lattice + rng.uniform(0.1, 0.9, lattice.shape)) * pitch / SPACING).astype(int)
    place = place[np.all(place < tissue.shape, axis=1)]
    place = place[rng.random(len(place)) < 0.02 + 0.95 * tissue[tuple(place.T)]]
    free = np.ones(tissue.shape, bool)
    free[tuple(place.T)] = False
    distance, nearest = distance_transform_edt(free, sampling=SPACING, return_indices=True)
    number = np.zeros(tissue.shape, np.int32)
    number[tuple(place.T)] = np.arange(len(place))
    return number[tuple(nearest)], distance.astype(np.float32)


def _cell_borders(cell: np.ndarray) -> np.ndarray:
    """1 where the next voxel along any axis belongs to another cell; X Y Z, float32."""
    border = np.zeros(cell.shape, np.float32)
    border[:-1][cell[1:] != cell[:-1]] = 1
    border[:, :-1][cell[:, 1:] != cell[:, :-1]] = 1
    border[:, :, :-1][cell[:, :, 1:] != cell[:, :, :-1]] = 1
    return border


KIDNEY = Phantom(
    make=make_kidney,
    size=SIZE,
    description="Packed, branching tubules with lumen under a confocal microscope; made by a program",
    modality={"0": "lectin", "1": "nuclei", "2": "beta-catenin"},
    labels={"0": "inside", "1": "tubule", "2": "background", "3": "unlabelled"},
    units="micron",
    notes={
        "reference": "made after the description of the data in arXiv 1606.06650, section 3",
        "annotation": "labelsTr holds a few planes across each axis, 3 elsewhere",
    },
)
