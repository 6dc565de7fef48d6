"""An abdomen in portal-venous CT with the seven structures of the two-stage networks' paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .ct import scan
from .organs import NAMES, paint_abdomen
from .phantom import Phantom, PhantomCase

__all__ = ["ABDOMEN", "make_abdomen"]

SIZE = (192, 160, 128)


def make_abdomen(
    rng: np.random.Generator, size: Sequence[int], index: int, *, field_of_view: Any = None, noise: Any = None
) -> PhantomCase:
    """One abdomen in the portal-venous phase, with the seven structures of [roth2017hierarchical, section 3].

    No brightness tells a structure: aorta, portal vein, vena cava and kidneys overlap, as do pancreas, liver, muscle
    and the walls of bowel and stomach; place and shape vary from case to case.

    Args:
        rng: source of randomness.
        size: X Y Z, voxels; X to the right, Y to the front, Z to the head.
        index: number of the case; it has no bearing.
        field_of_view: X Y Z, mm; None takes 400 x 320 x 300, some percent more or less in each case.
        noise: standard deviation in the middle of the body, whole HU; None draws it for each case, 8 to 14.

    Returns:
        image X Y Z (int16, HU) and label X Y Z (uint8: 0 background, 1 artery, 2 portal vein, 3 liver, 4 spleen,
        5 stomach with contents, 6 gallbladder, 7 pancreas).

    Raises:
        InputError: for a field of view that is not three positive whole numbers, or noise below 0 or above 200.
    """
    abdomen = paint_abdomen(rng, size, field_of_view, noise)
    image = scan(abdomen.canvas.values, abdomen.patient, abdomen.noise, rng)
    return PhantomCase(image, abdomen.canvas.label, abdomen.spacing)


ABDOMEN = Phantom(
    make=make_abdomen,
    size=SIZE,
    description="Abdomens in portal-venous CT with seven labelled structures; made by a program",
    modality={"0": "CT"},
    labels={str(value): name for value, name in enumerate(NAMES)},
    notes={"reference": "made after the description of the data in arXiv 1704.06382, section 3"},
)
