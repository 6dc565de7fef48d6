"""Boxes in voxel indices: find one, enlarge it by a margin or to a least size, crop to it, paste back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.utils import ensure_tuple_rep

from ..checks import InputError, problem

__all__ = ["Box", "at_least", "bounding_box", "crop", "enlarge", "paste"]


class Box(NamedTuple):
    """A box on a voxel grid: first index and one-past-last index of every spatial axis.

    >>> Box((1, 0, 2), (4, 5, 3)).size
    (3, 5, 1)
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along every axis."""
        return tuple(stop - start for start, stop in zip(self.start, self.stop))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index of the spatial axes: ``volume[(..., *box.slices)]``."""
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop))


def bounding_box(
    mask: torch.Tensor,
    margin: int | Sequence[int] = 0,
    margin_mm: float | None = None,
    spacing: Sequence[float] | None = None,
    spatial_dims: int = 3,
) -> Box | None:
    """The smallest box around all non-zero voxels, enlarged and clipped to the volume.

    The two margins add up. One small copy to the host tells the ends of all axes.

    Args:
        mask: ``... D H W`` of any dtype; leading axes (batch, channel) are joined into one box.
        margin: voxels added on both sides, one number or one for each axis.
        margin_mm: millimetres added on both sides, rounded up to whole voxels of `spacing`.
        spacing: mm for each axis of the mask, in the order of its axes; needed by `margin_mm`.
        spatial_dims: number of spatial axes, 2 for ``H W``.

    Returns:
        the box, or None where nothing is non-zero.

    >>> mask = torch.zeros(9, 9, 9)
    >>> mask[4, 2:5, 8] = 1
    >>> bounding_box(mask, margin=1)
    Box(start=(3, 1, 7), stop=(6, 6, 9))
    """
    if mask.ndim < spatial_dims:
        raise InputError(
            problem(
                f"the mask has {mask.ndim} axes", f"a box of {spatial_dims} axes needs as many", "pass spatial_dims"
            )
        )
    extent = tuple(mask.shape[mask.ndim - spatial_dims :])
    occupied = torch.as_tensor(mask if mask.dtype == torch.bool else mask != 0)
    rest = occupied.reshape(-1, *extent).any(dim=0)
    profiles = []
    for _ in range(spatial_dims):
        profiles.append(rest.any(dim=list(range(1, rest.ndim))) if rest.ndim > 1 else rest)
        rest = rest.any(dim=0)  # the axes still to come need no more than this shadow
    flags = torch.cat(profiles).tolist()
    start, stop, offset = [], [], 0
    for length in extent:
        profile = flags[offset : offset + length]
        offset += length
        if True not in profile:
            return None
        start.append(profile.index(True))
        stop.append(length - profile[::-1].index(True))
    box = Box(tuple(start), tuple(stop))
    return enlarge(box, extent, margin, margin_mm, spacing)


def enlarge(
    box: Box,
    extent: Sequence[int],
    margin: int | Sequence[int] = 0,
    margin_mm: float | None = None,
    spacing: Sequence[float] | None = None,
) -> Box:
    """A box with a margin on both sides of every axis, clipped to the volume.

    Args:
        box: the box.
        extent: size of the volume in voxels, ``D H W``.
        margin: voxels, one number or one for each axis.
        margin_mm: millimetres, rounded up to whole voxels of `spacing`.
        spacing: mm for each axis; needed by `margin_mm`.

    Raises:
        InputError: `margin_mm` without a positive spacing for every axis.

    >>> enlarge(Box((4, 4), (5, 5)), (9, 9), margin_mm=3, spacing=(1.0, 2.0))
    Box(start=(1, 2), stop=(8, 7))
    """
    added = list(ensure_tuple_rep(margin, len(extent)))
    if margin_mm is not None:
        if spacing is None or len(spacing) != len(extent) or min(spacing) <= 0:
            raise InputError(
                problem(
                    f"margin_mm={margin_mm} with spacing={spacing}",
                    f"a margin in mm needs a positive spacing for each of {len(extent)} axes",
                    "pass the volume's spacing, or a margin in voxels",
                )
            )
        # the small subtrahend keeps 3 mm at 0.3 mm at ten voxels, not eleven
        added = [voxels + math.ceil(margin_mm / step - 1e-6) for voxels, step in zip(added, spacing)]
    start = tuple(max(first - voxels, 0) for first, voxels in zip(box.start, added))
    stop = tuple(min(last + voxels, length) for last, voxels, length in zip(box.stop, added, extent))
    return Box(start, stop)


def at_least(box: Box, extent: Sequence[int], least: int | Sequence[int]) -> Box:
    """A box with at least so many voxels along every axis, as far as the volume has them.

    Both sides grow alike, the upper one first; at a border of the volume the other side makes up for it.

    Args:
        box: inside the volume.
        extent: size of the volume in voxels, ``D H W``.
        least: voxels, one number or one for each axis; 0 leaves an axis alone.

    Returns:
        the box, never smaller than it was and never beyond the volume.

    >>> at_least(Box((4, 7, 0), (5, 9, 2)), (9, 9, 3), 4)
    Box(start=(3, 5, 0), stop=(7, 9, 3))
    """
    start, stop = [], []
    for first, last, length, wanted in zip(box.start, box.stop, extent, ensure_tuple_rep(least, len(extent))):
        size = max(last - first, min(wanted, length))
        begin = min(max(first - (size - (last - first)) // 2, 0), length - size)
        start.append(begin)
        stop.append(begin + size)
    return Box(tuple(start), tuple(stop))


def crop(volume: torch.Tensor, box: Box) -> torch.Tensor:
    """The part of a volume inside a box, as a view.

    An affine that a MetaTensor carries is not moved along: these are voxel operations inside a method.

    Args:
        volume: ``... D H W``.
        box: inside the volume.

    Returns:
        ``... d h w`` sharing the volume's memory.
    """
    return volume[(..., *box.slices)]


def paste(patch: torch.Tensor, box: Box, extent: Sequence[int], fill: float = 0.0) -> torch.Tensor:
    """A volume that holds `patch` inside a box and `fill` elsewhere: the inverse of `crop`.

    Args:
        patch: ``... d h w``, of the box's size.
        box: where the patch belongs.
        extent: size of the new volume, ``D H W``.
        fill: value outside the box.

    Returns:
        ``... D H W`` of the patch's dtype and device.

    Raises:
        InputError: the patch does not fill the box, or the box leaves the volume.
    """
    dims = len(extent)
    inside = all(0 <= a < b <= length for a, b, length in zip(box.start, box.stop, extent))
    if tuple(patch.shape[patch.ndim - dims :]) != box.size or len(box.start) != dims or not inside:
        raise InputError(
            problem(
                f"a patch of {tuple(patch.shape)} for {box} in a volume of {tuple(extent)}",
                "the patch must fill the box and the box must lie inside the volume",
                "paste what was cropped with the same box",
            )
        )
    volume = patch.new_full((*patch.shape[: patch.ndim - dims], *extent), fill)
    volume[(..., *box.slices)] = patch
    return volume
