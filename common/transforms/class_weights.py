"""Weights of classes by how rare they are in a volume, and of voxels by their class."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..checks import InputError, problem
from ..geometry.labels import check_labels
from .source import source_of

__all__ = ["ClassWeights", "ClassWeightsd", "VoxelWeights", "VoxelWeightsd"]


class ClassWeights(Transform):
    """One weight for each class of a volume, the higher the rarer (roth2017hierarchical, eq. 1).

    lambda_i = (1 - N_i / N_C) / (K - 1), with N_i the labelled voxels of class i, N_C all labelled voxels (those of the
    candidate region) and K the classes that occur in this volume; the weights sum to 1. A class that does not occur
    has weight 0. Where a single class occurs, which eq. 1 leaves open (0 / 0), its weight is 1; where nothing is
    labelled, all are 0.

    Reading: the paper does not say whether N_i is counted per volume and what an absent class does to K; both follow
    the authors' released code.

    Args:
        num_classes: classes 0 to `num_classes` - 1.
        ignore_index: label that is never counted.

    >>> ClassWeights(4)(torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 3, 3, 255])).tolist()
    [0.20000000298023224, 0.4000000059604645, 0.0, 0.4000000059604645]
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = int(num_classes), int(ignore_index)

    def __call__(self, label: NdarrayOrTensor) -> torch.Tensor:
        """Count a label and weigh its classes.

        Args:
            label: labels of any shape, whole numbers of any dtype.

        Returns:
            float32, (`num_classes`,), a plain tensor on the label's device.

        Raises:
            InputError: for labels that are neither a class nor `ignore_index`.
        """
        values = convert_to_tensor(label, track_meta=False).flatten()
        if values.dtype != torch.uint8:  # of which no label is negative, so that it is counted as it is
            values = values[values != self.ignore_index]
            check_labels(values, self.num_classes, self.ignore_index)
            values = values.long()
        counts = torch.bincount(values, minlength=max(self.num_classes, self.ignore_index + 1))
        if values.dtype == torch.uint8 and 0 <= self.ignore_index < len(counts):
            counts[self.ignore_index] = 0
        foreign = counts[self.num_classes :].nonzero().flatten() + self.num_classes
        if len(foreign):
            raise InputError(
                problem(
                    f"{source_of(label)} holds {', '.join(str(value) for value in foreign[:5].tolist())}",
                    f"labels must be 0 to {self.num_classes - 1}, or {self.ignore_index} where they do not count",
                    "renumber the labels, or set num_classes to their number",
                )
            )
        counts = counts[: self.num_classes].double()
        present = counts > 0
        others = present.sum() - 1
        weights = torch.where(present, 1 - counts / counts.sum().clamp(min=1), 0) / others.clamp(min=1)
        return torch.where(present & (others == 0), 1, weights).float()


class ClassWeightsd(MapTransform):
    """Dictionary form of :class:`ClassWeights`.

    To stand before patches are cut: the weights are those of the whole volume.

    Args:
        keys: the label; it stays as it is.
        num_classes, ignore_index: see :class:`ClassWeights`.
        weights_key: entry that the weights are put in.
        allow_missing_keys: do not raise when the label is missing.

    Raises:
        InputError: for more than one key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        ignore_index: int = 255,
        weights_key: str = "class_weights",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            rule = f"the weights of one label are put into '{weights_key}'"
            raise InputError(problem(f"keys {self.keys} were given", rule, "give one key, such as label"))
        self.weights_key = weights_key
        self.weigh = ClassWeights(num_classes, ignore_index)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the weights."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.weights_key] = self.weigh(data[key])
        return result


class VoxelWeights(Transform):
    """Append to a label a channel with the weight of each voxel: that of its class, 0 where it is ignored.

    For :class:`common.losses.VoxelWeightedCELoss` (roth2017hierarchical, eq. 1).

    Args:
        ignore_index: label of what does not count, inside or outside the classes.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        self.ignore_index = int(ignore_index)

    def __call__(self, label: NdarrayOrTensor, weights: NdarrayOrTensor) -> NdarrayOrTensor:
        """Append the weights.

        Args:
            label: 1 D H W, whole numbers of any dtype.
            weights: one for each class, (K,), such as :class:`ClassWeights` gives.

        Returns:
            label and weights, 2 D H W, float32; metadata survive.

        Raises:
            InputError: for other shapes, or (in host memory) labels that are neither a class nor `ignore_index`.
        """
        values = convert_to_tensor(label, track_meta=False)
        weights = convert_to_tensor(weights, track_meta=False).to(values.device, torch.float32)
        if values.ndim < 2 or len(values) != 1 or weights.ndim != 1:
            came = f"{source_of(label)} has shape {tuple(values.shape)} and its weights {tuple(weights.shape)}"
            rule = "they must be (1, D, H, W) and (classes,)"
            raise InputError(problem(came, rule, "let ClassWeightsd come before and VoxelWeightsd once only"))
        check_labels(values, len(weights), self.ignore_index)
        kept = values != self.ignore_index
        result = torch.empty((2, *values.shape[1:]), dtype=torch.float32, device=values.device)
        result[:1] = values
        torch.mul(weights[torch.where(kept, values, 0).long()], kept, out=result[1:])
        return convert_to_dst_type(result, label, dtype=result.dtype)[0]


class VoxelWeightsd(MapTransform):
    """Dictionary form of :class:`VoxelWeights`.

    Args:
        keys: labels.
        weights_key: entry with the weights of the classes, which :class:`ClassWeightsd` has put there.
        ignore_index: see :class:`VoxelWeights`.
        allow_missing_keys: do not raise when a label is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        weights_key: str = "class_weights",
        ignore_index: int = 255,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.weights_key = weights_key
        self.append = VoxelWeights(ignore_index)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append the weights to the labels."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.append(data[key], data[self.weights_key])
        return result
