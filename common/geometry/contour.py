"""The contour of a labelled object: its outermost voxels within each slice."""

from __future__ import annotations

import torch

from ..checks import InputError, problem
from .morphology import erode

__all__ = ["inner_contour"]


def inner_contour(label: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """The voxels of an object that have background among their eight neighbours in the slice (huang2021runet).

    The label less its erosion by 3x3 voxels, slice by slice: one voxel thick and all inside the object, so that a
    part too thin to have an interior is contour altogether. On the device of the label, without a copy to the host.

    Args:
        label: ``... D H W``, non-zero = object; leading items (batch, channel) are taken by themselves.
        axis: the spatial axis that slices lie across, 0 = D.

    Returns:
        bool mask of the label's shape and device; of a MetaTensor a MetaTensor.

    Raises:
        InputError: fewer than three axes, or an axis other than 0, 1 and 2.

    Reading: an object that the border of the volume cuts has no contour along the cut, as in the released code.

    >>> inner_contour(torch.ones(1, 5, 5))[0].int().sum().item()
    0
    >>> inner_contour(torch.nn.functional.pad(torch.ones(1, 3, 4), (1, 1, 1, 1)))[0].int()[2].tolist()
    [0, 1, 0, 0, 1, 0]
    """
    if label.ndim < 3 or axis not in (0, 1, 2):
        came = f"a label of {tuple(label.shape)} with axis={axis!r}"
        rule = "slices lie across one of the last three axes, numbered 0, 1, 2"
        raise InputError(problem(came, rule, "pass ... D H W and the axis that the slices lie across"))
    place = label.ndim - 3 + axis
    inside = label.detach() != 0
    core = erode(inside.movedim(place, label.ndim - 3), 1, spatial_dims=2).movedim(label.ndim - 3, place)
    return inside & ~core
