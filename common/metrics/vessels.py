"""Scores of thin structures: what angermann2019random25d reports, and whether courses and connections are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..checks import InputError, problem
from ..geometry.components import connected_components
from ..geometry.thinning import skeleton
from .scores import check_shapes, within_both

__all__ = ["VESSEL_METRICS", "soft_dice_loss", "vessel_scores"]

VESSEL_METRICS = (
    "dice_loss",
    "mean_accuracy",
    "mean_iou",
    "dice",
    "cldice",
    "topology_precision",
    "topology_sensitivity",
    "betti0_error",
)


def vessel_scores(
    pred: torch.Tensor, label: torch.Tensor, classes: Sequence[int], probability: torch.Tensor | None = None
) -> list[dict[str, Any]]:
    """The scores of vessels of one case, class by class, each class against all the rest.

    - ``mean_accuracy``, ``mean_iou``, ``dice``: MA, IU and DC of angermann2019random25d. The first two are means of
      foreground and background, so that a prediction of nothing has half of them;
    - ``dice_loss``: see :func:`soft_dice_loss`;
    - ``topology_precision``, ``topology_sensitivity``, ``cldice``: the share of the prediction's skeleton that lies in
      the reference, that of the reference's skeleton in the prediction, and their harmonic mean (shit2021cldice, eq. 1
      and 2; :func:`~common.geometry.thinning.skeleton`);
    - ``betti0_error``: by how many the connected components (26 neighbours), ``pred_components`` and
      ``label_components``, differ.

    What is empty is told apart by ``status``, as :func:`~common.metrics.scores.case_scores` does it: where a class is
    ``absent`` from both, all its scores are NaN and stay out of means; where it is ``missed`` or a ``false find``, all
    are defined, so that no case is left out for being bad.

    Reading: in MA and IU the part of foreground or background is 0 / 0 where there is none of it; it then counts as 1
    where the prediction has none either, and as 0 where it has.

    Args:
        pred: class indices, 1 D H W.
        label: class indices of the reference, on the same grid.
        classes: numbers of the classes to score, none of them 0.
        probability: K D H W on the same grid, channel k - 1 that of class k; None leaves ``dice_loss`` NaN.

    Returns:
        one dictionary a class, in the order of `classes`: the names of :data:`VESSEL_METRICS`, ``pred_components``,
        ``label_components``, ``status``, ``pred_voxels`` and ``label_voxels``.

    Raises:
        InputError: when the volumes differ in shape or are not 1 D H W, or a class has no channel of `probability`.
    """
    pred, label = (torch.as_tensor(volume).as_subclass(torch.Tensor) for volume in (pred, label))
    check_shapes(pred, label)
    if label.shape[0] != 1:
        came = f"prediction and reference have {label.shape[0]} channels"
        rule = "scores of vessels are of class indices, 1 D H W"
        raise InputError(problem(came, rule, "leave one-hot conversion out of the postprocessing"))
    if probability is not None:
        probability = torch.as_tensor(probability).as_subclass(torch.Tensor)
        _check_probability(probability, label, classes)
    rows = []
    for k in classes:
        true = label[0] == k
        row = _mask_scores(pred[0] == k, true)
        if probability is not None and row["status"] != "absent":
            row["dice_loss"] = soft_dice_loss(probability[k - 1], true)
        rows.append(row)
    return rows


def soft_dice_loss(probability: torch.Tensor, true: torch.Tensor) -> float:
    """The Dice loss of angermann2019random25d without smoothing: 1 - 2 sum(y p) / (sum p + sum y).

    Args:
        probability: of the class, D H W, 0 to 1.
        true: the reference's mask, D H W.

    Returns:
        0 to 1; NaN where both are 0 everywhere.

    >>> soft_dice_loss(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1, 0, 0]))
    0.5
    """
    true = true.to(probability.device, torch.bool)
    total = float(probability.sum(dtype=torch.float64)) + int(torch.count_nonzero(true))
    return 1 - 2 * float(probability[true].sum(dtype=torch.float64)) / total if total else math.nan


def _check_probability(probability: torch.Tensor, label: torch.Tensor, classes: Sequence[int]) -> None:
    if probability.shape[1:] != label.shape[1:] or any(not 1 <= k <= probability.shape[0] for k in classes):
        raise InputError(
            problem(
                f"probability {tuple(probability.shape)} against reference {tuple(label.shape)}, classes {[*classes]}",
                "each class from 1 on has a channel, on the grid of the reference",
                "bring the probability to the grid of the file before it is made class indices",
            )
        )


def _mask_scores(found: torch.Tensor, true: torch.Tensor) -> dict[str, Any]:
    """All scores of one class but that of its probability."""
    total = true.numel()
    found, true = within_both(found, true)
    ours, theirs, both = (int(torch.count_nonzero(mask)) for mask in (found, true, found & true))
    counts = {"pred_voxels": ours, "label_voxels": theirs}
    scores: dict[str, Any] = dict.fromkeys(VESSEL_METRICS, math.nan)
    if not (ours or theirs):
        return {**scores, "pred_components": 0, "label_components": 0, "status": "absent", **counts}
    false, missed = ours - both, theirs - both
    rest = total - both - false - missed
    scores["mean_accuracy"] = (_part(rest, rest + false, missed) + _part(both, theirs, false)) / 2
    scores["mean_iou"] = (_part(rest, total - both, 0) + both / (ours + theirs - both)) / 2
    scores["dice"] = 2 * both / (ours + theirs)
    # components and skeletons are found on the host
    found, true = found.cpu(), true.cpu()
    parts = [len(connected_components(mask)[1]) for mask in (found, true)]
    scores["betti0_error"] = abs(parts[0] - parts[1])
    scores.update(_centre_line_scores(found, true))
    status = "scored" if ours and theirs else "missed" if theirs else "false find"
    return {**scores, "pred_components": parts[0], "label_components": parts[1], "status": status, **counts}


def _part(right: int, among: int, wrong: int) -> float:
    """A ratio; of 0 / 0 what the prediction deserves that has `wrong` voxels where there can be none."""
    return right / among if among else float(wrong == 0)


def _centre_line_scores(found: torch.Tensor, true: torch.Tensor) -> dict[str, float]:
    if not (found.any() and true.any()):
        return {"cldice": 0.0, "topology_precision": 0.0, "topology_sensitivity": 0.0}
    ours, theirs = skeleton(found), skeleton(true)
    precision = int((ours & true).sum()) / int(ours.sum())
    sensitivity = int((theirs & found).sum()) / int(theirs.sum())
    mean = 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
    return {"cldice": mean, "topology_precision": precision, "topology_sensitivity": sensitivity}
