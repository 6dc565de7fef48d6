"""A volume on every n-th voxel, and labels carried back from there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import convert_to_tensor, ensure_tuple_rep

from ..checks import InputError, problem

__all__ = ["parse_factor", "subsample", "upsample_nearest"]


def parse_factor(factor: Sequence[int] | int) -> tuple[int, int, int]:
    """Three whole numbers from 1, one for each spatial axis, from one for all or one each.

    Raises:
        InputError: for other numbers.

    >>> parse_factor(2)
    (2, 2, 2)
    """
    given = tuple(factor) if isinstance(factor, Sequence) and not isinstance(factor, str) else (factor,)
    try:
        factors = tuple(int(value) for value in given)
        good = len(factors) in (1, 3) and min(factors) >= 1 and all(a == b for a, b in zip(factors, given))
    except (TypeError, ValueError):
        good = False
    if not good:
        rule = "it must be one whole number from 1, or one for each of the three axes"
        raise InputError(problem(f"downsampling factor {factor!r} was given", rule, "give 2, or [2, 2, 1]"))
    return ensure_tuple_rep(factors[0], 3) if len(factors) == 1 else factors


def subsample(volume: torch.Tensor, factor: Sequence[int] | int) -> torch.Tensor:
    """Every `factor`-th voxel of the last three axes, beginning with the first.

    roth2017hierarchical downsamples by 2. Reading: plain slicing without smoothing, labels as images, which is what the
    authors' released code does; the paper does not say how.

    Args:
        volume: ``... D H W``, any dtype.
        factor: step in voxels, one for all axes or one for each; an axis shorter than its step keeps one voxel.

    Returns:
        ``... ceil(D/f) ceil(H/f) ceil(W/f)``: a view, and a plain tensor (no affine that would have to follow).

    >>> subsample(torch.arange(5).reshape(1, 1, 5), 2).flatten().tolist()
    [0, 2, 4]
    """
    steps = parse_factor(factor)
    if volume.ndim < 3:
        came = f"the volume to subsample has shape {tuple(volume.shape)}"
        raise InputError(problem(came, "it must have three axes in space", "give it as (..., D, H, W)"))
    return convert_to_tensor(volume, track_meta=False)[(..., *(slice(None, None, step) for step in steps))]


def upsample_nearest(labels: torch.Tensor, factor: Sequence[int] | int, size: Sequence[int]) -> torch.Tensor:
    """Labels of a grid of every `factor`-th voxel on the grid it was taken from.

    Voxel i of the fine grid takes the label of coarse voxel ``i // factor``: the nearest neighbour of
    roth2017hierarchical in the form that the authors' released code has. ``subsample`` of the result gives `labels`
    again. Coarse voxel j was read at fine voxel ``j * factor`` and is painted from there on, so that what it stands for
    moves by ``(factor - 1) / 2`` fine voxels towards higher indices.

    Args:
        labels: ``... d h w``, any dtype.
        factor: voxels of the fine grid in one of the coarse grid, one for all axes or one for each.
        size: D, H, W of the fine grid.

    Returns:
        ``... D H W`` of the same dtype, a plain tensor; `labels` themselves where the factor is 1.

    Raises:
        InputError: for a size that does not subsample to `labels`' shape.

    >>> upsample_nearest(torch.tensor([[[3, 7]]]), (1, 1, 2), (1, 1, 3)).tolist()
    [[[3, 3, 7]]]
    """
    steps = parse_factor(factor)
    coarse = tuple(-(-int(fine) // step) for fine, step in zip(size, steps))
    if len(size) != 3 or tuple(labels.shape[-3:]) != coarse:
        came = f"labels of shape {tuple(labels.shape)} for a grid of {tuple(size)} voxels, factor {steps}"
        rule = f"the grid must subsample to the labels' size (it does to {coarse})"
        raise InputError(problem(came, rule, "give the size and the factor that the volume was subsampled with"))
    labels = convert_to_tensor(labels, track_meta=False)
    # the last axis first: whole rows and planes are copied at the larger sizes
    for axis, step, fine in zip((-1, -2, -3), reversed(steps), reversed(tuple(size))):
        if step > 1:
            index = torch.div(torch.arange(int(fine), device=labels.device), step, rounding_mode="floor")
            labels = labels.index_select(axis, index)
    return labels
