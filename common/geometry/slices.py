"""Axial slices at another size: a volume resized in-plane, its slices kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ..checks import InputError, problem

__all__ = ["ROUNDING", "resize_slices"]

# a voxel that is covered by just the share that is asked for counts as inside, whichever way the device rounds
ROUNDING = 1e-6

_MODES = ("bilinear", "mask")


def resize_slices(
    volume: torch.Tensor, size: Sequence[int], mode: str = "bilinear", antialias: bool = True
) -> torch.Tensor:
    """Resize every slice of a volume; the number of slices stays (jin2020raunet).

    The outer borders of the first and the last voxel stay where they are (``align_corners=False``), so that a box maps
    to another size by the ratio of the sizes. Values never leave the range of the volume's own.

    Deviation: the released code resizes by splines of order 3; here it is bilinear, and with `antialias` each voxel of
    a smaller slice is a mean over all that it covers.

    Args:
        volume: ``... X Y Z`` of any dtype, slices across the last axis.
        size: voxels ``(x, y)`` of the new slices.
        mode: ``"bilinear"``, or ``"mask"``: what is not zero is inside, resized as 0 and 1, inside from 0.5 on.
        antialias: widen the kernel where slices become smaller.

    Returns:
        ``... x y Z``, a plain tensor on the volume's device; of floating values the dtype, of others float32; a mask
        as 0 and 1 in the volume's dtype. Where the size is right already, the values are the volume's own, not copied.

    Raises:
        InputError: a volume of fewer than three axes or without voxels, a size that is not two positive numbers, or
            an unknown mode.

    >>> resize_slices(torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]), (1, 4)).flatten().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    _check(volume, size, mode)
    volume = volume.as_subclass(torch.Tensor)
    if mode == "mask":
        inside = volume if volume.dtype == torch.bool else volume != 0
        if tuple(size) != tuple(volume.shape[-3:-1]):
            inside = _resized(inside.float(), size, antialias) >= 0.5 - ROUNDING
        return inside.to(volume.dtype)
    values = volume if volume.is_floating_point() else volume.float()
    return values if tuple(size) == tuple(volume.shape[-3:-1]) else _resized(values, size, antialias)


def _resized(values: torch.Tensor, size: Sequence[int], antialias: bool) -> torch.Tensor:
    """Floating values ``... X Y Z`` with slices of another size."""
    lead, (rows, columns, slices) = values.shape[:-3], values.shape[-3:]
    # slices as channels, the innermost ones in memory: a view, not a copy
    planes = values.reshape(-1, rows, columns, slices).permute(0, 3, 1, 2)
    # PyTorch has no antialiased kernel for half precision on a CPU
    wide = planes if planes.dtype in (torch.float32, torch.float64) else planes.float()
    # and, in 2.13, makes zeros of slices that become one voxel wide; turned, they become one voxel high
    turned = size[1] == 1
    wide, wanted = (wide.mT, (size[1], size[0])) if turned else (wide, tuple(size))
    resized = F.interpolate(wide, size=wanted, mode="bilinear", antialias=antialias).to(values.dtype)
    resized = resized.mT if turned else resized
    return resized.permute(0, 2, 3, 1).reshape(*lead, *size, slices)


def _check(volume: torch.Tensor, size: Sequence[int], mode: str) -> None:
    """Refuse what has no slices, no size or no meaning."""
    if volume.ndim < 3 or 0 in volume.shape:
        came = f"a volume of {tuple(volume.shape)}"
        raise InputError(problem(came, "slices are resized of ... X Y Z with at least one voxel", "add the axes"))
    if len(size) != 2 or not all(int(length) == length and length >= 1 for length in size):
        came = f"slices of {tuple(size)} voxels"
        raise InputError(problem(came, "a slice has two axes of at least one voxel", "pass for example (256, 256)"))
    if mode not in _MODES:
        came = f"mode is {mode!r}"
        raise InputError(problem(came, f"slices are resized as one of {', '.join(_MODES)}", f"pass {_MODES[0]!r}"))
