"""A window of a volume that keeps its place in the world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_tensor

from ..checks import InputError, problem
from ..geometry.grids import read_window
from .source import moved

__all__ = ["cut_window", "voxel_counts"]


def cut_window(
    img: NdarrayOrTensor, start: Sequence[int], size: Sequence[int], padding_mode: str = "constant"
) -> NdarrayOrTensor:
    """Copy a window that may reach beyond the volume; a copy, so that the volume itself need not stay in memory.

    Args:
        img: C D H W, any dtype.
        start: first voxel of the window for each axis, negative or not.
        size: voxels of the window for each axis.
        padding_mode: what lies beyond, see :func:`common.geometry.grids.read_window`.

    Returns:
        C d h w of the image's type and dtype. The affine of a `MetaTensor` follows; the record of operations applied
        before ends here.
    """
    window = read_window(convert_to_tensor(img, track_meta=False)[None], start, size, padding_mode)[0]
    place = np.eye(4)
    place[:3, 3] = start
    return moved(window.clone(memory_format=torch.contiguous_format), img, place)


def voxel_counts(value: Sequence[int] | int, name: str, least: int = 0) -> tuple[int, int, int]:
    """Three whole numbers of voxels from one or three.

    Args:
        value: as it was given.
        name: of the argument.
        least: the lowest allowed.

    Raises:
        InputError: for anything else.

    >>> voxel_counts(4, "margin"), voxel_counts([1, 2, 3], "margin")
    ((4, 4, 4), (1, 2, 3))
    """
    counts = (value,) * 3 if np.ndim(value) == 0 else tuple(value)
    if len(counts) != 3 or not all(isinstance(n, (int, np.integer)) and n >= least for n in counts):
        rule = f"it counts voxels: one whole number from {least}, or three of them"
        raise InputError(problem(f"{name} {value!r} was given", rule, f"change {name}, for instance to 32"))
    return tuple(int(n) for n in counts)
