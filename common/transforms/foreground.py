"""Labels as one channel for each class but the background, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..checks import InputError, problem
from .source import single_volume

__all__ = ["ForegroundChannels", "ForegroundChannelsd", "ForegroundLabel", "ForegroundLabeld"]


class ForegroundChannels(Transform):
    """A label map as a binary channel for each foreground class: what a network of sigmoids is compared with.

    Args:
        num_classes: K + 1, the background counted.

    Raises:
        InputError: for less than two classes.

    >>> ForegroundChannels(3)(torch.tensor([[[[0, 1, 2]]]])).flatten(1)
    tensor([[0, 1, 0],
            [0, 0, 1]], dtype=torch.uint8)
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 2:
            rule = "there must be the background and at least one class"
            raise InputError(problem(f"num_classes is {num_classes}", rule, "count the background too"))
        self.num_classes = num_classes

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        """Split a label map.

        Args:
            label: 1 A B C, 0 = background, k = class k.

        Returns:
            K A B C, unsigned 8 bit, channel k - 1 is 1 where the label is k; metadata survive.

        Raises:
            InputError: for a label of another shape.
        """
        values = single_volume(
            label, "label", "classes are those of one label map, (1, a, b, c)", "give class indices, not channels"
        )
        classes = torch.arange(1, self.num_classes, device=values.device).view(-1, 1, 1, 1)
        return convert_to_dst_type((values == classes).to(torch.uint8), label, dtype=torch.uint8)[0]


class ForegroundChannelsd(MapTransform):
    """Dictionary form of :class:`ForegroundChannels`.

    Args:
        keys: labels.
        num_classes: see :class:`ForegroundChannels`.
        allow_missing_keys: do not raise when a label is missing.
    """

    def __init__(self, keys: KeysCollection = "label", num_classes: int = 2, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.split = ForegroundChannels(num_classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Split the labels."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.split(data[key])
        return result


class ForegroundLabel(Transform):
    """Probabilities of the foreground classes as a label map (angermann2019random25d: y >= 0.5).

    Reading: the paper has one class; of several that reach the threshold the most probable one is taken, of equal ones
    the first.

    Args:
        threshold: probability from which a voxel is foreground, 0 to 1.

    Raises:
        InputError: for another threshold.

    >>> ForegroundLabel(0.5)(torch.tensor([0.4, 0.5, 0.8, 0.3, 0.2, 0.9]).view(2, 1, 1, 3)).flatten()
    tensor([0, 1, 2], dtype=torch.uint8)
    """

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 <= threshold <= 1:
            rule = "it is compared with probabilities, 0 to 1"
            raise InputError(problem(f"threshold is {threshold}", rule, "use the paper's 0.5"))
        self.threshold = float(threshold)

    def __call__(self, probabilities: NdarrayOrTensor) -> NdarrayOrTensor:
        """Decide every voxel.

        Args:
            probabilities: K A B C of classes 1 to K, K from 1 to 255.

        Returns:
            1 A B C, unsigned 8 bit: 0 where no class reaches the threshold, else the class; metadata survive.

        Raises:
            InputError: for no channel, or more of them than labels of 8 bits.
        """
        if len(probabilities.shape) < 2 or not 0 < probabilities.shape[0] < 256:
            came = f"probabilities have shape {tuple(probabilities.shape)}"
            rule = "they must be (K, a, b, c) with 1 to 255 foreground classes"
            raise InputError(problem(came, rule, "give one channel for each class, the batch taken apart"))
        highest, index = convert_to_tensor(probabilities, track_meta=False).max(dim=0, keepdim=True)
        label = torch.where(highest >= self.threshold, index + 1, 0).to(torch.uint8)
        return convert_to_dst_type(label, probabilities, dtype=torch.uint8)[0]


class ForegroundLabeld(MapTransform):
    """Dictionary form of :class:`ForegroundLabel`.

    Args:
        keys: probabilities.
        threshold: see :class:`ForegroundLabel`.
        allow_missing_keys: do not raise when one is missing.
    """

    def __init__(self, keys: KeysCollection = "pred", threshold: float = 0.5, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.decide = ForegroundLabel(threshold)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decide the voxels."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.decide(data[key])
        return result
