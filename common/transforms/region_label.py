"""Labels that count in a candidate region only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..checks import InputError, parse_flag, problem
from .source import source_of

__all__ = ["RestrictLabel", "RestrictLabeld"]


class RestrictLabel(Transform):
    """Take the label away outside a candidate region, so that neither sampling nor loss sees what lies there.

    roth2017hierarchical, section 2: C1 in stage 1; in stage 2 C2, to which the ground truth is added in training.

    Args:
        keep_foreground: labels above 0 stay wherever they are (region OR ground truth).
        ignore_index: label of what does not count.
    """

    def __init__(self, keep_foreground: bool = False, ignore_index: int = 255) -> None:
        self.keep_foreground = parse_flag(keep_foreground, "keep_foreground")
        self.ignore_index = int(ignore_index)

    def __call__(self, label: NdarrayOrTensor, mask: NdarrayOrTensor) -> NdarrayOrTensor:
        """Restrict a label to a region.

        Args:
            label: 1 D H W, classes or `ignore_index`, which stays.
            mask: the region, same shape, not 0 inside.

        Returns:
            label of the same shape and type, a new array; metadata survive.

        Raises:
            InputError: where the shapes differ, the label's type cannot hold `ignore_index`, or nothing stays labelled.
        """
        values = convert_to_tensor(label, track_meta=False)
        inside = convert_to_tensor(mask, track_meta=False).to(values.device)
        if values.shape != inside.shape:
            raise InputError(
                problem(
                    f"label {source_of(label, 'in memory')} has shape {tuple(values.shape)} and the region's mask "
                    f"{tuple(inside.shape)}",
                    "both must lie on one grid",
                    "make the mask from the image that belongs to the label, after the last change of grid",
                )
            )
        self._check_type(values, label)
        outside = inside == 0
        if self.keep_foreground:
            outside &= values <= 0
        result = values.masked_fill(outside, self.ignore_index)
        if not bool((result != self.ignore_index).any()):
            region = "the region and no foreground label" if self.keep_foreground else "the region"
            raise InputError(
                problem(
                    f"nothing of {source_of(label)} stays labelled in {region}",
                    "some labelled voxels must lie there, or nothing can be learnt from the case",
                    "look at the image and its label: is it a body in Hounsfield units and do both lie at one place? "
                    "Or take the case out of the list",
                )
            )
        return convert_to_dst_type(result, label, dtype=result.dtype)[0]

    def _check_type(self, values: torch.Tensor, label: Any) -> None:
        if values.is_floating_point():
            return
        bounds = torch.iinfo(values.dtype) if values.dtype != torch.bool else None
        if bounds is None or not bounds.min <= self.ignore_index <= bounds.max:
            raise InputError(
                problem(
                    f"label {source_of(label, 'in memory')} is of type {str(values.dtype).removeprefix('torch.')}",
                    f"the type must hold {self.ignore_index} (ignore_index)",
                    "cast it to int16 before, or take another ignore_index",
                )
            )


class RestrictLabeld(MapTransform):
    """Dictionary form of :class:`RestrictLabel`.

    Args:
        keys: labels.
        mask_key: entry with the region.
        keep_foreground, ignore_index: see :class:`RestrictLabel`.
        allow_missing_keys: do not raise when a label is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str,
        keep_foreground: bool = False,
        ignore_index: int = 255,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.restrict = RestrictLabel(keep_foreground, ignore_index)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restrict the labels."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.restrict(data[key], data[self.mask_key])
        return result
