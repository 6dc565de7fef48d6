"""The body in a CT volume: what is not air, without the table."""

from __future__ import annotations

import torch

from ..checks import InputError, problem
from .components import fill_holes, keep_largest
from .morphology import dilate, erode

__all__ = ["body_mask"]


def body_mask(volume: torch.Tensor, threshold: float = -500.0, opening: int = 2, axis: int = 2) -> torch.Tensor:
    """The patient's body, C1 of the cascade (roth2017hierarchical, section 2).

    Voxels of at least `threshold`, opened by a cube, of which between erosion and dilation only the largest component
    (26 neighbours) stays; then air inside, as in lungs and bowel, is filled slice by slice. What the erosion parts from
    the body, such as the scanner's table, falls away. Where the border of the volume cuts the body, the body
    reaches the border, and air that touches the border of its slice is outside.

    Args:
        volume: ``... D H W`` in HU, of any dtype; leading items (batch, channel) are treated by themselves.
        threshold: HU from which a voxel is not air.
        opening: voxels taken away and given back; 0 for none.
        axis: spatial axis across which the slices lie, 0 to 2: 2 where the axes are X Y Z.

    Returns:
        bool mask of the same shape on the same device, a plain tensor; all False where the erosion leaves no voxel.
        Components and holes are found on the host: from a GPU the mask, not the volume, is copied there and back,
        once for each.

    Raises:
        InputError: for fewer than three axes, or slices across an axis that is not there.

    Reading: the paper names threshold, filling and largest component; the opening is that of the released code.
    Deviation: the released code also erodes the body where the border of the volume cuts it, see `erode`.

    >>> body_mask(torch.tensor([-1000.0, 40.0, 60.0, -1000.0]).expand(3, 3, 4), opening=0)[1, 1].tolist()
    [False, True, True, False]
    """
    if volume.ndim < 3 or axis not in (0, 1, 2):
        raise InputError(
            problem(
                f"a volume of {tuple(volume.shape)} with slices across axis {axis}",
                "the body is found in ... D H W, with slices across axis 0, 1 or 2 of these three",
                "pass a volume, and the axis that runs from head to feet",
            )
        )
    values = volume.detach().as_subclass(torch.Tensor)
    mask = torch.empty(values.shape, dtype=torch.bool, device=values.device)
    for plane in range(values.shape[-3]):
        # plane by plane, for whole numbers are compared as float32
        torch.ge(values[..., plane, :, :], threshold, out=mask[..., plane, :, :])
    # one name for all steps: none keeps the mask of the step before
    mask = erode(mask, opening)
    mask = keep_largest(mask)
    mask = dilate(mask, opening)
    return fill_holes(mask, axis=axis)
