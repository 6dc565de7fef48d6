"""Whether a map of uncertainty tells where a segmentation is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_tensor

from ..checks import InputError, problem

__all__ = ["uncertainty_scores", "uncertainty_text"]


def uncertainty_scores(uncertainty: NdarrayOrTensor, wrong: NdarrayOrTensor, share: float = 0.1) -> dict[str, Any]:
    """How well uncertainty tells wrong voxels of a segmentation from right ones (hendrycks2017baseline, sec. 2).

    - ``auroc``: area under the receiver operating characteristic of uncertainty as a detector of errors. It is the
      probability that a wrong voxel is less certain than a right one, where two as certain count a half
      (hanley1982meaning): 1 tells all, 0.5 is chance, and no threshold has to be chosen.
    - ``errors_found``: share of the errors that someone finds who looks through the least certain `share` of voxels.
      Chance finds `share` of them; ``errors_found_at_best`` is what an order that puts all errors first would find,
      less than 1 where there are more errors than voxels looked through.

    Reading: of voxels as certain at the edge of that share, errors count in proportion, so that no order that the
    voxels happen to be in has a part in it.

    Args:
        uncertainty: of any shape, higher where less certain, on any scale: its order alone counts. Give only the voxels
            whose truth is known, ``uncertainty[label != ignore_index]``.
        wrong: of the same shape, true where the segmentation is wrong.
        share: of the voxels, above 0, at most 1.

    Returns:
        ``voxels``, ``errors``, ``auroc``, ``looked_at`` (the share), ``errors_found``, ``errors_found_at_best``. What
        is not defined is None: all but the counts without errors, ``auroc`` without right voxels.

    Raises:
        InputError: for shapes that differ, values that are not finite, a `wrong` that is not true or false, or a share
            out of range.

    >>> uncertainty_scores(torch.tensor([0.1, 0.2, 0.9, 0.4]), torch.tensor([False, False, True, False]), 0.25)["auroc"]
    1.0
    """
    unsure, wrong = (convert_to_tensor(volume, track_meta=False).flatten() for volume in _checked(uncertainty, wrong))
    if not 0 < share <= 1:
        raise InputError(problem(f"share is {share!r}", "it must be above 0 and at most 1", "use share=0.1"))
    wrong = wrong.to(device=unsure.device, dtype=torch.bool)
    voxels, errors = unsure.numel(), int(wrong.sum())
    scores = {"voxels": voxels, "errors": errors, "auroc": None, "looked_at": float(share)}
    scores |= {"errors_found": None, "errors_found_at_best": None}
    if not errors:
        return scores
    values, group, members = torch.unique(unsure, return_inverse=True, return_counts=True)
    # double: single precision does not count the voxels of a volume one by one
    members, wrong_at = members.double(), torch.bincount(group[wrong], minlength=len(values)).double()
    looked = share * voxels
    # of each value from the highest down, as many voxels as are still to be looked at
    above = members.flip(0).cumsum(0).flip(0) - members
    part = ((looked - above) / members).clamp(0.0, 1.0)
    scores["errors_found"] = float((wrong_at * part).sum()) / errors
    scores["errors_found_at_best"] = min(1.0, looked / errors)
    if errors < voxels:
        right_at = members - wrong_at
        more_certain = right_at.cumsum(0) - right_at / 2
        scores["auroc"] = float((wrong_at * more_certain).sum()) / errors / (voxels - errors)
    return scores


def uncertainty_text(scores: Mapping[str, Any]) -> str:
    """What :func:`uncertainty_scores` found, in words.

    >>> uncertainty_text({"voxels": 20, "errors": 0})
    'None of 20 voxels is wrong: nothing for the uncertainty to tell.'
    """
    if not scores["errors"]:
        return f"None of {scores['voxels']} voxels is wrong: nothing for the uncertainty to tell."
    head = f"{scores['errors']} of {scores['voxels']} voxels ({scores['errors'] / scores['voxels']:.1%}) are wrong."
    if scores["auroc"] is None:
        return f"{head} No right one is left to tell them from."
    return (
        f"{head} The least certain {scores['looked_at']:.0%} of the voxels hold {scores['errors_found']:.0%} of the "
        f"errors ({scores['errors_found_at_best']:.0%} at best, {scores['looked_at']:.0%} by chance); a wrong voxel is "
        f"less certain than a right one in {scores['auroc']:.0%} of all pairs (50% by chance)."
    )


def _checked(uncertainty: NdarrayOrTensor, wrong: NdarrayOrTensor) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
    if tuple(uncertainty.shape) != tuple(wrong.shape):
        came = f"uncertainty of shape {tuple(uncertainty.shape)} and errors of shape {tuple(wrong.shape)}"
        raise InputError(problem(came, "both must be of the same voxels", "take both where the label is known"))
    if "bool" not in str(wrong.dtype):
        came = f"wrong is {wrong.dtype}"
        raise InputError(problem(came, "it must be true or false", "give pred != label"))
    unsure = convert_to_tensor(uncertainty, track_meta=False)
    if not bool(unsure.isfinite().all()):
        came = "the uncertainty is not finite everywhere"
        raise InputError(problem(came, "every voxel must have a place in the order", "leave such voxels out"))
    return unsure, wrong
