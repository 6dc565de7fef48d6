"""What a phantom is: a function that makes one case, and the words that go into ``dataset.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Phantom", "PhantomCase", "is_without"]


@dataclass(frozen=True)
class PhantomCase:
    """One made case.

    Args:
        image: X Y Z in the order of `orientation`, or X Y Z C with the channels last.
        label: X Y Z, uint8, as an annotator would have left it.
        dense: X Y Z, uint8, the whole truth, where `label` is only part of it; else None.
        spacing: voxel edges along the three axes, in the phantom's units.
        orientation: where the axes of the volumes point, as ``nibabel.aff2axcodes`` says it.
    """

    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, float, float]
    dense: np.ndarray | None = None
    orientation: str = "RAS"


@dataclass(frozen=True)
class Phantom:
    """A line of the table of phantoms.

    Args:
        make: ``make(rng, size, index, **options) -> PhantomCase``; `options` are its keyword-only arguments.
        size: X Y Z that is made unless another is asked for, voxels.
        description: one sentence.
        modality: channel number to name.
        labels: label value to name.
        units: ``"mm"`` or ``"micron"``, of the spacing in the files' headers.
        notes: further fields for ``dataset.json``.
    """

    make: Callable[..., PhantomCase]
    size: tuple[int, int, int]
    description: str
    modality: Mapping[str, str]
    labels: Mapping[str, str]
    units: str = "mm"
    notes: Mapping[str, Any] = field(default_factory=dict)


def is_without(index: int, share: float) -> bool:
    """Whether a case has no tumour: among the first n, n times the share have none, rounded down.

    >>> [is_without(index, 0.5) for index in range(4)]
    [False, True, False, True]
    """
    before, after = (int(count * share + 1e-9) for count in (index, index + 1))
    return after > before
