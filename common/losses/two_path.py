"""One loss for the two paths of the random 2.5D U-Net, weighted against each other."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor
from torch import nn
from torch.nn.modules.loss import _Loss

from ..checks import InputError, problem

__all__ = ["TwoPathLoss", "joint_weight"]


def joint_weight(epoch: int, start: float = 0.99) -> float:
    """Weight of the random path in an epoch: c(1) = start, c(n + 1) = c(n) * start^n (angermann2019random25d).

    This is start^(1 + n (n - 1) / 2): for 0.99 it is 0.98 in epoch 2, 0.63 in epoch 10, 0.15 in epoch 20, and the
    network of the projections, which learns from the random path alone, has all but stopped by epoch 30 (0.0125).

    Args:
        epoch: n, from 1.
        start: c(1), 0 to 1; 1 stays 1.

    Raises:
        InputError: for an epoch below 1, or a start outside 0 to 1.

    >>> [round(joint_weight(n), 2) for n in (1, 2, 3, 10, 20)]
    [0.99, 0.98, 0.96, 0.63, 0.15]
    """
    if epoch < 1:
        raise InputError(problem(f"epoch is {epoch}", "epochs are counted from 1", "give the number of the epoch"))
    return _checked_weight(start) ** (1 + epoch * (epoch - 1) // 2)


class TwoPathLoss(_Loss):
    """weight * l(y_aux) + (1 - weight) * l(y): both paths of one network against one truth (angermann2019random25d).

    The channels are those of :class:`~common.networks.random25d.RandomProjectionUNet` when it is given angles: y, of
    all directions, first, y_aux, of the random ones, after it. The weight is an attribute;
    :class:`~common.handlers.two_path.TwoPathSchedule` moves it from epoch to epoch.

    Args:
        criterion: l, given logits and targets of K channels, as ``monai.losses.DiceLoss(sigmoid=True)``.
        weight: c, the share of the random path, 0 to 1.

    Raises:
        InputError: for a weight outside 0 to 1.
    """

    def __init__(self, criterion: nn.Module, weight: float = 0.99) -> None:
        super().__init__()
        self.criterion = criterion
        self.weight = _checked_weight(weight)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            logits: B 2K A B C, y before y_aux, any floating dtype; computed in float32 or wider.
            target: B K A B C, 1 where a class is.

        Returns:
            scalar, for a criterion that gives one.

        Raises:
            InputError: for logits that are not two paths of the target's channels and size.
        """
        shape = tuple(target.shape)
        if target.ndim < 3 or tuple(logits.shape) != (shape[0], 2 * shape[1], *shape[2:]):
            came = f"logits have shape {tuple(logits.shape)} and the target {shape}"
            rule = "they must be (batch, 2 K, ...), both paths, and (batch, K, ...)"
            remedy = "train RandomProjectionUNet through TwoPathInferer, or any other network with the criterion itself"
            raise InputError(problem(came, rule, remedy))
        logits = convert_to_tensor(logits, track_meta=False)
        target = convert_to_tensor(target, track_meta=False)
        full, random = logits.to(torch.promote_types(logits.dtype, torch.float32)).chunk(2, dim=1)
        return self.weight * self.criterion(random, target) + (1 - self.weight) * self.criterion(full, target)


def _checked_weight(weight: float) -> float:
    if not 0 <= weight <= 1:
        rule = "the share of the random path must be 0 to 1"
        raise InputError(problem(f"weight is {weight}", rule, "use the paper's 0.99"))
    return float(weight)
