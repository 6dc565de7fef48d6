"""Grids of windows over a volume, reading a window that sticks out, and classes on a finer grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.nn import functional as F

from ..checks import InputError, problem

__all__ = ["argmax_on_grid", "first_argmax", "label_dtype", "read_window", "tile_starts", "tiling_starts"]

PADDING_MODES = ("reflect", "replicate", "constant")


def tile_starts(extent: int, core: int, step: int, align: int = 1) -> list[int]:
    """First indices of tiles that cover one axis, the last one moved back to end with the axis.

    Args:
        extent: voxels of the axis.
        core: voxels that one tile covers.
        step: voxels from one tile to the next, at most `core`.
        align: starts are multiples of it, at most `core`; the last tile may then reach beyond the axis.

    Returns:
        rising starts; a single one, zero or negative, that centres the axis in the tile where it is not longer.

    >>> tile_starts(10, 4, 3), tile_starts(9, 4, 3), tile_starts(3, 6, 3), tile_starts(9, 4, 3, align=2)
    ([0, 3, 6], [0, 3, 5], [-1], [0, 2, 4, 6])
    """
    if extent <= core:
        return [-((core - extent) // 2 // align * align)]
    last = -(-(extent - core) // align) * align
    return [*range(0, last, max(step // align, 1) * align), last]


def tiling_starts(extent: int, core: int, shift: int) -> list[int]:
    """First indices of tiles that cover one axis exactly once, beginning `shift` voxels before it.

    Args:
        extent: voxels of the axis.
        core: voxels that one tile covers.
        shift: 0 to ``core - 1``.

    >>> tiling_starts(10, 4, 2)
    [-2, 2, 6]
    """
    return list(range(-shift, extent, core))


def read_window(
    volume: torch.Tensor, start: Sequence[int], size: Sequence[int], padding_mode: str = "reflect"
) -> torch.Tensor:
    """A window of a volume that may reach beyond it; only what lies beyond is made up.

    Args:
        volume: ``B C D H W`` (or ``B C H W``).
        start: first index of the window for each spatial axis, negative or not; the window must touch the volume.
        size: voxels of the window for each spatial axis.
        padding_mode: ``"reflect"`` mirrors at the border voxels, again and again where the window is longer than
            that (an axis of one voxel is repeated); ``"replicate"`` repeats the border voxels; ``"constant"`` is 0.

    Returns:
        ``B C d h w``, a view where the window lies inside.

    >>> read_window(torch.arange(3.0).reshape(1, 1, 3, 1), (-3, 0), (9, 1)).flatten().tolist()
    [1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0]
    """
    extent = volume.shape[2:]
    needed, beyond, pads = [], {}, []
    for axis, (first, length, voxels) in enumerate(zip(start, size, extent)):
        low, high = max(first, 0), min(first + length, voxels)
        if low - first or first + length - high:
            pads = [low - first, first + length - high, *pads]
            if padding_mode != "constant":
                index = _border_index(first, length, voxels, padding_mode, volume.device)
                # the part of the axis that the mirror can reach from this window
                reach = max(low - first, first + length - high) if padding_mode == "reflect" else 0
                low, high = max(low - reach, 0), min(high + reach, voxels)
                beyond[axis + 2] = index - low
        else:
            pads = [0, 0, *pads]
        needed.append(slice(low, high))
    window = volume[(slice(None), slice(None), *needed)]
    if padding_mode == "constant":
        return F.pad(window, pads) if any(pads) else window
    for axis, index in beyond.items():
        window = window.index_select(axis, index)
    return window


def _border_index(first: int, length: int, voxels: int, mode: str, device: torch.device) -> torch.Tensor:
    """Indices inside 0 .. voxels - 1 that stand for first .. first + length - 1."""
    index = torch.arange(first, first + length, device=device)
    if mode == "replicate" or voxels == 1:
        return index.clamp_(0, voxels - 1)
    # a mirror at both border voxels has the period 2 (n - 1)
    return (voxels - 1) - (index.remainder_(2 * (voxels - 1)) - (voxels - 1)).abs_()


def label_dtype(classes: int) -> torch.dtype:
    """The smallest integer type that holds the labels 0 .. classes - 1: uint8, then int32."""
    return torch.uint8 if classes <= 256 else torch.int32


def first_argmax(planes: Iterable[torch.Tensor], dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """The index of the largest of several tensors, voxel by voxel, taking them one after the other.

    Equal ones give the lowest index on every device, which `torch.argmax` does not promise.

    Args:
        planes: tensors of one shape, one for each class; they may be made one at a time.
        dtype: integer type of the result.

    >>> first_argmax([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])]).tolist()
    [0, 1]
    """
    best = labels = None
    for index, plane in enumerate(planes):
        if best is None:
            best = plane.clone()
            labels = torch.zeros_like(plane, dtype=dtype)
        else:
            labels.masked_fill_(plane > best, index)
            torch.maximum(best, plane, out=best)
    return labels


def argmax_on_grid(scores: torch.Tensor, size: Sequence[int], align_corners: bool = False) -> torch.Tensor:
    """Labels on another grid from class scores, interpolated (bi-, trilinear) class by class.

    Equal, bit for bit, to interpolating all classes and taking the argmax, but holds one class at the target's
    resolution instead of K.

    Args:
        scores: ``B K d h w`` (or ``B K h w``), floating point; they need not sum to one.
        size: target size ``D H W`` in voxels.
        align_corners: False where both grids span the same box, voxel faces aligned (images resampled over the same
            field of view); True where the centres of the corner voxels coincide.

    Returns:
        ``B 1 D H W``, uint8 up to 256 classes, the lowest class where scores are equal.

    Raises:
        InputError: a single class, or another number of axes.
    """
    dims = scores.ndim - 2
    if len(size) != dims or dims not in (2, 3) or scores.shape[1] < 2:
        raise InputError(
            problem(
                f"scores of {tuple(scores.shape)} for a grid of {tuple(size)}",
                "it takes B K d h w with at least two classes and a size of as many spatial axes",
                "interpolate a single channel with torch and compare it with a threshold",
            )
        )
    mode = "trilinear" if dims == 3 else "bilinear"
    planes = (
        F.interpolate(scores[:, index : index + 1], size=tuple(size), mode=mode, align_corners=align_corners)
        for index in range(scores.shape[1])
    )
    return first_argmax(planes, label_dtype(scores.shape[1]))
