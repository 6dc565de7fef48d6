"""One-hot prediction and reference in which unlabelled voxels are empty."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.networks.utils import one_hot
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..checks import InputError, problem
from ..geometry.labels import split_ignore

__all__ = ["LabelledOneHot", "LabelledOneHotd"]


class LabelledOneHot(Transform):
    """Class indices to one-hot, all channels of prediction and reference zero where the reference is unlabelled.

    Any overlap metric of MONAI then counts labelled voxels only (cicek2016unet3d, section 2: label 3 is "unlabelled").
    MONAI's own ``ignore_index`` covers the reference as class indices, or a one-hot reference whose prediction is
    masked by each metric in its own way; masking both once, here, serves every metric and handler alike.

    Args:
        num_classes: K, number of classes.
        ignore_index: the value of unlabelled voxels.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def __call__(self, pred: NdarrayOrTensor, label: NdarrayOrTensor) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """
        Args:
            pred: class indices, 1 D H W.
            label: class indices or `ignore_index`, 1 D H W.

        Returns:
            one-hot prediction and reference, K D H W, unsigned 8 bit, with the metadata of their sources.

        Raises:
            InputError: when either has more than one channel, the shapes differ, or the prediction holds another class.
        """
        if pred.shape != label.shape or len(pred.shape) < 2 or pred.shape[0] != 1:
            raise InputError(
                problem(
                    f"prediction {tuple(pred.shape)} against reference {tuple(label.shape)}",
                    "both must be class indices of one channel, 1 D H W, on one grid",
                    "let the inferer give labels (output='labels') and compare before any resampling",
                )
            )
        indices = convert_to_tensor(pred, track_meta=False)
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= self.num_classes:
            raise InputError(
                problem(
                    f"the prediction holds class {low if low < 0 else high}",
                    f"classes are 0 to {self.num_classes - 1}",
                    "check num_classes",
                )
            )
        reference, mask = split_ignore(
            convert_to_tensor(label, track_meta=False)[None], self.num_classes, self.ignore_index
        )
        found = one_hot(indices[None], self.num_classes, dtype=torch.uint8) * mask
        return _like(found[0], pred), _like(reference[0], label)


def _like(volume: torch.Tensor, source: NdarrayOrTensor) -> NdarrayOrTensor:
    converted = convert_to_dst_type(volume, source, dtype=torch.uint8)[0]
    return converted.copy_meta_from(source) if isinstance(converted, MetaTensor) else converted


class LabelledOneHotd(MapTransform):
    """Dictionary version of :class:`LabelledOneHot`.

    The prediction as class indices stays available under ``KEY_indices`` (``pred_indices``), for pictures.

    Args:
        keys: the prediction's key.
        label_key: the reference's key; its entry is made one-hot too.
        num_classes: K, number of classes.
        ignore_index: the value of unlabelled voxels.
        allow_missing_keys: leave data without the prediction as they are.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        label_key: str = "label",
        num_classes: int = 2,
        ignore_index: int = -1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.converter = LabelledOneHot(num_classes, ignore_index)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[f"{key}_indices"] = data[key]
            result[key], converted = self.converter(data[key], data[self.label_key])
            result[self.label_key] = converted
        return result
