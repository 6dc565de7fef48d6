"""The loss of a network that locates regions of interest and segments only inside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from monai.utils import convert_to_tensor, ensure_tuple_rep
from torch.nn.modules.loss import _Loss

from ..checks import InputError, problem
from ..geometry.boxes import Box
from ..geometry.rois import STRIDES, pooled_label
from ..networks.rois import RoIPrediction
from .sampled import SampledBCELoss

__all__ = ["RoIAwareLoss"]

_CRITERIA = ("dice", "sampled", "ohem")


class RoIAwareLoss(_Loss):
    """L = L_g + L_region + lambda_c L_contour (huang2021runet).

    - L_g: of the locator's heat map and the label max-pooled to the heat map's cells;
    - L_region, L_contour: of the two heads of the decoder inside the regions of interest (RoIs), against the label and
      its inner in-plane contour. All RoIs of the batch are joined before dividing.

    Each is the Dice loss 1 - (2 sum p g + s) / (sum p + sum g + s) with p = sigmoid(logit) and s = `smooth`, summed
    over the batch. A part of which the prediction holds nothing is left out; without any part the loss is 0 and gives
    no gradient. The fourth term of the paper, beta ||W||^2, is the optimiser's weight decay.

    Deviation: the released code has s in L_g alone, and divides 0 by 0 in an RoI without foreground.

    Args:
        locator_criterion: of L_g: "dice", or what the paper compares it with, cross-entropy of the foreground and 3
            times as many cells of the background: "sampled" at random, or the hardest ones, "ohem".
        lambda_contour: lambda_c >= 0; with 0 the contour is not looked at.
        smooth: s > 0, added to both parts of the fraction.
        cell: voxels of a cell of the heat map, one number or one for each axis.

    Raises:
        InputError: for an argument outside its range.
    """

    def __init__(
        self,
        locator_criterion: str = "dice",
        lambda_contour: float = 0.5,
        smooth: float = 1e-4,
        cell: int | Sequence[int] = STRIDES[0],
    ) -> None:
        super().__init__()
        if locator_criterion not in _CRITERIA:
            rule = f"it must be one of {', '.join(_CRITERIA)}"
            raise InputError(problem(f"locator_criterion is {locator_criterion!r}", rule, "take 'dice', the paper's"))
        if not 0 <= lambda_contour < float("inf"):
            came = f"lambda_contour is {lambda_contour}"
            raise InputError(problem(came, "it must be a number and not below 0", "use 0.5, or 0 for no contour"))
        if not smooth > 0:
            rule = "it must be above 0, or regions without foreground divide 0 by 0"
            raise InputError(problem(f"smooth is {smooth}", rule, "use 1e-4"))
        self.cell = tuple(int(size) for size in ensure_tuple_rep(cell, 3))
        if min(self.cell) < 1:
            raise InputError(problem(f"cell is {cell}", "a cell has at least one voxel", "use [2, 4, 4]"))
        self.lambda_contour = float(lambda_contour)
        self.dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=smooth, smooth_dr=smooth)
        selections = {"sampled": "random", "ohem": "hardest"}
        self.locator: _Loss = (
            self.dice if locator_criterion == "dice" else SampledBCELoss(selection=selections[locator_criterion])
        )

    def forward(self, prediction: RoIPrediction, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            prediction: `heat` logits B 1 d h w (or None), and for each RoI, in step, `boxes` (item of the batch, box in
                voxels), `regions` and `contours` (logits 1 1 and the box's size). Any floating dtype; computed in
                float32 or wider. Of a box that reaches beyond the volume (padding) only what lies inside counts.
            target: B 2 D H W of any dtype, label and inner contour; above 0.5 is foreground.

        Returns:
            scalar.

        Raises:
            InputError: for a target, a heat map or RoIs of another shape.
        """
        if target.ndim != 5 or target.shape[1] != 2:
            came = f"the target has shape {tuple(target.shape)}"
            remedy = "append the contour to the label as its second channel (common.transforms.AppendContourd)"
            raise InputError(problem(came, "it must be (batch, 2, D, H, W): label and contour", remedy))
        target = convert_to_tensor(target, track_meta=False) > 0.5
        terms = []
        if prediction.heat is not None:
            terms.append(self.locator(*_cells(prediction.heat, target[:, :1], self.cell)))
        if prediction.boxes:
            terms.append(self.dice(*_inside(prediction.regions, prediction.boxes, target[:, :1])))
            if self.lambda_contour > 0:
                contour = self.dice(*_inside(prediction.contours, prediction.boxes, target[:, 1:]))
                terms.append(self.lambda_contour * contour)
        if not terms:  # as a leaf, so that a backward pass through it is legal and reaches no parameter
            return torch.zeros((), device=target.device, requires_grad=True)
        return torch.stack(terms).sum()


def _cells(heat: torch.Tensor, label: torch.Tensor, cell: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat map and label on the grid of cells."""
    pooled = pooled_label(label, cell)
    if heat.shape != pooled.shape:
        came = f"the heat map has shape {tuple(heat.shape)} for a volume of {tuple(label.shape[2:])} voxels"
        rule = f"cells of {tuple(cell)} voxels make it {tuple(pooled.shape)}"
        raise InputError(problem(came, rule, "set the cell of the loss to that of the network"))
    return _wide(heat), pooled


def _inside(
    logits: Sequence[torch.Tensor], boxes: Sequence[tuple[int, Box]], target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and truth of all voxels of all RoIs, 1 1 N each; a voxel in several RoIs counts in each."""
    if len(logits) != len(boxes):
        came = f"there are {len(boxes)} boxes and {len(logits)} predictions of regions or contours"
        raise InputError(problem(came, "each box needs one of each", "decode every box with both heads"))
    found, truth = [], []
    for roi, (item, box) in zip(logits, boxes):
        if roi.shape != (1, 1, *box.size):
            came = f"an RoI of {box.size} voxels has logits of shape {tuple(roi.shape)}"
            raise InputError(problem(came, "they must be (1, 1, *size of the box)", "give boxes in voxels, not cells"))
        inside = target[(item, 0, *box.slices)]
        found.append(_wide(roi)[(0, 0, *(slice(size) for size in inside.shape))].flatten())
        truth.append(inside.flatten())
    return torch.cat(found)[None, None], torch.cat(truth)[None, None].to(found[0].dtype)


def _wide(logits: torch.Tensor) -> torch.Tensor:
    logits = convert_to_tensor(logits, track_meta=False)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
