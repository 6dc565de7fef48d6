"""The body in a scan of any modality: what stands out from the air around it, by Otsu's threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.utils import optional_import

from ..checks import InputError, problem
from .components import fill_holes, keep_largest
from .morphology import dilate, erode

threshold_otsu, _ = optional_import("skimage.filters", name="threshold_otsu")

__all__ = ["otsu_body"]

_BINS = 4096  # a few bright voxels stretch the range: what is left of it for tissue must do
_BRIGHT = 0.005  # share of the voxels, such as metal and vessels, whose brightness does not count
_PADDING = -1024.0  # HU of the lowest number that 12 bits hold; below it scanners pad


def otsu_body(
    volume: torch.Tensor, factor: float = 0.5, axis: int = 0, closing: Sequence[int] = (0, 0)
) -> torch.Tensor:
    """The patient's body by Otsu's threshold (huang2021runet, preprocessing).

    Voxels of at least `factor` times the threshold, of which only the largest component (26 neighbours) stays; then,
    slice by slice, it is closed and what is dark inside it is filled. Outside the volume there is nothing, so that
    air between the body and the border stays air.

    Args:
        volume: ``... D H W``, MR in any unit or CT in HU, of any dtype; leading items (batch, channel) are treated by
            themselves.
        factor: share of the way from the volume's minimum up to the threshold, above 0 and at most 1.
        axis: spatial axis across which the slices lie, 0 to 2: 0 where D runs from feet to head.
        closing: voxels by which the body grows and shrinks again along the two axes of a slice, so that dark tissue
            that opens to the outside, such as muscle between bright fat, is inside; 0 for none.

    Returns:
        bool mask of the same shape on the same device, a plain tensor; all False for an item that is constant or not
        finite. From a GPU a histogram and the mask are copied to the host, not the volume.

    Raises:
        InputError: for fewer than three axes, slices across an axis that is not there, or a factor out of its range.

    Reading: "a body mask by Otsu" is one threshold of the whole volume, at half of which air ends, and a closing, both
    as in the released code; the largest component drops what lies beside the body, and filling keeps dark organs in the
    statistics. The threshold is measured from the minimum, so that it serves numbers below 0 too; for MR, where that is
    about 0, this is the released code's. What is below -1024, where CT is padded, counts as -1024, and the brightest
    0.5 % of the voxels as equally bright, so that metal is not all that stands out.
    Deviation: the released code takes one threshold a slice, from ten slices only, and closes across slices as well.

    >>> otsu_body(torch.tensor([0.0, 90.0, 80.0, 10.0, 5.0]).expand(3, 3, 5))[1, 1].tolist()
    [False, True, True, False, False]
    """
    if volume.ndim < 3 or axis not in (0, 1, 2):
        raise InputError(
            problem(
                f"a volume of {tuple(volume.shape)} with slices across axis {axis}",
                "the body is found in ... D H W, with slices across axis 0, 1 or 2 of these three",
                "pass a volume, and the axis that runs from feet to head",
            )
        )
    if not 0 < factor <= 1:
        rule = "it must be above 0 (the minimum) and at most 1 (Otsu's threshold)"
        raise InputError(problem(f"factor {factor} was given", rule, "take 0.5"))
    values = volume.detach().as_subclass(torch.Tensor)
    mask = torch.zeros(values.shape, dtype=torch.bool, device=values.device)
    for item, inside in zip(values.reshape(-1, *values.shape[-3:]), mask.view(-1, *values.shape[-3:])):
        low, high = (float(bound) for bound in torch.aminmax(item))
        if not (low < high and math.isfinite(high - low)):
            continue
        if high > _PADDING:
            low = max(low, _PADDING)
        threshold = low + factor * (_threshold(item, low, high) - low)
        for plane, found in zip(item, inside):
            # plane by plane, for whole numbers are compared as float32
            torch.ge(plane, threshold, out=found)
    # one name for all steps: none keeps the mask of the step before
    mask = keep_largest(mask)
    if any(closing):
        first, second = (volume.ndim - 3 + other for other in range(3) if other != axis)
        mask = _close(mask, {first: closing[0], second: closing[1]})
    return fill_holes(mask, axis=axis)


def _threshold(item: torch.Tensor, low: float, high: float) -> float:
    """Otsu's threshold of a volume D H W, the middle of a gap; what is below `low` counts as `low`."""
    counts = torch.zeros(_BINS, dtype=torch.float64, device=item.device)
    for plane in item:
        # plane by plane: a histogram counts in float32, which ends at 2^24
        counts += torch.histc(plane.float().clamp(min=low), _BINS, low, high)
    width = (high - low) / _BINS
    centres = low + width * (torch.arange(_BINS, dtype=torch.float64) + 0.5)
    counts, centres = counts.cpu().numpy(), centres.numpy()
    above = counts[::-1].cumsum()[::-1]
    last = max(1, int((above > _BRIGHT * above[0]).sum()) - 1)  # the brightest bin that counts, and all above it
    counts, centres = np.append(counts[:last], above[last]), centres[: last + 1]
    # Where no value lies between air and body, all thresholds there are equally good and the lowest is returned, from
    # either end: half of it would be in the air's noise, of their middle it is not.
    return float(threshold_otsu(hist=(counts, centres)) - threshold_otsu(hist=(counts[::-1], -centres[::-1]))) / 2


def _close(mask: torch.Tensor, radii: dict[int, int]) -> torch.Tensor:
    """Dilate and erode by a box of these radii along these axes, nothing being outside the volume."""
    # farther than the volume is wide changes nothing more
    radii = {axis: min(int(radius), mask.shape[axis]) for axis, radius in radii.items()}
    room = [width for axis in reversed(range(mask.ndim)) for width in (radii.get(axis, 0),) * 2]
    grown = torch.nn.functional.pad(mask, room)
    for change in (dilate, erode):
        for axis, radius in radii.items():
            line = grown.movedim(axis, -1)
            grown = change(line.unsqueeze(-1), radius, spatial_dims=2).squeeze(-1).movedim(-1, axis)
    for axis, radius in radii.items():
        grown = grown.narrow(axis, radius, mask.shape[axis])
    return grown.contiguous()
