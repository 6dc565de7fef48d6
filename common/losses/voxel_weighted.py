"""Cross-entropy with a weight for each voxel, which comes along with the label."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from ..checks import InputError, problem
from ..geometry.labels import check_labels

__all__ = ["VoxelWeightedCELoss"]

_NORMALISE = ("weights", "voxels")


class VoxelWeightedCELoss(_Loss):
    """Softmax cross-entropy of weighted voxels (roth2017hierarchical, eq. 1).

    L = sum_x w_x * -log p_x(y_x) / N, over all voxels x of the batch. w_x is the weight of the voxel's class in its own
    volume (see :class:`common.transforms.ClassWeights`) inside the candidate region, and 0 outside. Where every weight
    is 0 the loss is 0 and so is its gradient.

    Deviation: N is the sum of the weights by default, as in the authors' released layer, so that the length of a step
    does not depend on how rare the classes in a patch are; `normalise` = "voxels" is the paper's 1/N over the voxels
    of the region. The paper's softmax (eq. 2) leaves class 0 out of the denominator, an erratum.

    Args:
        ignore_index: label whose voxels have weight 0, whatever their weight says; inside or outside the classes.
        normalise: what the sum is divided by: "weights", or "voxels", the number of those with a weight above 0.

    Raises:
        InputError: for another `normalise`.
    """

    def __init__(self, ignore_index: int = 255, normalise: str = "weights") -> None:
        super().__init__()
        if normalise not in _NORMALISE:
            rule = f"it must be one of {', '.join(_NORMALISE)}"
            raise InputError(problem(f"normalise is {normalise!r}", rule, "take 'weights' unless eq. 1 is wanted"))
        self.ignore_index = int(ignore_index)
        self.normalise = normalise

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            logits: B K and spatial axes, any floating dtype; computed in float32 or wider.
            target: B 2 and the same spatial axes, any dtype: labels (whole numbers) and weights >= 0.

        Returns:
            scalar.

        Raises:
            InputError: for other shapes, or (in host memory) labels that are no class and weights that are negative
                or not finite.
        """
        if logits.ndim < 3 or logits.shape[1] < 2 or target.shape != (logits.shape[0], 2, *logits.shape[2:]):
            came = f"logits have shape {tuple(logits.shape)} and the target {tuple(target.shape)}"
            rule = "they must be (batch, classes >= 2, ...) and (batch, 2, ...) with the same spatial size"
            remedy = (
                "append the weights to the label as its second channel (common.transforms.VoxelWeightsd) and crop it "
                "to the network's output_size"
            )
            raise InputError(problem(came, rule, remedy))
        logits = convert_to_tensor(logits, track_meta=False)
        label, weights = convert_to_tensor(target, track_meta=False).unbind(1)
        check_labels(label, logits.shape[1], self.ignore_index)
        _check_weights(weights)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights = torch.where(label == self.ignore_index, 0, weights).to(logits.dtype)
        costs = F.cross_entropy(logits, label.long(), ignore_index=self.ignore_index, reduction="none")
        total = weights.sum() if self.normalise == "weights" else torch.count_nonzero(weights)
        return (weights * costs).sum() / torch.where(total > 0, total, 1)


def _check_weights(weights: torch.Tensor) -> None:
    # Only in host memory, as the labels: an accelerator would have to be waited for at every step.
    if weights.device.type == "cpu" and not bool((weights.isfinite() & (weights >= 0)).all()):
        worst = float(weights[~(weights.isfinite() & (weights >= 0))][0])
        rule = "weights of voxels must be finite and not below 0"
        raise InputError(
            problem(f"the target's second channel holds {worst:g}", rule, "give the weights after the label")
        )
