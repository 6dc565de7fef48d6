"""Axial slices resized to what a network takes, all slices kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor, ensure_tuple

from ..checks import InputError, problem
from ..geometry.slices import resize_slices
from .source import moved, source_of

__all__ = ["ResizeSlices", "ResizeSlicesd"]


class ResizeSlices(Transform):
    """Resize a volume within its slices, which lie across the last axis (jin2020raunet, sections 2.2 and 2.3).

    Deviation: the released code resizes by splines of order 3, which overshoot; here it is bilinear with antialiasing,
    as in :func:`common.geometry.slices.resize_slices`, which the inferer resizes by too.

    Args:
        size: voxels (x, y) of the new slices.

    Raises:
        InputError: for a size that is not two whole numbers from 1.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = ensure_tuple(size)
        if len(self.size) != 2 or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in self.size):
            rule = "it must be two whole numbers from 1, the voxels of a slice"
            raise InputError(problem(f"size {size!r} was given", rule, "give for example [224, 224]"))

    def __call__(self, img: NdarrayOrTensor, as_label: bool = False) -> NdarrayOrTensor:
        """Resize a volume.

        Args:
            img: C X Y Z.
            as_label: the image is a mask: what is not 0 becomes 1, resized, and 1 from a half on.

        Returns:
            C x y Z, a new array; a mask of the dtype given, an image as float. The affine of a `MetaTensor` follows
            (borders of the first and last voxel stay); the record of operations applied before ends here.

        Raises:
            InputError: for an image of another number of axes.
        """
        values = convert_to_tensor(img, track_meta=False)
        if values.ndim != 4:
            came = f"image {source_of(img, 'in memory')} has shape {tuple(values.shape)}"
            raise InputError(problem(came, "it must be (C, X, Y, Z)", "load it with the channel in front"))
        small = resize_slices(values, self.size, mode="mask" if as_label else "bilinear")
        place = np.eye(4)
        for axis, (after, before) in enumerate(zip(self.size, values.shape[1:3])):
            step = before / after
            place[axis, axis], place[axis, 3] = step, (step - 1) / 2
        # a volume of the right size comes back as it is
        small = small.clone() if small.data_ptr() == values.data_ptr() else small
        return moved(small.contiguous(), img, place)


class ResizeSlicesd(MapTransform):
    """Dictionary form of :class:`ResizeSlices`.

    Args:
        keys: images and masks.
        size: see :class:`ResizeSlices`.
        label_keys: those of `keys` that are masks.
        allow_missing_keys: do not raise when one is missing.

    Raises:
        InputError: see :class:`ResizeSlices`; also when `label_keys` names what `keys` does not.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        label_keys: KeysCollection = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_keys = ensure_tuple(label_keys)
        if not set(self.label_keys) <= set(self.keys):
            came = f"label_keys {self.label_keys} was given with keys {self.keys}"
            raise InputError(problem(came, "every label must be among the keys", "name it in both"))
        self.resize = ResizeSlices(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize the entries."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.resize(data[key], as_label=key in self.label_keys)
        return result
