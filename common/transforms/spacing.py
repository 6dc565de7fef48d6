"""Resampling to a spacing that minds its own keys only."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Spacingd
from monai.utils import ensure_tuple

from ..checks import InputError, problem

__all__ = ["KeySpacingd"]


class KeySpacingd(Spacingd):
    """MONAI's ``Spacingd``, shown nothing but its keys.

    Deviation: ``Spacingd`` of MONAI 1.6 writes metadata into every entry whose name begins with one of its keys, and
    breaks where such an entry is none (``image_path``, a text that MONAI Label hands over beside ``image``). Arguments,
    result and inverse are those of ``Spacingd``, which takes an axis without a positive length for one to leave alone.

    Args:
        keys: the volumes.
        pixdim: spacing, mm, of the three axes.
        kwargs: of ``Spacingd``.

    Raises:
        InputError: for another spacing than three positive lengths.
    """

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float] | float, **kwargs: Any) -> None:
        lengths = ensure_tuple(pixdim)
        if len(lengths) != 3 or not all(isinstance(one, (int, float)) and 0 < one < math.inf for one in lengths):
            rule = "it must be three lengths above 0, in mm, in the order of the axes"
            raise InputError(problem(f"spacing {pixdim!r} was given", rule, "give for example [1.5, 1.5, 1.5]"))
        super().__init__(keys, lengths, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample the entries of its keys; all others are handed on as they are."""
        return {**data, **super().__call__({key: data[key] for key in self.key_iterator(dict(data))}, lazy)}
