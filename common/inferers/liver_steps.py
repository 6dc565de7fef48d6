"""The steps of RA-UNet on one volume: the localiser on slices, the largest part, its box, the way back to the grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing

from ..checks import InputError, problem
from ..geometry.boxes import Box, crop
from ..geometry.components import connected_components
from ..geometry.slices import resize_slices
from .roi import not_finite
from .timing import Stopwatch

__all__ = [
    "LiverSteps",
    "box_on_grid",
    "bring_back",
    "largest_part",
    "localise",
    "one_channel",
    "report_of",
    "spacings_of",
]

logger = logging.getLogger(__name__)

# slices that are brought back to the grid at a time, so that no whole grid of float numbers is held
_SLAB = 8


def localise(
    volume: torch.Tensor, network: Callable, size: Sequence[int], threshold: float, batch_size: int
) -> torch.Tensor:
    """The 2D network's mask of every slice, resized to one size (jin2020raunet, RA-UNet-I).

    Args:
        volume: X Y Z.
        network: slices B 1 x y in, logits B 1 x y out.
        size: x and y, voxels.
        threshold: of the probability.
        batch_size: slices at a time.

    Returns:
        mask x y Z, bool.

    Raises:
        InputError: scores that are not finite.
    """
    mask = torch.empty((*size, volume.shape[-1]), dtype=torch.bool, device=volume.device)
    finite = torch.ones((), dtype=torch.bool, device=volume.device)
    for slab in _slabs(volume.shape[-1], batch_size):
        slices = resize_slices(volume[..., slab], size).permute(2, 0, 1).unsqueeze(1).contiguous()
        scores = network(slices).float()
        finite &= scores.isfinite().all()
        mask[..., slab] = (scores[:, 0].sigmoid() >= threshold).permute(1, 2, 0)
    if not bool(finite):
        raise not_finite("the localiser's answer")
    return mask


def largest_part(mask: torch.Tensor, what: str) -> tuple[torch.Tensor, Box | None]:
    """The largest component of a mask, corners connect, and its box; None where there is none.

    A warning tells of a second component of at least half its size.

    Args:
        mask: X Y Z.
        what: the mask's name in the warning.
    """
    numbers, parts = connected_components(mask)
    if not parts:
        return mask, None
    if len(parts) > 1:
        if 2 * parts[1].voxels >= parts[0].voxels:
            logger.warning(
                "%s has %d parts, of which the second has %d voxels and the largest %d: only the largest is the liver",
                *(what, len(parts), parts[1].voxels, parts[0].voxels),
            )
        mask = numbers == parts[0].index
    return mask, parts[0].box


def one_channel(windows: torch.Tensor, what: str) -> torch.Tensor:
    """The one channel of probabilities X Y Z of a 3D network."""
    if windows.shape[1] != 1:
        came = f"the {what} network gave {windows.shape[1]} channels"
        raise InputError(problem(came, "a stage tells one class from the rest, in one channel", "use out_channels=1"))
    if not bool(windows.isfinite().all()):
        raise not_finite(f"the {what} network's answer")
    return windows[0, 0]


def box_on_grid(box: Box, size: Sequence[int], extent: Sequence[int]) -> Box:
    """A box on resized slices as the smallest box on the grid that holds all of it.

    >>> box_on_grid(Box((1, 0, 2), (3, 4, 5)), (4, 4), (6, 7, 9))
    Box(start=(1, 0, 2), stop=(5, 7, 5))
    """
    start = [first * length // wide for first, length, wide in zip(box.start, extent, size)]
    stop = [-(-last * length // wide) for last, length, wide in zip(box.stop, extent, size)]
    return Box((*start, box.start[2]), (*stop, box.stop[2]))


def bring_back(
    values: torch.Tensor, target: torch.Tensor, mode: str = "bilinear", threshold: float | None = None
) -> None:
    """Write values at the size of resized slices into a target on the grid, a few slices at a time.

    Args:
        values: x y Z, probabilities or a mask.
        target: X Y Z, written to; it may be a view.
        mode: see :func:`~common.geometry.slices.resize_slices`.
        threshold: None writes the values, a number 1 where they reach it and 0 elsewhere.
    """
    for slab in _slabs(target.shape[-1], _SLAB):
        part = resize_slices(values[..., slab], target.shape[:2], mode)
        target[..., slab] = part if threshold is None else part >= threshold


def spacings_of(inputs: torch.Tensor) -> list[list[float]] | None:
    """Spacing, mm, of each volume of a batch; None where there is no affine."""
    if not isinstance(inputs, MetaTensor):
        return None
    affines = inputs.affine if inputs.affine.ndim == 3 else inputs.affine.expand(len(inputs), -1, -1)
    return [affine_to_spacing(affine).tolist() for affine in affines]


class LiverSteps(Stopwatch):
    """What is measured on one volume: voxels of its box and labels, windows and seconds of each step.

    Args:
        device: of the volume.
        stages: those that are run, in their order.
        size: voxels of the volume.
        spacing: mm of its axes, None where it is not known.
    """

    def __init__(self, device: torch.device, stages: Sequence[str], size: int, spacing: Sequence[float] | None) -> None:
        super().__init__(device)
        self.size, self.millilitre = size, None if spacing is None else math.prod(spacing) / 1000
        self.windows = dict.fromkeys(stages, 0)
        self.box = self.liver = self.tumour = self.tumours = 0

    def count(self, labels: torch.Tensor, box: Box) -> None:
        """Count the labels 1 and 2 inside a box that holds them all, and the tumours."""
        inside = crop(labels, box)
        self.liver = int(torch.count_nonzero(inside))
        if "tumour" in self.windows:
            tumour = inside == 2
            self.tumour = int(torch.count_nonzero(tumour))
            self.tumours = len(connected_components(tumour)[1])

    def __str__(self) -> str:
        steps = ", ".join(
            f"{step} {seconds:.1f} s" + (f" ({self.windows[step]} windows)" if step in self.windows else "")
            for step, seconds in self.seconds.items()
        )
        return f"liver box {self.box / self.size:.1%} of the volume, tumours: {self.tumours}; {steps}"


def report_of(measured: Sequence[LiverSteps]) -> dict[str, Any]:
    """The measures of several volumes in one, as plain numbers."""
    stages = measured[0].windows
    report: dict[str, Any] = {
        "box_share": sum(one.box for one in measured) / sum(one.size for one in measured),
        "liver_found": all(one.liver > 0 for one in measured),
    }
    known = all(one.millilitre is not None for one in measured)
    if known:
        report["liver_ml"] = sum(one.liver * one.millilitre for one in measured)
    if "tumour" in stages:
        report["tumours"] = sum(one.tumours for one in measured)
        if known:
            report["tumour_ml"] = sum(one.tumour * one.millilitre for one in measured)
    report["windows"] = {stage: sum(one.windows[stage] for one in measured) for stage in stages}
    steps = dict.fromkeys(step for one in measured for step in one.seconds)
    report["seconds"] = {step: sum(one.seconds.get(step, 0.0) for one in measured) for step in steps}
    return report


def _slabs(length: int, size: int) -> Iterator[slice]:
    """The slices 0 .. length - 1, at most `size` at a time."""
    return (slice(first, min(first + size, length)) for first in range(0, length, size))
