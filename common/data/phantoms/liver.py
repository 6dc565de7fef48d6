"""A liver with tumours in portal-venous CT, as the challenges of liver tumours pose it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...checks import InputError, problem
from ..arguments import parse_share
from .ct import scan
from .lesions import draw_cysts, draw_tumours, paint_lesion
from .organs import paint_abdomen
from .phantom import Phantom, PhantomCase, is_without

__all__ = ["LIVER", "make_liver"]

SIZE = (192, 160, 128)
BACKGROUND, ORGAN, TUMOUR = range(3)
NAMES = ("background", "liver", "tumour")


def make_liver(
    rng: np.random.Generator,
    size: Sequence[int],
    index: int,
    *,
    field_of_view: Any = None,
    noise: Any = None,
    no_tumour: Any = 0.25,
) -> PhantomCase:
    """One abdomen in the portal-venous phase, with tumours in its liver as in the data of [jin2020raunet, section 4].

    The abdomen is that of the phantom ``abdomen_ct`` for the same source of randomness. Tumours are about 8 to 60 mm
    in diameter and mostly darker than the liver, by 9 to 58 HU where the noise is 8 to 14; some lie at its surface,
    some touch, some have a dead middle or a bright rim. Muscle, bowel and gallbladder share their brightness, and so
    do cysts of the liver, labelled as liver: brightness alone does not tell a tumour.

    Args:
        rng: source of randomness.
        size: X Y Z, voxels; X to the right, Y to the front, Z to the head.
        index: number of the case; says together with `no_tumour` whether it has a tumour.
        field_of_view: X Y Z, mm; None takes 400 x 320 x 300, some percent more or less in each case.
        noise: standard deviation in the middle of the body, whole HU; None draws it for each case, 8 to 14.
        no_tumour: share of cases without a tumour, spread evenly over the numbers of the cases.

    Returns:
        image X Y Z (int16, HU) and label X Y Z (uint8: 0 background, 1 liver with the vessels in it and cysts, 2
        tumour).

    Raises:
        InputError: for a field of view that is not three positive whole numbers or holds no liver, noise below 0 or
            above 200, or a share below 0 or above 1.
    """
    share = parse_share(no_tumour, "no_tumour")
    # Tumours have a source of their own: with and without them, everything else stays as it is.
    benign, growth = rng.spawn(2)
    abdomen = paint_abdomen(rng, size, field_of_view, noise)
    patient, canvas, liver = abdomen.patient, abdomen.canvas, abdomen.liver
    if not liver.inside.any():
        seen = " x ".join(f"{edge:.0f}" for edge in patient.extent)
        raise InputError(
            problem(
                f"a field of view of {seen} mm and {' x '.join(map(str, size))} voxels holds no liver",
                "the phantom liver_ct needs one",
                "pass for example --field_of_view [400,320,300]",
            )
        )
    canvas.label[:] = BACKGROUND
    canvas.label[liver.box][liver.inside] = ORGAN
    cysts = draw_cysts(patient, liver, benign)
    for cyst in cysts:
        paint_lesion(canvas, patient, liver, cyst, ORGAN, benign)
    if not is_without(index, share):
        for tumour in draw_tumours(patient, liver, cysts, growth):
            paint_lesion(canvas, patient, liver, tumour, TUMOUR, growth)
    image = scan(canvas.values, patient, abdomen.noise, rng)
    return PhantomCase(image, canvas.label, abdomen.spacing)


LIVER = Phantom(
    make=make_liver,
    size=SIZE,
    description="Abdomens in portal-venous CT with tumours in the liver, some without; made by a program",
    modality={"0": "CT"},
    labels={str(value): name for value, name in enumerate(NAMES)},
    notes={"reference": "made after the description of the data in doi 10.3389/fbioe.2020.605132"},
)
