"""Lesion by lesion: which of a reference were found, and which of those found are in the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.utils import optional_import

from ..geometry.components import connected_components

csr_array, _ = optional_import("scipy.sparse", name="csr_array")
maximum_bipartite_matching, _ = optional_import("scipy.sparse.csgraph", name="maximum_bipartite_matching")

__all__ = ["Detection", "LesionCounts", "detection", "lesion_counts"]


class LesionCounts(NamedTuple):
    """Of one case: lesions in the reference, lesions predicted, and for each threshold the pairs that match."""

    reference: int
    predicted: int
    matched: tuple[int, ...]


class Detection(NamedTuple):
    """Precision, recall and F1 of lesions; None where there is nothing to divide by."""

    precision: float | None
    recall: float | None
    f1: float | None


def lesion_counts(
    found: torch.Tensor, true: torch.Tensor, thresholds: Sequence[float] = (0.0, 0.5), connectivity: int = 1
) -> LesionCounts:
    """Count lesions and the pairs of a predicted and a true one whose IoU is above each threshold.

    A lesion is a connected component. Pairs are one to one, and as many as can be: of two lesions under one predicted
    one, one is found. At thresholds of 0.5 and above no lesion has two partners to choose from.

    Deviation: the scoring of the LiTS challenge joins reference lesions under one predicted lesion, and
    predicted lesions over one reference lesion, before it counts them, so its numbers of lesions depend on the
    prediction.

    Args:
        found: the prediction's mask, bool, D H W.
        true: the reference's, on the same grid and device.
        thresholds: IoU that a pair must exceed.
        connectivity: along how many axes neighbours may differ; 1, as in the challenge: lesions that share faces of
            voxels are one, those that touch at an edge or a corner are two.

    >>> true = torch.tensor([1, 1, 0, 1, 1, 0, 0, 1]).bool()[None, None]
    >>> found = torch.tensor([1, 1, 1, 1, 1, 0, 0, 1]).bool()[None, None]
    >>> lesion_counts(found, true)
    LesionCounts(reference=3, predicted=2, matched=(2, 1))
    """
    ours, found_parts = connected_components(found, connectivity)
    theirs, true_parts = connected_components(true, connectivity)
    sizes = [_sizes([(part.index, part.voxels) for part in parts]) for parts in (found_parts, true_parts)]
    both = found & true
    # numbers of components are 32 bit, and so is no product of theirs
    codes, shared = torch.unique(ours[both].long() * len(sizes[1]) + theirs[both], return_counts=True)
    first, second = np.divmod(codes.cpu().numpy(), len(sizes[1]))
    shared = shared.cpu().numpy()
    union = sizes[0][first] + sizes[1][second] - shared
    matched = []
    for threshold in thresholds:
        kept = shared > threshold * union
        graph = csr_array((kept[kept], (first[kept], second[kept])), shape=(len(sizes[0]), len(sizes[1])))
        matched.append(int((maximum_bipartite_matching(graph) >= 0).sum()))
    return LesionCounts(len(true_parts), len(found_parts), tuple(matched))


def detection(reference: int, predicted: int, matched: int) -> Detection:
    """Precision, recall and F1 from counts of lesions, of a case or summed over cases.

    >>> detection(reference=4, predicted=2, matched=1)
    Detection(precision=0.5, recall=0.25, f1=0.3333333333333333)
    """
    return Detection(
        matched / predicted if predicted else None,
        matched / reference if reference else None,
        2 * matched / (predicted + reference) if predicted + reference else None,
    )


def _sizes(parts: Sequence[tuple[int, int]]) -> np.ndarray:
    """Voxels by number of component; number 0 is outside."""
    sizes = np.zeros(len(parts) + 1, dtype=np.int64)
    for index, voxels in parts:
        sizes[index] = voxels
    return sizes
