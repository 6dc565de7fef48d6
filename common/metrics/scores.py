"""Overlap and surface scores of one case, class by class, from MONAI's own functions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)

from ..checks import InputError, problem

__all__ = ["METRICS", "NOT_DENSE", "case_scores"]

METRICS = ("dice", "iou", "nsd", "hd95_mm", "assd_mm")
NOT_DENSE = "no surface scores: they need a reference in which every voxel is labelled"


def case_scores(
    pred: torch.Tensor,
    label: torch.Tensor,
    spacing: Sequence[float],
    nsd_tolerance: float = 1.0,
    without_surface: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Dice, IoU, NSD, HD95 and ASSD of every class of one case.

    Both inputs come from :class:`~common.transforms.one_hot.LabelledOneHot`: where the reference is unlabelled, all
    channels of both are zero, so overlap counts labelled voxels only. Surfaces of a partly labelled reference are cut
    by the edge of what is labelled; surface scores are therefore given for dense references only.

    What is empty is told apart by ``status``:

    - ``scored``: in both; every score is defined.
    - ``absent``: in neither; nothing to score, every score is NaN and stays out of the means.
    - ``missed``: in the reference only; Dice, IoU and NSD are 0, the distances are undefined (NaN).
    - ``false find``: in the prediction only; the same. MONAI's ``ignore_empty=True`` would leave it out, and a
      false find would cost nothing.

    Args:
        pred: binary, K D H W, one channel a class.
        label: the same for the reference.
        spacing: voxel size along D, H, W in mm.
        nsd_tolerance: distance in mm up to which a piece of surface counts as met by NSD. Surface pieces are weighted
            by their area (MONAI's ``use_subvoxels``), so anisotropic voxels are treated justly.
        without_surface: classes (channels) whose surface means nothing, such as the background.

    Returns:
        one dictionary a class, in channel order: the names of :data:`METRICS`, ``status``, ``pred_voxels`` and
        ``label_voxels`` (labelled voxels only). Undefined scores are NaN.

    Raises:
        InputError: when the two differ in shape, or the spacing is not three positive lengths.
    """
    if pred.shape != label.shape or pred.ndim != 4:
        raise InputError(
            problem(
                f"prediction {tuple(pred.shape)} against reference {tuple(label.shape)}",
                "both must be one-hot, K D H W, on one grid",
                "put LabelledOneHotd behind the inferer",
            )
        )
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise InputError(
            problem(
                f"spacing {tuple(spacing)}", "three positive lengths in mm are needed", "check the affine of the file"
            )
        )
    pred, label = (torch.as_tensor(volume).as_subclass(torch.Tensor).bool() for volume in (pred, label))
    dense = bool(label.any(dim=0).all())
    return [
        _class_scores(
            pred[k], label[k], tuple(float(size) for size in spacing), nsd_tolerance, dense and k not in without_surface
        )
        for k in range(label.shape[0])
    ]


def _class_scores(
    pred: torch.Tensor, label: torch.Tensor, spacing: tuple[float, ...], tolerance: float, surface: bool
) -> dict[str, Any]:
    counts = {"pred_voxels": int(pred.sum()), "label_voxels": int(label.sum())}
    scores: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
    if not any(counts.values()):
        return {**scores, "status": "absent", **counts}
    if not all(counts.values()):
        scores.update(dice=0.0, iou=0.0, **({"nsd": 0.0} if surface else {}))
        return {**scores, "status": "missed" if counts["label_voxels"] else "false find", **counts}

    pair = {"y_pred": pred[None, None], "y": label[None, None]}
    # compute_dice reads a single channel as class indices; two complementary channels say what is meant
    both = {"y_pred": torch.stack((~pred, pred))[None], "y": torch.stack((~label, label))[None]}
    scores["dice"] = float(compute_dice(**both, include_background=False)[0, 0])
    scores["iou"] = float(compute_iou(**{name: volume.float() for name, volume in pair.items()})[0, 0])
    if surface:
        scores.update(_surface_scores(pair, spacing, tolerance))
    return {**scores, "status": "scored", **counts}


def _surface_scores(pair: dict[str, torch.Tensor], spacing: tuple[float, ...], tolerance: float) -> dict[str, float]:
    common: dict[str, Any] = {**pair, "include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        # MONAI 1.6's surface functions call one of its own with an argument it has deprecated
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)
        return {
            "nsd": float(compute_surface_dice(**common, class_thresholds=[tolerance], use_subvoxels=True)[0, 0]),
            "hd95_mm": float(compute_hausdorff_distance(**common, percentile=95)[0, 0]),
            "assd_mm": float(compute_average_surface_distance(**common, symmetric=True)[0, 0]),
        }
