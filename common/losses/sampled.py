"""Binary cross-entropy of the foreground and of only a part of the background."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from ..checks import InputError, problem

__all__ = ["SampledBCELoss"]

_SELECTIONS = ("random", "hardest")


class SampledBCELoss(_Loss):
    """Sigmoid cross-entropy, its mean over the foreground and `ratio` times as many background voxels.

    The two answers to few foreground voxels that huang2021runet compares its global Dice loss with:
    sampling in a fixed ratio (`selection` = "random") and online hard example mining ("hardest": the background voxels
    of the largest loss). Foreground and background are those of the whole batch.

    Reading: neither the ratio nor the treatment of a batch without foreground is given. The ratio is 3 by default; a
    batch without foreground counts as if it had one foreground voxel, so that `ratio` background voxels are learnt
    from. Where the background is smaller than asked for, all of it is taken.

    Args:
        ratio: background voxels for each foreground voxel, > 0.
        selection: "random", anew at each call from torch's global generator, or "hardest".

    Raises:
        InputError: for a ratio that is not positive and finite, or another selection.

    >>> logits, label = torch.tensor([[[0.0, 2.0, -9.0]]]), torch.tensor([[[1, 0, 0]]])
    >>> round(SampledBCELoss(ratio=1, selection="hardest")(logits, label).item(), 4)  # of the first two
    1.41
    """

    def __init__(self, ratio: float = 3.0, selection: str = "random") -> None:
        super().__init__()
        if not 0 < ratio < float("inf"):
            rule = "it must be a number above 0, or there is no background to learn from"
            raise InputError(problem(f"ratio is {ratio}", rule, "use 3"))
        if selection not in _SELECTIONS:
            rule = f"it must be one of {', '.join(_SELECTIONS)}"
            raise InputError(problem(f"selection is {selection!r}", rule, "take 'random' for sampling in a ratio"))
        self.ratio, self.selection = float(ratio), selection

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            logits: B 1 and spatial axes, any floating dtype; computed in float32 or wider.
            label: the same shape, any dtype; above 0.5 is foreground.

        Returns:
            scalar.

        Raises:
            InputError: for shapes that differ.
        """
        if logits.shape != label.shape:
            came = f"logits have shape {tuple(logits.shape)} and the label {tuple(label.shape)}"
            raise InputError(problem(came, "the two must be alike", "give both one channel and the same grid"))
        logits = convert_to_tensor(logits, track_meta=False).flatten()
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        positive = convert_to_tensor(label, track_meta=False).flatten() > 0.5
        costs = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
        # By ranks instead of counts, which the host would have to wait for: the first places of the order are taken.
        keys = torch.rand_like(costs) if self.selection == "random" else costs.detach()
        order = torch.where(positive, -1.0, keys).argsort(descending=True)  # no key is below 0: the foreground is last
        wanted = torch.minimum(self.ratio * positive.sum().clamp(min=1), (~positive).sum())
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        kept = positive | (places < wanted.round())
        return torch.where(kept, costs, 0).sum() / kept.sum().clamp(min=1)
