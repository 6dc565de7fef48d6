"""The steps of RA-UNet on one volume: the localiser on slices, the largest part, its box, the way back to the grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing

from ..checks import InputError, problem
from ..geometry.boxes import Box
from ..geometry.components import connected_components
from ..geometry.slices import resize_slices
from .roi import not_finite
from .timing import Stopwatch

__all__ = [
    "LiverSteps",
    "Watched",
    "box_on_grid",
    "largest_part",
    "localise",
    "report_of",
    "resize_into",
    "spacings_of",
]

logger = logging.getLogger(__name__)

# slices that are resized at a time, so that no whole grid of float numbers is held
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


class Part(NamedTuple):
    """Labels or a map inside a box of the volume, on its grid or with slices of another size."""

    box: Box
    values: torch.Tensor


class Watched:
    """Networks of a 3D stage whose logits are looked at as they come: one channel, finite numbers.

    Args:
        network: one, or several as a ModuleList.
        what: the stage's name in errors.
    """

    def __init__(self, network: torch.nn.Module, what: str) -> None:
        # TorchScript gives a ModuleList back as a module that remembers what it was
        several = isinstance(network, torch.nn.ModuleList) or getattr(network, "original_name", "") == "ModuleList"
        networks = list(network.children()) if several else [network]
        self.what, self.finite = what, True
        self.networks = [partial(self._run, one) for one in networks]

    def _run(self, network: Callable, windows: torch.Tensor) -> torch.Tensor:
        """Logits of windows.

        Raises:
            InputError: another number of channels than one.
        """
        scores = network(windows)
        if scores.shape[1] != 1:
            came = f"the {self.what} network gave {scores.shape[1]} channels"
            rule = "a stage tells one class from the rest, in one channel"
            raise InputError(problem(came, rule, "use out_channels=1"))
        self.finite = scores.isfinite().all() & self.finite
        return scores

    def check(self) -> None:
        """
        Raises:
            InputError: a logit that was not finite.
        """
        if not bool(self.finite):
            raise not_finite(f"the {self.what} network's answer")


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


def box_on_grid(box: Box, size: Sequence[int], extent: Sequence[int]) -> Box:
    """A box on resized slices as the smallest box on the grid that holds all of it.

    >>> box_on_grid(Box((1, 0, 2), (3, 4, 5)), (4, 4), (6, 7, 9))
    Box(start=(1, 0, 2), stop=(5, 7, 5))
    """
    start = [first * length // wide for first, length, wide in zip(box.start, extent, size)]
    stop = [-(-last * length // wide) for last, length, wide in zip(box.stop, extent, size)]
    return Box((*start, box.start[2]), (*stop, box.stop[2]))


def resize_into(target: torch.Tensor, values: torch.Tensor, threshold: float | None = None) -> None:
    """Write a volume with its slices resized to those of a target, a few slices at a time.

    Args:
        target: X Y Z, written to; it may be a view.
        values: x y Z, numbers, or a bool mask that stays one.
        threshold: None writes the values, a number 1 where they reach it and 0 elsewhere.
    """
    mode = "mask" if values.dtype == torch.bool else "bilinear"
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

    def count(self, labels: torch.Tensor) -> None:
        """Count the labels 1 and 2 in a box that holds them all, and the tumours."""
        self.liver = int(torch.count_nonzero(labels))
        if "tumour" in self.windows:
            tumour = labels == 2
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


def check_stages(network: Any, stages: Sequence[str]) -> None:
    """Refuse a network without the children that are run.

    Raises:
        InputError: naming what is missing.
    """
    missing = [stage for stage in stages if not isinstance(getattr(network, stage, None), torch.nn.Module)]
    if missing:
        came = f"the network {type(network).__name__} has no {' and no '.join(missing)}"
        rule = "the stages are the children localiser, liver and tumour of one network"
        raise InputError(problem(came, rule, "pass a common.networks.LiverTumourRAUNet, unwrapped"))


def _slabs(length: int, size: int) -> Iterator[slice]:
    """The slices 0 .. length - 1, at most `size` at a time."""
    return (slice(first, min(first + size, length)) for first in range(0, length, size))
