"""The scores of the LiTS challenge for one case: an organ, the lesions in it, and the share that these take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics.utils import get_edge_surface_distance

from ..checks import InputError, problem
from .lesions import LesionCounts, lesion_counts
from .scores import check_shapes, check_spacing, within_both, without_monai_warnings

__all__ = [
    "DISTANCES",
    "LESION",
    "ORGAN",
    "OVERLAPS",
    "THRESHOLDS",
    "lits_scores",
    "mask_scores",
    "surface_distances",
    "tumour_burden",
]

ORGAN, LESION = 1, 2  # labels; the organ is whatever is not background, lesions included
OVERLAPS = ("dice", "jaccard", "voe", "rvd")
DISTANCES = ("assd_mm", "rmsd_mm", "msd_mm")
THRESHOLDS = (0.0, 0.5)  # of IoU, above which lesions match


def lits_scores(
    pred: torch.Tensor, label: torch.Tensor, spacing: Sequence[float], lesions: bool = True
) -> dict[str, dict[str, Any]]:
    """The scores of the LiTS challenge for one case, by which jin2020raunet reports its results.

    The organ is label >= 1, lesions are label 2. Every case has its scores, however bad: see :func:`mask_scores` for
    what is empty.

    Reading: lesions have the volume and surface scores of all of a case taken together, found or not. The challenge
    takes these of detected lesions only, so that a network that finds a single easy one has the best of them.

    Args:
        pred: class indices, 1 D H W.
        label: class indices of the reference, on the same grid.
        spacing: voxel size along D, H, W in mm.
        lesions: whether lesions are labelled in the reference, and scored.

    Returns:
        ``organ`` and, with lesions, ``lesion``: each what :func:`mask_scores` returns, the lesion with ``counts``, a
        :class:`~common.metrics.lesions.LesionCounts` at :data:`THRESHOLDS`, too; and ``burden`` with
        :func:`tumour_burden` of ``pred`` and ``label``.

    Raises:
        InputError: when the two differ in shape or are not 1 D H W, or the spacing is not three positive lengths.
    """
    check_spacing(spacing)
    pred, label = (torch.as_tensor(volume).as_subclass(torch.Tensor) for volume in (pred, label))
    check_shapes(pred, label)
    if label.shape[0] != 1:
        raise InputError(
            problem(
                f"prediction and reference have {label.shape[0]} channels",
                f"LiTS scores are of class indices, 1 D H W: {ORGAN} the organ, {LESION} lesions",
                "leave one-hot conversion out of the postprocessing",
            )
        )
    pred, label = pred[0], label[0]
    organ = mask_scores(*within_both(pred >= ORGAN, label >= ORGAN), spacing)
    if not lesions:
        return {"organ": organ}
    found, true = within_both(pred == LESION, label == LESION)
    lesion = mask_scores(found, true, spacing)
    counts = lesion_counts(found, true, THRESHOLDS) if lesion["status"] != "absent" else LesionCounts(0, 0, (0, 0))
    burden = {name: tumour_burden(lesion[f"{name}_voxels"], organ[f"{name}_voxels"]) for name in ("pred", "label")}
    return {"organ": organ, "lesion": {**lesion, "counts": counts}, "burden": burden}


def mask_scores(found: torch.Tensor, true: torch.Tensor, spacing: Sequence[float]) -> dict[str, Any]:
    """Dice, Jaccard, VOE, RVD, ASSD, RMSD and MSD of one mask.

    VOE, the volumetric overlap error, is 1 - Jaccard; RVD, the relative volume difference, is signed: positive where
    too much is found. ``status`` tells what is empty, as in :func:`~common.metrics.scores.case_scores`:

    - ``scored``: in both, every score is defined.
    - ``absent``: in neither, which is right: Dice and Jaccard 1, VOE and RVD 0, as in the challenge. There is no
      surface, and distances are NaN.
    - ``missed``: in the reference only: Dice and Jaccard 0, VOE 1, RVD -1; distances are NaN.
    - ``false find``: in the prediction only: Dice and Jaccard 0, VOE 1; RVD and distances are NaN.

    Deviation: where one of the masks is empty the challenge sets distances to infinity, after which their means over
    cases mean nothing. Here they are undefined, and whoever shows their mean has to tell over how many cases it is.

    Args:
        found: the prediction's mask, bool, D H W.
        true: the reference's, on the same grid and device.
        spacing: voxel size along D, H, W in mm.

    Returns:
        the names of :data:`OVERLAPS` and :data:`DISTANCES`, ``status``, ``both_voxels``, ``pred_voxels`` and
        ``label_voxels``.
    """
    both, ours, theirs = (int(torch.count_nonzero(mask)) for mask in (found & true, found, true))
    counts = {"both_voxels": both, "pred_voxels": ours, "label_voxels": theirs}
    distances = dict.fromkeys(DISTANCES, math.nan)
    if not (ours or theirs):
        return {"dice": 1.0, "jaccard": 1.0, "voe": 0.0, "rvd": 0.0, **distances, "status": "absent", **counts}
    status = "scored" if ours and theirs else "missed" if theirs else "false find"
    if status == "scored":
        distances = dict(zip(DISTANCES, surface_distances(found, true, spacing)))
    jaccard = both / (ours + theirs - both)
    overlaps = {
        "dice": 2 * both / (ours + theirs),
        "jaccard": jaccard,
        "voe": 1 - jaccard,
        "rvd": (ours - theirs) / theirs if theirs else math.nan,
    }
    return {**overlaps, **distances, "status": status, **counts}


def surface_distances(found: torch.Tensor, true: torch.Tensor, spacing: Sequence[float]) -> tuple[float, float, float]:
    """Average, root mean square and maximum of the symmetric surface distances, in mm.

    Surface voxels are those of a mask with a face neighbour outside of it; the distances of both surfaces' voxels to
    the other surface are taken together.

    Args:
        found, true: masks, bool, D H W, neither of them empty.
        spacing: voxel size along D, H, W in mm.

    Returns:
        ASSD, RMSD and MSD (the Hausdorff distance).
    """
    with without_monai_warnings():
        _, distances, _ = get_edge_surface_distance(
            found, true, spacing=tuple(float(size) for size in spacing), symmetric=True
        )
    joined = torch.cat([part.double() for part in distances])
    return float(joined.mean()), float(joined.square().mean().sqrt()), float(joined.max())


def tumour_burden(lesion_voxels: int, organ_voxels: int) -> float:
    """Lesion volume over organ volume; 0 for an empty organ, which holds no lesion either.

    Deviation: the challenge takes infinity for an empty organ.
    """
    return lesion_voxels / organ_voxels if organ_voxels else 0.0
