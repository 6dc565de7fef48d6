"""Overlap and surface scores of one case, class by class, from counts and MONAI's surface functions."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from ..checks import InputError, problem
from ..geometry.boxes import bounding_box

__all__ = [
    "METRICS",
    "NOT_DENSE",
    "case_scores",
    "check_shapes",
    "check_spacing",
    "region_recall",
    "without_monai_warnings",
    "within_both",
]

METRICS = ("dice", "iou", "nsd", "hd95_mm", "assd_mm")
NOT_DENSE = "no surface scores: they need a reference in which every voxel is labelled"


def case_scores(
    pred: torch.Tensor,
    label: torch.Tensor,
    spacing: Sequence[float],
    nsd_tolerance: float = 1.0,
    without_surface: Sequence[int] = (),
    classes: Sequence[int] | None = None,
    ignore_index: int | None = None,
) -> list[dict[str, Any]]:
    """Dice, IoU, NSD, HD95 and ASSD of every class of one case.

    Both inputs are one-hot, from :class:`~common.transforms.one_hot.LabelledOneHot` (where the reference is
    unlabelled, all channels of both are zero), or class indices. Class indices give the same scores, and are the form
    for a whole CT: no more than the two masks of one class are in memory at once, and what is measured on them lies
    within the box around both. Overlap counts labelled voxels only. Surfaces of a partly labelled reference are cut
    by the edge of what is labelled; surface scores are therefore given for dense references only.

    What is empty is told apart by ``status``:

    - ``scored``: in both; every score is defined.
    - ``absent``: in neither; nothing to score, every score is NaN and stays out of the means.
    - ``missed``: in the reference only; Dice, IoU and NSD are 0, the distances are undefined (NaN).
    - ``false find``: in the prediction only; the same. MONAI's ``ignore_empty=True`` would leave it out, and a
      false find would cost nothing.

    Args:
        pred: binary, K D H W, one channel a class; or class indices, 1 D H W.
        label: the same for the reference.
        spacing: voxel size along D, H, W in mm.
        nsd_tolerance: distance in mm up to which a piece of surface counts as met by NSD. Surface pieces are weighted
            by their area (MONAI's ``use_subvoxels``), so anisotropic voxels are treated justly.
        without_surface: classes (channels) whose surface means nothing, such as the background.
        classes: numbers of the classes to score; None, for one-hot inputs only, scores every channel.
        ignore_index: in a reference of class indices, the number of unlabelled voxels; None when all are labelled.

    Returns:
        one dictionary a class, in the order of `classes`: the names of :data:`METRICS`, ``status``, ``pred_voxels``
        and ``label_voxels`` (labelled voxels only). Undefined scores are NaN.

    Raises:
        InputError: when the two differ in shape, `classes` is not given for class indices or names an absent channel,
            or the spacing is not three positive lengths.
    """
    check_spacing(spacing)
    pred, label = (torch.as_tensor(volume).as_subclass(torch.Tensor) for volume in (pred, label))
    classes = _checked_classes(pred, label, classes)
    if label.shape[0] == 1:
        dense = ignore_index is None or not bool((label == ignore_index).any())
    else:
        dense = bool((label != 0).any(dim=0).all())
    lengths = tuple(float(size) for size in spacing)
    return [
        _class_scores(
            *_class_masks(pred, label, k, ignore_index), lengths, nsd_tolerance, dense and k not in without_surface
        )
        for k in classes
    ]


def region_recall(region: torch.Tensor, label: torch.Tensor, classes: Sequence[int]) -> float:
    """The share of a reference that lies within a region, such as the candidate region of a cascade.

    (roth2017hierarchical, fig. 2: the recall of C2 against its radius of dilation.)

    Args:
        region: 1 D H W, not zero inside.
        label: class indices, 1 D H W, on the same grid.
        classes: numbers of the classes that count, taken together.

    Returns:
        between 0 and 1; NaN where none of the classes is in the reference.

    Raises:
        InputError: when the two differ in shape.
    """
    region, label = (torch.as_tensor(volume).as_subclass(torch.Tensor) for volume in (region, label))
    check_shapes(region, label)
    inside = total = 0
    for k in classes:
        true = label[0] == k
        total += int(torch.count_nonzero(true))
        inside += int(torch.count_nonzero(true & (region[0] != 0).to(true.device)))
    return inside / total if total else math.nan


def _checked_classes(pred: torch.Tensor, label: torch.Tensor, classes: Sequence[int] | None) -> list[int]:
    check_shapes(pred, label)
    channels = label.shape[0]
    if classes is None and channels == 1:
        raise InputError(
            problem(
                "prediction and reference have one channel",
                "class indices do not tell how many classes there are",
                "pass classes, or put LabelledOneHotd behind the inferer",
            )
        )
    chosen = list(range(channels)) if classes is None else [int(k) for k in classes]
    if channels > 1 and any(not 0 <= k < channels for k in chosen):
        raise InputError(
            problem(
                f"classes are {chosen}", f"the channels are 0 to {channels - 1}", "name classes that have a channel"
            )
        )
    return chosen


def check_spacing(spacing: Sequence[float]) -> None:
    """
    Raises:
        InputError: unless there are three positive lengths.
    """
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise InputError(
            problem(
                f"spacing {tuple(spacing)}", "three positive lengths in mm are needed", "check the affine of the file"
            )
        )


def check_shapes(pred: torch.Tensor, label: torch.Tensor) -> None:
    """
    Raises:
        InputError: when the two differ in shape, or are not C D H W.
    """
    if pred.shape != label.shape or pred.ndim != 4:
        raise InputError(
            problem(
                f"prediction {tuple(pred.shape)} against reference {tuple(label.shape)}",
                "both must be one-hot, K D H W, or class indices, 1 D H W, on one grid",
                "put LabelledOneHotd behind the inferer, or bring both to the grid of the file",
            )
        )


def _class_masks(
    pred: torch.Tensor, label: torch.Tensor, k: int, ignore_index: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where class `k` is found and where it is, within the box around both; D H W, empty when it is in neither."""
    if label.shape[0] == 1:
        found, true = pred[0] == k, label[0] == k
        if ignore_index is not None:
            found &= (label[0] != ignore_index).to(found.device)
    else:
        found, true = pred[k].bool(), label[k].bool()
    return within_both(found, true)


def within_both(found: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two masks, bool, D H W, within the box around both, on the device of the first; empty where both are.

    They are copies, so that the masks of the whole volume can go.
    """
    true = true.to(found.device)
    box = bounding_box(found | true)
    within = (slice(0),) * 3 if box is None else box.slices
    return found[within].clone(), true[within].clone()


def _class_scores(
    pred: torch.Tensor, label: torch.Tensor, spacing: tuple[float, ...], tolerance: float, surface: bool
) -> dict[str, Any]:
    # sums of a bool tensor go by way of a copy of eight bytes a voxel, counts do not
    found, true, both = (int(torch.count_nonzero(mask)) for mask in (pred, label, pred & label))
    counts = {"pred_voxels": found, "label_voxels": true}
    scores: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
    if not (found or true):
        return {**scores, "status": "absent", **counts}
    scores.update(dice=2 * both / (found + true), iou=both / (found + true - both))
    if not (found and true):
        scores.update({"nsd": 0.0} if surface else {})
        return {**scores, "status": "missed" if true else "false find", **counts}
    if surface:
        scores.update(_surface_scores({"y_pred": pred[None, None], "y": label[None, None]}, spacing, tolerance))
    return {**scores, "status": "scored", **counts}


def _surface_scores(pair: dict[str, torch.Tensor], spacing: tuple[float, ...], tolerance: float) -> dict[str, float]:
    common: dict[str, Any] = {**pair, "include_background": True, "spacing": spacing}
    with without_monai_warnings():
        return {
            "nsd": float(compute_surface_dice(**common, class_thresholds=[tolerance], use_subvoxels=True)[0, 0]),
            "hd95_mm": float(compute_hausdorff_distance(**common, percentile=95)[0, 0]),
            "assd_mm": float(compute_average_surface_distance(**common, symmetric=True)[0, 0]),
        }


@contextlib.contextmanager
def without_monai_warnings() -> Iterator[None]:
    """MONAI 1.6's surface functions call one of its own with an argument it has deprecated: silence about that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)
        yield
