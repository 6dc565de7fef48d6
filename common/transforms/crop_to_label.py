"""A box around what is labelled, as training sees an organ that an earlier stage would find."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

from ..checks import InputError, problem
from ..geometry.boxes import Box, at_least, bounding_box
from .source import check_one_grid, source_of
from .window import cut_window, voxel_counts

__all__ = ["CropToLabel", "CropToLabeld"]


class CropToLabel(Transform):
    """Crop to the box around all labels above 0, with a margin (jin2020raunet, section 2.3).

    The margins add up, and the box is clipped to the volume; see :func:`common.geometry.boxes.bounding_box`, by which
    the inferer crops too. What is labelled less than 0 counts as nothing.

    Args:
        margin: voxels on both sides, one number or one for each axis.
        margin_mm: millimetres on both sides, rounded up to whole voxels of the label's spacing; None for no more.
        least: the box is extended to so many voxels, as far as the volume has them; one number or one for each axis.

    Raises:
        InputError: for margins or sizes out of range.
    """

    def __init__(
        self, margin: Sequence[int] | int = 0, margin_mm: float | None = None, least: Sequence[int] | int = 1
    ) -> None:
        self.margin, self.least = voxel_counts(margin, "margin"), voxel_counts(least, "least")
        self.margin_mm = None if margin_mm is None else float(margin_mm)
        if self.margin_mm is not None and not 0 <= self.margin_mm < math.inf:
            rule = "it must be a length from 0, in mm, or null"
            raise InputError(problem(f"margin_mm {margin_mm} was given", rule, "give for example 15"))

    def box(self, label: NdarrayOrTensor) -> Box:
        """Where to crop.

        Args:
            label: 1 D H W.

        Raises:
            InputError: where nothing is labelled, or `margin_mm` is given and the label does not say its spacing.
        """
        values = convert_to_tensor(label, track_meta=False)
        if self.margin_mm is not None and not isinstance(label, MetaTensor):
            came = f"margin_mm {self.margin_mm:g} was given, and the label carries no affine"
            raise InputError(problem(came, "millimetres need a spacing", "load the label as a MetaTensor"))
        spacing = None if self.margin_mm is None else label.pixdim.tolist()
        found = bounding_box(values > 0, self.margin, self.margin_mm, spacing)
        if found is None:
            came = f"nothing is labelled above 0 in {source_of(label)}"
            rule = "a box is laid around the organ's label, so that each case needs one"
            raise InputError(problem(came, rule, "correct the label, or take the case out of the list"))
        return at_least(found, values.shape[1:], self.least)

    def __call__(self, img: NdarrayOrTensor, label: NdarrayOrTensor | None = None) -> NdarrayOrTensor:
        """Crop an image.

        Args:
            img: C D H W.
            label: 1 D H W on the image's grid; the image itself where none is given.

        Returns:
            C d h w of the same type and dtype, a copy that does not hold the large volume in memory. The affine of a
            `MetaTensor` follows; the record of operations applied before ends here.

        Raises:
            InputError: see :meth:`box`; also where the sizes differ.
        """
        label = img if label is None else label
        check_one_grid({"image": torch.as_tensor(img), "label": torch.as_tensor(label)}, torch.as_tensor(label))
        return _cut(img, self.box(label))


class CropToLabeld(MapTransform):
    """Dictionary form of :class:`CropToLabel`: one box for all entries.

    Args:
        keys: what is cropped; the label too, if it is to be.
        label_key: the label, on the grid of all of them.
        margin, margin_mm, least: see :class:`CropToLabel`.
        allow_missing_keys: do not raise when an entry is missing (the label is always needed).
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        margin: Sequence[int] | int = 0,
        margin_mm: float | None = None,
        least: Sequence[int] | int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.crop = CropToLabel(margin, margin_mm, least)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop the entries."""
        result, label = dict(data), data[self.label_key]
        keys = list(self.key_iterator(result))
        check_one_grid({key: torch.as_tensor(data[key]) for key in (*keys, self.label_key)}, torch.as_tensor(label))
        box = self.crop.box(label)
        for key in keys:
            result[key] = _cut(data[key], box)
        return result


def _cut(img: NdarrayOrTensor, box: Box) -> NdarrayOrTensor:
    return cut_window(img, box.start, box.size)
