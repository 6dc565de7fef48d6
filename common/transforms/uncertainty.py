"""How unsure a network is of each voxel, from its class probabilities."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple_rep

from ..checks import InputError, problem
from .source import source_of

__all__ = ["Uncertainty", "Uncertaintyd"]

# what half precision and the mean over windows leave of a sum of 1
_TOLERANCE = 0.02


class Uncertainty(Transform):
    """Entropy of the class probabilities, relative to that of a draw among all classes: 0 is sure, 1 knows nothing.

    shannon1948mathematical, section 6, divided by the logarithm of the number of classes.

    >>> Uncertainty()(torch.tensor([[1.0, 0.5], [0.0, 0.5]]).reshape(2, 1, 1, 2)).flatten().tolist()
    [0.0, 1.0]
    """

    def __call__(self, probabilities: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Args:
            probabilities: K D H W, K at least 2, from 0 to 1, of sum 1 at every voxel.

        Returns:
            1 D H W in [0, 1], float32, of the type and with the metadata of what was given.

        Raises:
            InputError: for what are no probabilities of two classes or more.
        """
        values = convert_to_tensor(probabilities, track_meta=False)
        if values.ndim < 2 or len(values) < 2:
            came = f"the prediction of {source_of(probabilities, 'an image in memory')} is {tuple(values.shape)}"
            rule = "it must be (K, D, H, W), the probabilities of K classes, two or more"
            raise InputError(problem(came, rule, "let the inferer give probabilities (output='probabilities')"))
        entropy, total = (torch.zeros(values.shape[1:], dtype=torch.float32, device=values.device) for _ in range(2))
        for of_class in values:  # one at a time, so that no second volume of all classes is held
            entropy += torch.special.entr(of_class.float())
            total += of_class
        # of what is below 0 the entropy is minus infinity, and of what is above 1 others are below 0 or the sum is off
        if not bool(((total - 1).abs().amax() <= _TOLERANCE) & entropy.isfinite().all()):
            came = f"the prediction of {source_of(probabilities, 'an image in memory')} holds no probabilities"
            rule = "the classes' values must lie between 0 and 1 and sum up to 1 at every voxel"
            raise InputError(problem(came, rule, "let the inferer apply softmax (activation='softmax')"))
        share = (entropy / math.log(len(values))).clamp_(0.0, 1.0)[None]
        return convert_to_dst_type(share, probabilities, dtype=torch.float32)[0]


class Uncertaintyd(MapTransform):
    """Dictionary form of :class:`Uncertainty`; the probabilities stay.

    Args:
        keys: class probabilities, K D H W each.
        names: the key that each map goes to, one for each of `keys`; by default ``KEY_uncertainty``.
        allow_missing_keys: pass over keys that a case does not have.

    Raises:
        InputError: see :class:`Uncertainty`.
    """

    def __init__(
        self, keys: KeysCollection, names: KeysCollection | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = ensure_tuple_rep(names, len(self.keys)) if names else [f"{key}_uncertainty" for key in self.keys]
        self.uncertainty = Uncertainty()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add a map for every key."""
        result = dict(data)
        for key, name in self.key_iterator(result, self.names):
            result[name] = self.uncertainty(result[key])
        return result
