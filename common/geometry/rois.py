"""Regions of interest from a heat map on a coarse grid, and the same region at every scale of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import ensure_tuple_rep
from torch.nn import functional

from ..checks import InputError, problem
from .boxes import Box, crop, enlarge
from .components import connected_components

__all__ = [
    "STRIDES",
    "check_locator",
    "clipped_box",
    "locate_rois",
    "normalised_heat",
    "pad_to_cells",
    "pooled_label",
    "pyramid_crop",
    "pyramid_crops",
    "scaled_box",
]

# voxels of each scale, F_I to F_III, that one cell of F_III covers: the poolings by (1, 2, 2) and (2, 2, 2) undone
STRIDES = ((2, 4, 4), (2, 2, 2), (1, 1, 1))


def locate_rois(
    heat: torch.Tensor,
    threshold: float = 0.5,
    normalise: bool = False,
    margin: int | Sequence[int] = (1, 2, 2),
    top: int | None = 10,
) -> list[Box]:
    """Boxes around the connected parts of a heat map, largest part first (huang2021runet).

    Parts are joined through 18 neighbours. Only the cells above the threshold, a byte each, go to the host.

    Args:
        heat: probability of each cell, ``D H W`` (leading axes of length 1 are allowed); a cell of NaN is never found.
        threshold: lowest probability that is found, above 0, at most 1.
        normalise: scale the map to 0 .. 1 by its own extremes first, see `normalised_heat`.
        margin: cells added on both sides of a part, one number or three; the boxes end at the border of the map.
        top: how many of the largest parts are kept, or None for all.

    Returns:
        boxes in cells, none where nothing reaches the threshold.

    Raises:
        InputError: an argument outside its range, or a heat map of more than one volume.

    Deviation: with the threshold on the probability itself, the default, there may be no region at all; the released
    code scales every map to 0 .. 1 and so finds one in every volume. Boxes reach the last cell of every axis, which
    the released code cuts off.

    >>> heat = torch.zeros(4, 9, 9)
    >>> heat[1, 4, 8] = 0.7
    >>> locate_rois(heat)
    [Box(start=(0, 2, 6), stop=(3, 7, 9))]
    """
    check_locator(threshold, margin, top)
    heat = heat.detach().as_subclass(torch.Tensor)
    found = (normalised_heat(heat) if normalise else heat) >= threshold
    _, parts = connected_components(found.cpu(), connectivity=2)
    return [enlarge(part.box, heat.shape[-3:], margin) for part in parts[:top]]


def check_locator(threshold: float, margin: int | Sequence[int], top: int | None) -> None:
    """Refuse arguments with which `locate_rois` cannot work.

    Raises:
        InputError: an argument outside its range.
    """
    if not 0 < threshold <= 1:
        came = f"a threshold of {threshold!r} for the heat map"
        raise InputError(problem(came, "it is a probability above 0, at most 1", "pass for example 0.5"))
    cells = [margin] * 3 if isinstance(margin, int) else list(margin)
    if len(cells) != 3 or any(int(number) != number or number < 0 for number in cells):
        came = f"a margin of {margin!r} around a region"
        raise InputError(problem(came, "it counts whole cells, 0 or more", "pass one number or three, as (1, 2, 2)"))
    if top is not None and (int(top) != top or top < 1):
        came = f"top={top!r} regions"
        raise InputError(problem(came, "at least the largest region is kept", "pass 1 or more, or None for all"))


def normalised_heat(heat: torch.Tensor) -> torch.Tensor:
    """A heat map scaled to 0 .. 1 by its own lowest and highest value, as in the released code of huang2021runet.

    Args:
        heat: one map, of any shape; values of NaN stay what they are and do not count.

    Returns:
        the scaled map, float32; all zeros where the map is constant, for which the released code divides by zero.

    >>> normalised_heat(torch.tensor([0.25, 0.5, 0.75])).tolist()
    [0.0, 0.5, 1.0]
    """
    heat = heat.float()
    lowest = heat.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).min()
    highest = heat.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).max()
    width = highest - lowest
    return torch.where(width > 0, (heat - lowest) / width, torch.zeros_like(heat))


def pooled_label(label: torch.Tensor, cell: Sequence[int] = STRIDES[0]) -> torch.Tensor:
    """A label on the grid of the heat map: a cell is foreground where any of its voxels is (huang2021runet).

    Args:
        label: ``B C D H W``, non-zero = foreground.
        cell: voxels that a cell covers.

    Returns:
        ``B C d h w`` of zeros and ones, float32. Sizes are rounded up, so the last cell may cover fewer voxels.

    >>> pooled_label(torch.ones(1, 1, 5, 8, 9)).shape
    torch.Size([1, 1, 3, 2, 3])
    """
    inside = (label.detach().as_subclass(torch.Tensor) != 0).float()
    return functional.max_pool3d(inside, tuple(cell), tuple(cell), ceil_mode=True)


def scaled_box(box: Box, factors: int | Sequence[int]) -> Box:
    """A box of cells as a box of the finer grid of which each cell covers `factors` voxels.

    >>> scaled_box(Box((1, 0, 2), (3, 1, 4)), (2, 4, 4))
    Box(start=(2, 0, 8), stop=(6, 4, 16))
    """
    factors = ensure_tuple_rep(factors, len(box.start))
    return Box(*(tuple(index * factor for index, factor in zip(end, factors)) for end in box))


def clipped_box(box: Box, extent: Sequence[int]) -> Box:
    """What of a box lies inside a volume of `extent` voxels.

    >>> clipped_box(Box((4, 0, 8), (8, 4, 16)), (7, 9, 9))
    Box(start=(4, 0, 8), stop=(7, 4, 9))
    """
    return Box(box.start, tuple(min(stop, length) for stop, length in zip(box.stop, extent)))


def pad_to_cells(volume: torch.Tensor, cell: Sequence[int] = STRIDES[0]) -> torch.Tensor:
    """A volume whose sizes are whole numbers of cells: voxels of the last border are repeated behind it.

    Args:
        volume: ``B C D H W``, floating.
        cell: voxels of a cell along every axis.

    Returns:
        ``B C D' H' W'``, every voxel at its old place; `volume` itself where there is nothing to add.

    >>> pad_to_cells(torch.zeros(1, 1, 3, 8, 9)).shape
    torch.Size([1, 1, 4, 8, 12])
    """
    added = [-length % step for length, step in zip(volume.shape[2:], cell)]
    if not any(added):
        return volume
    return functional.pad(volume, [voxels for axis in reversed(added) for voxels in (0, axis)], mode="replicate")


def pyramid_crop(
    features: Sequence[torch.Tensor], box: Box, strides: Sequence[Sequence[int]] = STRIDES
) -> tuple[torch.Tensor, ...]:
    """The same region at every scale of a feature pyramid, without resampling: the RoI pyramid layer (huang2021runet).

    Args:
        features: ``B C D H W`` for each scale, finest first.
        box: the region, in cells of the coarsest scale.
        strides: for each scale, how many of its voxels one cell covers along every axis.

    Returns:
        views of the features, ``B C d h w`` each.

    Raises:
        InputError: a region that does not lie inside every scale.

    Reading: the poolings are (1, 2, 2) and then (2, 2, 2), as in the released code. The paper's figure has them the
    other way round, with which the network would see 38 slices rather than the 26 that are published.

    >>> features = [torch.zeros(1, 1, 8, 16, 16), torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 4, 4, 4)]
    >>> [tuple(part.shape[2:]) for part in pyramid_crop(features, Box((1, 0, 2), (3, 1, 4)))]
    [(4, 4, 8), (4, 2, 4), (2, 1, 2)]
    """
    regions = _scaled_regions(features, box, strides)
    return tuple(crop(feature, region) for feature, region in zip(features, regions))


def pyramid_crops(
    features: Sequence[torch.Tensor], boxes: Sequence[tuple[int, Box]], strides: Sequence[Sequence[int]] = STRIDES
) -> list[tuple[torch.Tensor, ...]]:
    """Many regions of a pyramid at once, as `pyramid_crop` cuts each, for training.

    The backward pass adds the gradients of all regions into one tensor for each scale; slices taken one by one would
    make tensors of the whole volume for each region.

    Args:
        features: ``B C D H W`` for each scale, finest first.
        boxes: item of the batch and region, in cells of the coarsest scale; regions may overlap.
        strides: see `pyramid_crop`.

    Returns:
        for each region the views of the features, ``1 C d h w`` each; they must not be written to.

    Raises:
        InputError: a region that does not lie inside every scale.
    """
    regions = [_scaled_regions(features, box, strides) for _, box in boxes]
    crops = []
    for feature, of_scale in zip(features, zip(*regions)):
        places = [(slice(item, item + 1), slice(None), *box.slices) for (item, _), box in zip(boxes, of_scale)]
        crops.append(_Regions.apply(feature, places))
    return list(zip(*crops))


class _Regions(torch.autograd.Function):
    """Views of one tensor, whose gradients are added up in place."""

    @staticmethod
    def forward(ctx: Any, feature: torch.Tensor, places: Sequence[tuple[slice, ...]]) -> tuple[torch.Tensor, ...]:
        ctx.places, ctx.shape = places, feature.shape
        ctx.set_materialize_grads(False)
        return tuple(feature[place] for place in places)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, None]:
        total = None
        for place, gradient in zip(ctx.places, gradients):
            if gradient is None:
                continue
            if gradient.shape == ctx.shape and len(gradients) == 1:
                return gradient, None
            if total is None:
                total = gradient.new_zeros(ctx.shape)
            total[place] += gradient
        return total, None


def _scaled_regions(features: Sequence[torch.Tensor], box: Box, strides: Sequence[Sequence[int]]) -> list[Box]:
    """A box of cells at every scale, which it must lie inside of."""
    regions = [scaled_box(box, stride) for stride in strides]
    for feature, region in zip(features, regions, strict=True):
        extent = tuple(feature.shape[-3:])
        if not all(0 <= a < b <= length for a, b, length in zip(region.start, region.stop, extent)):
            came = f"{region} in a feature map of {extent}"
            rule = "a region lies inside every scale"
            raise InputError(problem(came, rule, "encode a volume of whole cells, and pass its box in cells"))
    return regions
