"""From masks of many directions to a volume: learnable filtration, back-projection and normalised consensus."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import nn
from torch.amp import is_autocast_available
from torch.nn import functional as F

from ..checks import InputError, nearest, problem
from ..geometry.projection import back_project, ramp_filter

__all__ = ["Consensus", "Filtration", "Reconstruction"]

FILTER_INITS = ("mean", "ramp")
NORMALISATIONS = ("affine", "batch")
GAIN, SHIFT = 10.0, 5.0  # logits at the start run from -SHIFT, no direction, to GAIN - SHIFT, all directions


class Filtration(nn.Module):
    """F of angermann2019random25d (section 2): a filter of its own for every direction and class.

    Filters run along the detector's axis, across the rotation axis, where the shadows lie that back-projection leaves.
    Without bias: it would add a constant per direction to the sum over directions, which the shift of T holds already.
    Beyond the detector is 0.

    Reading: of an even filter the larger half reaches to lower detector coordinates (its last tap lies on the bin
    itself for size 2), while the pooling of T reaches to higher voxels. Along axis a, where the detector's axis points
    the same way in all of half a turn, the two shifts of half a voxel then cancel in part.

    Args:
        directions: D.
        channels: classes K.
        size: taps.
        init: ``"mean"``, taps of 1 / size, or ``"ramp"``, the filter of filtered back-projection.
    """

    def __init__(self, directions: int, channels: int, size: int, init: str = "mean") -> None:
        super().__init__()
        if init not in FILTER_INITS:
            rule, guess = f"it must be one of {', '.join(FILTER_INITS)}", nearest(str(init), FILTER_INITS)
            raise InputError(problem(f"filter_init is {init!r}", rule, f"use filter_init={guess or 'mean'!r}"))
        if int(size) != size or size < 1:
            rule = "it must be a whole number of detector bins, 0 for no filtration"
            raise InputError(problem(f"filter_size is {size!r}", rule, "use 2, as published"))
        self.before, self.after = int(size) // 2, (int(size) - 1) // 2
        taps = torch.full((int(size),), 1 / size) if init == "mean" else ramp_filter(int(size)) * (math.pi / directions)
        self.weight = nn.Parameter(taps.repeat(directions, channels, 1))

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """Filtered masks.

        Args:
            masks: B D K b W.

        Returns:
            B D K b W.
        """
        rows = F.pad(masks.flatten(1, 2), [self.before, self.after])
        weight = self.weight.flatten(0, 1)[:, None, None]
        return F.conv2d(rows, weight, groups=rows.shape[1]).reshape(masks.shape)


class Consensus(nn.Module):
    """T of angermann2019random25d (section 2) before its sigmoid: average pooling, then a learnable normalisation.

    Reading: pooling is 2x2x2 with stride 1, of a voxel and its successors; at the end of an axis it averages what is
    there. ``"affine"`` is a scale and a shift per class, at the start such that logits run from -5 (no direction says
    yes) to 5 (all do); ``"batch"`` is batch normalisation.

    Args:
        channels: classes K.
        full: what the back-projection gives where every direction says yes.
        normalise: ``"affine"`` or ``"batch"``.
    """

    def __init__(self, channels: int, full: float, normalise: str = "affine") -> None:
        super().__init__()
        if normalise not in NORMALISATIONS:
            rule, guess = f"it must be one of {', '.join(NORMALISATIONS)}", nearest(str(normalise), NORMALISATIONS)
            raise InputError(problem(f"normalise is {normalise!r}", rule, f"use normalise={guess or 'affine'!r}"))
        self.norm: nn.Module = nn.Identity()
        if normalise == "batch":
            self.norm = nn.BatchNorm3d(channels)
        else:
            self.norm = Affine(channels, GAIN / full, -SHIFT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits B K A b C of a back-projection B K A b C."""
        # Sums of neighbours, axis by axis: nothing is kept for the gradient, and any order of axes in memory will do.
        for axis in range(2, 5):
            more = x.shape[axis] - 1
            pairs = x.narrow(axis, 0, more) + x.narrow(axis, 1, more)
            x = torch.cat([pairs, 2 * x.narrow(axis, more, 1)], axis)
        return self.norm(x.mul_(0.125))


class Affine(nn.Module):
    """A scale and a shift per channel."""

    def __init__(self, channels: int, weight: float, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), weight))
        self.bias = nn.Parameter(torch.full((channels,), bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scaled and shifted B K A b C."""
        return x * self.weight[:, None, None, None] + self.bias[:, None, None, None]


class Reconstruction(nn.Module):
    """T R F of angermann2019random25d (section 2), from the masks of all directions to logits of the volume.

    It is computed in float32 at least, also under autocast: sums over many directions differ by little.

    Args:
        directions: D.
        channels: classes K.
        filter_size: taps of F; 0 leaves F out.
        filter_init: ``"mean"`` or ``"ramp"``, see :class:`Filtration`.
        normalise: ``"affine"`` or ``"batch"``, see :class:`Consensus`.
    """

    def __init__(
        self,
        directions: int,
        channels: int,
        filter_size: int = 2,
        filter_init: str = "mean",
        normalise: str = "affine",
    ) -> None:
        super().__init__()
        self.filtration: nn.Module = nn.Identity()
        if filter_size != 0:
            self.filtration = Filtration(directions, channels, filter_size, filter_init)
        full = 1.0 if filter_size != 0 and filter_init == "ramp" else float(directions)
        self.consensus = Consensus(channels, full, normalise)

    def forward(self, masks: torch.Tensor, angles: list[float], size_a: int, size_c: int) -> torch.Tensor:
        """Logits.

        Args:
            masks: B D K b W, in [0, 1].
            angles: degrees, D of them.
            size_a: voxels of axis a.
            size_c: voxels of axis c.

        Returns:
            B K A b C, float32 or as precise as the masks.
        """
        if masks.dtype == torch.float16 or masks.dtype == torch.bfloat16:
            masks = masks.float()
        if torch.jit.is_scripting():
            return self._reconstructed(masks, angles, size_a, size_c)
        else:
            kind = masks.device.type
            with torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext():
                return self._reconstructed(masks, angles, size_a, size_c)

    def _reconstructed(self, masks: torch.Tensor, angles: list[float], size_a: int, size_c: int) -> torch.Tensor:
        return self.consensus(back_project(self.filtration(masks), angles, size_a, size_c))
