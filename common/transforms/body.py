"""The body in a CT as a mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type

from ..geometry.body import body_mask
from .source import one_key, single_volume

__all__ = ["BodyMask", "BodyMaskd"]


class BodyMask(Transform):
    """Where the patient is in a CT: C1, the candidate region of stage 1 (roth2017hierarchical, section 2).

    See :func:`common.geometry.body.body_mask`. Axial slices must lie across the last axis, as in RAS orientation.

    Args:
        threshold: HU from which a voxel is not air.
        opening: voxels taken away and given back, so that table and tubes fall off.
    """

    def __init__(self, threshold: float = -500.0, opening: int = 2) -> None:
        self.threshold, self.opening = float(threshold), int(opening)

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Find the body.

        Args:
            img: 1 X Y Z in HU.

        Returns:
            bool mask of the same shape with the image's metadata; empty where there is no body.

        Raises:
            InputError: for an image of another shape.
        """
        values = single_volume(img, "image", "a CT must be (1, X, Y, Z)", "load it with one channel in front")
        mask = body_mask(values, self.threshold, self.opening, axis=2)
        return convert_to_dst_type(mask, img, dtype=mask.dtype)[0]


class BodyMaskd(MapTransform):
    """Dictionary form of :class:`BodyMask`.

    Args:
        keys: the image; it stays as it is.
        mask_key: entry that the mask is put in.
        threshold, opening: see :class:`BodyMask`.
        allow_missing_keys: do not raise when the image is missing.

    Raises:
        InputError: for more than one key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str = "body",
        threshold: float = -500.0,
        opening: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        one_key(self.keys, mask_key)
        self.mask_key = mask_key
        self.find = BodyMask(threshold, opening)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.mask_key] = self.find(data[key])
        return result
