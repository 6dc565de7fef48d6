"""A volume on every n-th voxel, its affine with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

from ..geometry.subsampling import parse_factor, subsample
from .source import moved

__all__ = ["Subsample", "Subsampled"]


class Subsample(Transform):
    """Keep every `factor`-th voxel of each axis in space, beginning with the first (roth2017hierarchical).

    Reading: plain slicing, see :func:`common.geometry.subsampling.subsample`. The first voxel keeps its place, and
    voxels grow by `factor`.

    Args:
        factor: step in voxels, one for all axes or one for each; an axis shorter than its step keeps one voxel.

    Raises:
        InputError: for a factor that is no whole number from 1.
    """

    def __init__(self, factor: Sequence[int] | int = 2) -> None:
        self.factor = parse_factor(factor)

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Subsample a volume.

        Args:
            img: C D H W, any dtype.

        Returns:
            C ceil(D/f) ceil(H/f) ceil(W/f) of the same type, a copy that does not hold the large volume in memory. The
            affine of a `MetaTensor` follows; as this can not be inverted, the record of operations applied before ends
            here.
        """
        small = subsample(convert_to_tensor(img, track_meta=False), self.factor).clone(
            memory_format=torch.contiguous_format
        )
        return moved(small, img, torch.diag(torch.tensor([*self.factor, 1.0])))


class Subsampled(MapTransform):
    """Dictionary form of :class:`Subsample`.

    Args:
        keys: images and labels.
        factor: see :class:`Subsample`.
        allow_missing_keys: do not raise when one is missing.
    """

    def __init__(self, keys: KeysCollection, factor: Sequence[int] | int = 2, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.subsample = Subsample(factor)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Subsample the entries."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.subsample(data[key])
        return result
