"""A label with its contour as a second channel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type

from ..geometry.contour import inner_contour
from .source import single_volume

__all__ = ["AppendContour", "AppendContourd"]


class AppendContour(Transform):
    """Append the inner contour, which a network learns beside the region (huang2021runet, contour head).

    See :func:`common.geometry.contour.inner_contour`. Slices must lie across the first axis in space, as in SPL
    orientation, and the label on the grid that the network sees: resampling tears a line of one voxel.
    """

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        """Append the contour.

        Args:
            label: 1 D H W, not 0 = inside.

        Returns:
            2 D H W of the label's type, a new array: the label as it is, and 1 on the contour; metadata survive.

        Raises:
            InputError: for a label of another shape.
        """
        values = single_volume(
            label, "label", "a contour is that of one label, (1, D, H, W)", "append the contour once, to class indices"
        )
        result = torch.cat([values, inner_contour(values, axis=0).to(values.dtype)])
        return convert_to_dst_type(result, label, dtype=result.dtype)[0]


class AppendContourd(MapTransform):
    """Dictionary form of :class:`AppendContour`.

    Args:
        keys: labels.
        allow_missing_keys: do not raise when a label is missing.
    """

    def __init__(self, keys: KeysCollection = "label", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.append = AppendContour()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append the contours."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.append(data[key])
        return result
