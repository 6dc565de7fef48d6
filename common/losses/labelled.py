"""Losses that leave unlabelled voxels out: value and gradient come from the labelled ones alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from monai.utils import convert_to_tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from ..checks import InputError, problem
from ..geometry.labels import check_labels

__all__ = ["LabelledCrossEntropyLoss", "LabelledDiceCELoss", "LabelledDiceLoss"]


class LabelledCrossEntropyLoss(_Loss):
    """Weighted softmax cross-entropy over labelled voxels (cicek2016unet3d, sec. 2: "weight 0" for unlabelled ones).

    L = sum_i w(y_i) * -log p_i(y_i) / sum_i w(y_i), over the labelled voxels i of the whole batch. With nothing
    labelled the loss is 0 and so is its gradient.

    Reading: the paper weights the background down and the inside of tubules up without giving values: the weights are
    an argument. Nor does it say how it normalises; dividing by the sum of weights is what the authors' released Caffe
    layer does ("valid" normalisation), and roth2017hierarchical after it.

    Args:
        class_weights: a weight per class, none negative; None weights all alike.
        ignore_index: label of unlabelled voxels, inside or outside the classes.

    Raises:
        InputError: for weights that are not all finite and >= 0 with one above 0.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, ignore_index: int = 3) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.class_weights: torch.Tensor | None
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        if weights is not None and not (
            weights.ndim == 1 and bool(weights.isfinite().all() & (weights >= 0).all() & weights.any())
        ):
            rule = "they must be finite, none below 0 and one above"
            raise InputError(
                problem(f"class_weights are {class_weights!r}", rule, "give one weight per class, such as [2, 2, 0.5]")
            )
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            logits: B K and spatial axes, any floating dtype; computed in float32 or wider.
            label: B 1 and the same spatial axes, integer labels of any dtype.

        Returns:
            scalar.

        Raises:
            InputError: for other shapes, a wrong number of weights, or (in host memory) labels that are no class.
        """
        logits, label = _prepare(logits, label, self.ignore_index)
        label = label[:, 0]
        weights = self.class_weights
        if weights is None:
            total = (label != self.ignore_index).sum()
        else:
            if len(weights) != logits.shape[1]:
                came = f"there are {len(weights)} class_weights and {logits.shape[1]} channels of logits"
                raise InputError(problem(came, "each class needs one weight", "give one weight per class"))
            if weights.device != logits.device:
                self.class_weights = weights = weights.to(logits.device)  # kept, so that only the first step copies
            weights = weights.to(logits.dtype)
            kept = label != self.ignore_index
            total = (weights[torch.where(kept, label, 0)] * kept).sum()
        summed = F.cross_entropy(logits, label, weights, ignore_index=self.ignore_index, reduction="sum")
        return summed / torch.where(total > 0, total, 1)


class LabelledDiceLoss(_Loss):
    """Soft Dice loss of softmax probabilities over labelled voxels.

    MONAI's ``DiceLoss``, whose ``ignore_index`` masks after softmax and one-hot, with our label convention and checks.
    Per class and item: 1 - (2 sum p g + s) / (sum p + sum g + s) with s = `smooth` and sums over labelled voxels; then
    the mean over classes and items. An item with nothing labelled has loss 0 and gradient 0, and counts as an item.

    Args:
        ignore_index: label of unlabelled voxels, inside or outside the classes.
        include_background: whether class 0 counts.
        batch: sum over the items of a batch before dividing, so that few labelled voxels in one item weigh little.
        smooth: added to numerator and denominator alike, > 0; a class without labelled voxels and without predicted
            ones then has loss 0.

    Raises:
        InputError: for a smooth that is not positive.
    """

    def __init__(
        self, ignore_index: int = 3, include_background: bool = True, batch: bool = False, smooth: float = 1e-5
    ) -> None:
        super().__init__()
        if not smooth > 0:
            raise InputError(
                problem(f"smooth is {smooth}", "it must be above 0, or an empty class divides 0 by 0", "use 1e-5")
            )
        self.ignore_index = ignore_index
        self.dice = DiceLoss(
            include_background=include_background,
            to_onehot_y=True,
            softmax=True,
            batch=batch,
            smooth_nr=smooth,
            smooth_dr=smooth,
            ignore_index=ignore_index,
        )

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Loss of a batch: logits B K ..., labels B 1 ...; scalar (see :class:`LabelledCrossEntropyLoss`)."""
        return self.dice(*_prepare(logits, label, self.ignore_index))


class LabelledDiceCELoss(_Loss):
    """Weighted sum of :class:`LabelledDiceLoss` and :class:`LabelledCrossEntropyLoss`.

    MONAI's ``DiceCELoss`` can leave no label out.

    Args:
        class_weights: of the cross-entropy.
        ignore_index: label of unlabelled voxels, inside or outside the classes.
        include_background: of the Dice part.
        batch: of the Dice part.
        smooth: of the Dice part.
        lambda_dice: factor of the Dice part, >= 0.
        lambda_ce: factor of the cross-entropy, >= 0.

    Raises:
        InputError: for a negative factor, and what the two parts refuse.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = 3,
        include_background: bool = True,
        batch: bool = False,
        smooth: float = 1e-5,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
    ) -> None:
        super().__init__()
        if min(lambda_dice, lambda_ce) < 0:
            came = f"lambda_dice is {lambda_dice} and lambda_ce is {lambda_ce}"
            raise InputError(problem(came, "neither may be negative", "use 1.0 for both"))
        self.lambda_dice, self.lambda_ce = lambda_dice, lambda_ce
        self.dice = LabelledDiceLoss(ignore_index, include_background, batch, smooth)
        self.cross_entropy = LabelledCrossEntropyLoss(class_weights, ignore_index)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Loss of a batch: logits B K ..., labels B 1 ...; scalar (see :class:`LabelledCrossEntropyLoss`)."""
        return self.lambda_dice * self.dice(logits, label) + self.lambda_ce * self.cross_entropy(logits, label)


def _prepare(logits: torch.Tensor, label: torch.Tensor, ignore_index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain tensors of checked shape: logits in float32 or wider, labels int64."""
    if logits.ndim < 3 or logits.shape[1] < 2 or label.shape != (logits.shape[0], 1, *logits.shape[2:]):
        came = f"logits have shape {tuple(logits.shape)} and labels {tuple(label.shape)}"
        rule = "they must be (batch, classes >= 2, ...) and (batch, 1, ...) with the same spatial size"
        raise InputError(problem(came, rule, "give labels one channel and crop them to the network's output_size"))
    logits = convert_to_tensor(logits, track_meta=False)
    label = convert_to_tensor(label, track_meta=False)
    check_labels(label, logits.shape[1], ignore_index)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), label.long()
