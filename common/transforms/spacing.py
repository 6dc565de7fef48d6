"""Resampling to a spacing that minds its own keys only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd

__all__ = ["KeySpacingd"]


class KeySpacingd(Spacingd):
    """MONAI's ``Spacingd``, shown nothing but its keys.

    Deviation: ``Spacingd`` of MONAI 1.6 writes metadata into every entry whose name begins with one of its keys, and
    breaks where such an entry is none (``image_path``, a text that MONAI Label hands over beside ``image``). Arguments,
    result and inverse are those of ``Spacingd``.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample the entries of its keys; all others are handed on as they are."""
        return {**data, **super().__call__({key: data[key] for key in self.key_iterator(dict(data))}, lazy)}
