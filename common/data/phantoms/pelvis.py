"""A pelvis in T2-weighted MR with a tumour of the rectal wall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import parse_amount, parse_share, parse_triple
from .anatomy import Canvas, Patient, ellipsoid, spline_tube
from .mr import LAYERS, SpinEcho, Tissue, coil_sensitivity, majority, measure
from .pelvic_wall import paint_body, paint_bones, paint_muscles, paint_vessels
from .phantom import Phantom, PhantomCase, is_without
from .rectum import draw_rectum, draw_tumour, paint_rectum, paint_tumour

__all__ = ["PELVIS", "make_pelvis"]

SIZE = (256, 208, 36)
FIELD_OF_VIEW = (335, 250, 138)
MOST_NOISE = 50
TISSUES = {
    "fat": Tissue(135.0, 370.0, 0.9),
    "marrow": Tissue(110.0, 450.0, 0.75),
    "cortex": Tissue(10.0, 800.0, 0.2),
    "skin": Tissue(45.0, 900.0, 0.7),
    "muscle": Tissue(41.0, 1400.0, 0.8),
    "muscularis": Tissue(42.0, 1300.0, 0.8),
    "mucosa": Tissue(92.0, 1300.0),
    "submucosa": Tissue(128.0, 1500.0),
    "fluid": Tissue(500.0, 3600.0, 1.0),
    "gel": Tissue(300.0, 2500.0, 1.0),
}


def make_pelvis(
    rng: np.random.Generator,
    size: Sequence[int],
    index: int,
    *,
    field_of_view: Any = None,
    noise: Any = None,
    no_tumour: Any = 0,
) -> PhantomCase:
    """One pelvis in T2-weighted MR, with a tumour as in the data of [huang2021runet, section IV].

    No brightness tells the tumour: nodes, stool, walls of other bowel, seminal vesicles, prostate or womb share it, the
    scale of the numbers is arbitrary and the coils light some places more than others. What tells it is that a
    thickened, ragged stretch of the wall of the rectum interrupts the dark ring of its muscle. The tumour may sit on
    any side of it, as a plaque or a closed ring, and stay in the wall or grow into the fat around.

    Args:
        rng: source of randomness.
        size: X Y Z, voxels; X to the right, Y to the front, Z to the head.
        index: number of the case; says together with `no_tumour` whether it has a tumour.
        field_of_view: X Y Z, mm; None takes 335 x 250 x 138, some percent more or less in each case.
        noise: standard deviation in per cent of the brightness of fat; None draws it for each case, 2 to 5.
        no_tumour: share of cases without a tumour, spread evenly over the numbers of the cases.

    Returns:
        image X Y Z (int16, arbitrary scale) and label X Y Z (uint8: 0 background, 1 tumour).

    Raises:
        InputError: for a field of view that is not three positive whole numbers, noise below 0 or above 50, or a share
            below 0 or above 1.
    """
    share = parse_share(no_tumour, "no_tumour")
    drawn = rng.uniform(2.0, 5.0)
    extent = np.multiply(FIELD_OF_VIEW, rng.uniform(0.96, 1.06, 2)[[0, 0, 1]])
    if field_of_view is not None:
        extent = np.array(parse_triple(field_of_view, "field_of_view"), float)
    asked = parse_amount(noise, "noise", MOST_NOISE, "per cent")
    grain = drawn if asked is None else float(asked)
    sequence = SpinEcho(rng.uniform(3500, 6000), rng.uniform(80, 115))
    scanner, growth = rng.spawn(2)
    fine = np.multiply(size, (1, 1, LAYERS))
    patient = Patient(fine, extent / fine, rng, 3.5)
    canvas = Canvas(patient, 0.0)
    bright = _brightness(sequence, rng)
    texture, cavity = paint_body(canvas, patient, bright, rng)
    paint_muscles(canvas, patient, bright, texture, rng)
    paint_bones(canvas, patient, bright, texture, rng)
    tube = draw_rectum(rng)
    _paint_bowel(canvas, patient, tube.points, cavity, bright, rng)
    lines = paint_vessels(canvas, patient, (0.06, bright["vein"]), rng)
    wall = paint_rectum(canvas, patient, tube, bright, texture, rng)
    _paint_front(canvas, patient, bright, texture, rng)
    _paint_nodes(canvas, patient, [*lines, tube.points], bright["tumour"], rng)
    if not is_without(index, share):
        paint_tumour(canvas, patient, wall, draw_tumour(growth), bright["tumour"], texture, growth)
    sensitivity = coil_sensitivity(patient, scanner.uniform(0.2, 0.8), scanner)
    image = measure(canvas.values, sensitivity, grain / 100 * bright["fat"], scanner)
    scale = np.float32(np.exp(scanner.uniform(np.log(250), np.log(2500))) / bright["fat"])
    spacing = tuple(float(edge) for edge in extent / size)
    return PhantomCase(np.rint(image * scale).astype(np.int16), majority(canvas.label), spacing)  # type: ignore[arg-type]


def _brightness(sequence: SpinEcho, rng: np.random.Generator) -> dict[str, float]:
    """Brightness of each tissue in this patient: what its relaxation is varies between patients."""
    tissues = {name: Tissue(one.t2 * rng.uniform(0.93, 1.07), one.t1, one.density) for name, one in TISSUES.items()}
    grey = rng.uniform(62, 88)
    tissues["tumour"] = Tissue(grey)
    # What looks like it elsewhere.
    for name in ("vein", "stool", "gland", "vesicle", "bowel"):
        tissues[name] = Tissue(grey * rng.uniform(0.8, 1.25))
    tissues["peripheral"] = Tissue(rng.uniform(85, 150))
    return {name: sequence(tissue) for name, tissue in tissues.items()}


def _paint_front(
    canvas: Canvas, patient: Patient, bright: Mapping[str, float], texture: np.ndarray, rng: np.random.Generator
) -> None:
    """What lies in front of the rectum: bladder, and prostate with seminal vesicles, or womb."""
    male = rng.random() < 0.55
    radii = rng.uniform((24, 17, 15), (44, 27, 31))
    middle = np.array((rng.normal(0, 3), 37 + rng.normal(0, 2), (-8 if male else -14) + 0.8 * radii[2]))
    if male:
        _paint_prostate(canvas, patient, bright, texture, rng)
    else:
        _paint_womb(canvas, patient, bright, texture, rng)
    box = patient.box(middle - radii - 6, middle + radii + 6)
    shape = ellipsoid(patient.within(box), middle, radii, (8, 0, 0)) + 1.5 * patient.noise(22.0, rng, box)
    canvas.paint(box, shape, bright["muscle"] * 1.2)
    canvas.paint(box, shape + np.float32(rng.uniform(2.0, 4.5)), bright["fluid"])


def _paint_prostate(
    canvas: Canvas, patient: Patient, bright: Mapping[str, float], texture: np.ndarray, rng: np.random.Generator
) -> None:
    middle, radii = np.array((0, 10, -34)) + rng.normal(0, 1.5, 3), rng.uniform(0.85, 1.2) * np.array((24, 17, 20))
    box = patient.box(middle - 34, middle + 34)
    at, lumps = patient.within(box), patient.noise(8.0, rng, box)
    shape = ellipsoid(at, middle, radii) + 0.8 * lumps
    canvas.paint(box, shape - np.float32(4), bright["fat"] * (0.75 + 0.25 * patient.noise(5.0, rng, box)))
    canvas.paint(box, shape, bright["muscle"])
    canvas.paint(box, shape + np.float32(1.0), bright["peripheral"] * (1 + 0.1 * texture[box]))
    inside = ellipsoid(at, middle + (0, 5, 3), radii * (0.78, 0.75, 0.85)) + lumps
    canvas.paint(box, np.maximum(inside, shape + 1), bright["gland"] * (1 + 0.25 * lumps + 0.1 * texture[box]))
    for side in (1, -1):
        path = np.array([(side * 3, 2, -13), (side * 16, -1, -8), (side * 31, 0, -2)]) + rng.normal(0, 2, (3, 3))
        tube = spline_tube(path, rng.uniform(4.5, 8.0, 3), step=2.0)
        box, shape, _, _ = patient.tubes([tube])
        coils = patient.noise(4.5, rng, box)
        canvas.paint(box, shape + 0.8 * coils, bright["vesicle"] * (1 + 0.3 * coils))


def _paint_womb(
    canvas: Canvas, patient: Patient, bright: Mapping[str, float], texture: np.ndarray, rng: np.random.Generator
) -> None:
    box = patient.box((-26, -24, -70), (26, 36, -4))
    at = patient.within(box)
    sheath = ellipsoid(at, (0, -2, -36), (17, 5, 30), (-10, 0, 0))
    canvas.paint(box, sheath, bright["muscle"] * 1.3)
    canvas.paint(box, sheath + np.float32(3), bright["peripheral"])
    tilt, size = rng.uniform(-75, -5), rng.uniform(0.8, 1.15)
    neck = np.array((rng.normal(0, 3), 2, -8))
    lean = np.deg2rad(tilt)
    body = neck + 30 * size * np.array((0, -np.sin(lean), np.cos(lean)))
    box = patient.box(np.minimum(neck, body) - 40, np.maximum(neck, body) + 40)
    at, lumps = patient.within(box), patient.noise(9.0, rng, box)
    for middle, radii, cavity in ((neck, (15, 13, 17), (2.5, 2.5, 14)), (body, (26, 18, 30), (11, 2.5, 19))):
        shape = ellipsoid(at, middle, np.multiply(radii, size), (tilt, 0, 0)) + lumps
        canvas.paint(box, shape, bright["gland"] * (1 + 0.12 * lumps + 0.08 * texture[box]))
        core = ellipsoid(at, middle, cavity, (tilt, 0, 0)) + 0.4 * lumps
        canvas.paint(box, core - np.float32(4), bright["muscle"] * 1.25)
        canvas.paint(box, core, bright["fluid"] * 0.85)


def _paint_bowel(
    canvas: Canvas,
    patient: Patient,
    rectum: np.ndarray,
    cavity: np.ndarray,
    bright: Mapping[str, float],
    rng: np.random.Generator,
) -> None:
    """Coils of small bowel, and a sigmoid whose wall is as thick as a tumour but has its muscle all round."""
    for _ in range(int(rng.integers(10, 26))):
        middle = rng.uniform((-70, 0, 26), (70, 66, 95))
        path = np.clip(middle + np.cumsum(rng.normal(0, 15, (4, 3)), axis=0), (-78, -12, 22), (78, 70, 120))
        loop = spline_tube(path, rng.uniform(8, 13) * rng.uniform(0.85, 1.15, 4), rng.uniform(2.5, 5.0), step=3.0)
        apart = np.linalg.norm(loop.points[:, None] - rectum[::3], axis=2).min()
        if apart < 30:
            continue
        box, outer, inner, _ = patient.tubes([loop])
        wobble = 0.9 * patient.noise(12.0, rng, box)
        outer, inner = np.maximum(outer + wobble, cavity[box]), np.maximum(inner + wobble, cavity[box] + 3)
        canvas.paint(box, outer, bright["bowel"] * rng.uniform(0.85, 1.15))
        contents = rng.choice([bright["fluid"] * 0.9, bright["stool"], 0.0], p=[0.5, 0.35, 0.15])
        canvas.paint(box, inner, contents * (1 + 0.12 * patient.noise(6.0, rng, box)))
    path = [(-50, -4, 74), (-66, 14, 64), (-48, 34, 56), (-14, 30, 66), (10, 22, 84), (0, 20, 110)]
    sigmoid = spline_tube(path, rng.uniform(12, 16, 6), 6.0, rng, 5.0, 3.0)
    box, outer, inner, _ = patient.tubes([sigmoid])
    folds = patient.noise(5.0, rng, box)
    outer = np.maximum(outer, cavity[box])
    canvas.paint(box, outer + folds, bright["muscularis"])
    canvas.paint(box, outer + np.float32(2.6) + folds, bright["bowel"] * (1 + 0.1 * folds))
    canvas.paint(box, inner + 2.0 * folds + np.float32(rng.uniform(-1, 5)), bright["stool"])


def _paint_nodes(
    canvas: Canvas, patient: Patient, lines: Sequence[np.ndarray], bright: float, rng: np.random.Generator
) -> None:
    """Lymph nodes beside the vessels and in the fat round the rectum, as bright as the tumour."""
    for _ in range(int(rng.integers(12, 28))):
        line = lines[rng.integers(len(lines))]
        near = line is lines[-1]
        point = line[rng.integers(len(line) // 4, len(line))]
        turn = rng.uniform(0, 2 * np.pi)
        radii = np.maximum(rng.uniform(2.0, 5.0) * rng.uniform(0.8, 1.4, 3), 0.6 * patient.voxel)
        apart = (24 if near else 7) + radii[0]
        middle = point + apart * np.array((np.cos(turn), np.sin(turn) * (-0.4 if near else 1), 0))
        box = patient.box(middle - radii, middle + radii)
        canvas.paint(box, ellipsoid(patient.within(box), middle, radii), bright * rng.uniform(0.85, 1.15))


PELVIS = Phantom(
    make=make_pelvis,
    size=SIZE,
    description="Pelves in T2-weighted MR with a labelled tumour of the rectum; made by a program",
    modality={"0": "MR"},
    labels={"0": "background", "1": "tumour"},
    notes={"reference": "made after the description of the data in arXiv 1806.10342"},
)
