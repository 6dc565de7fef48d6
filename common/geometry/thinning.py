"""Centre lines of tubes: the skeleton of a mask, one voxel wide."""

from __future__ import annotations

import numpy as np
import torch
from monai.utils import optional_import

from ..checks import InputError, problem
from .components import connected_components

skeletonize, _ = optional_import("skimage.morphology", name="skeletonize")

__all__ = ["skeleton"]


def skeleton(mask: torch.Tensor) -> torch.Tensor:
    """The skeleton of a mask (thinning of lee1994skeleton by ``skimage.morphology.skeletonize``).

    Of every component at least one voxel stays. The thinning alone takes some of them away whole, such as tubes of
    2 x 2 or 4 x 4 voxels; these are thinned again with one voxel more along an axis, so that they have a middle, and
    of what even that takes away all voxels stay.

    Args:
        mask: D H W, not zero inside; its components are those of 26 neighbours.

    Returns:
        bool, D H W, on the mask's device; within the mask.

    Raises:
        InputError: when the mask has not three axes.

    >>> tube = torch.zeros(4, 4, 9)
    >>> tube[1:3, 1:3, 1:8] = 1
    >>> int(skeleton(tube).sum())
    5
    """
    if mask.ndim != 3:
        raise InputError(problem(f"a mask of {tuple(mask.shape)}", "a skeleton is that of D H W", "pass one channel"))
    numbers, parts = connected_components(mask)
    labels = numbers.cpu().numpy()
    thin = np.asarray(skeletonize(labels != 0), dtype=bool)
    kept = np.unique(labels[thin])
    for part in parts:
        if part.index not in kept:
            inside = labels[part.box.slices] == part.index
            thin[part.box.slices] |= _thin_with_a_middle(inside)
    return torch.from_numpy(thin).to(mask.device)


def _thin_with_a_middle(inside: np.ndarray) -> np.ndarray:
    """The skeleton of a component of which the thinning leaves nothing."""
    for axis in range(inside.ndim):
        wider = np.pad(inside, 1)
        wider |= np.roll(wider, 1, axis)
        thin = np.asarray(skeletonize(wider), dtype=bool)[(slice(1, -1),) * inside.ndim] & inside
        if thin.any():
            return thin
    return inside
