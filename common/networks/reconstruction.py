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
# Logits at the start run from -SHIFT, no direction says yes, to GAIN - SHIFT, all do. They are 0 where seven of ten do:
# half of them meet in the shadows between vessels, too.
GAIN, SHIFT = 20.0, 14.0


class Filtration(nn.Module):
    """F of angermann2019random25d (section 2): a filter of its own for every direction and class.

    Filters run along the detector's axis, across the rotation axis, where the shadows lie that back-projection leaves.
    Without bias: it would add a constant per direction to the sum over directions, which the shift of T holds already.

    Reading: the paper leaves open where an even filter is padded. Here the result stays centred: it has one bin more
    than the masks for an even filter, and two more for an odd one. Beyond the detector its outermost bin goes on.

    Args:
        directions: D.
        channels: classes K.
        size: taps; 0 leaves the masks as they are, with one bin more on either side.
        init: ``"mean"``, taps of 1 / size, or ``"ramp"``, the filter of filtered back-projection.
    """

    def __init__(self, directions: int, channels: int, size: int, init: str = "mean") -> None:
        super().__init__()
        if init not in FILTER_INITS:
            rule, guess = f"it must be one of {', '.join(FILTER_INITS)}", nearest(str(init), FILTER_INITS)
            raise InputError(problem(f"filter_init is {init!r}", rule, f"use filter_init={guess or 'mean'!r}"))
        if not isinstance(size, int | float) or int(size) != size or size < 0:
            rule = "it must be a whole number of detector bins, 0 for no filtration"
            raise InputError(problem(f"filter_size is {size!r}", rule, "use 2, as published"))
        if init == "ramp" and size > 0 and size % 2 == 0:
            came, rule = f"filter_size is {size} and filter_init is 'ramp'", "a ramp filter has an odd number of taps"
            raise InputError(problem(came, rule, f"use filter_size={int(size) + 1}, or filter_init='mean'"))
        self.size = int(size)
        self.border = max((self.size + 1) // 2, 1)
        if self.size > 0:
            scale = math.pi / directions  # of filtered back-projection over half a turn
            taps = torch.full((self.size,), 1 / self.size) if init == "mean" else ramp_filter(self.size) * scale
            self.weight = nn.Parameter(taps.repeat(directions, channels, 1))

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """Filtered masks.

        Args:
            masks: B D K b W.

        Returns:
            B D K b W+1 for an even filter, W+2 for an odd one or none.
        """
        rows = F.pad(masks.flatten(1, 3), [self.border, self.border], "replicate")
        rows = rows.unflatten(1, masks.shape[1:4])
        if hasattr(self, "weight"):  # in words that TorchScript decides on when it compiles
            weight = self.weight.flatten(0, 1)[:, None, None]
            filtered = F.conv2d(rows.flatten(1, 2), weight, groups=weight.shape[0])
            return filtered.unflatten(1, masks.shape[1:3])
        else:
            return rows


class Consensus(nn.Module):
    """T of angermann2019random25d (section 2) before its sigmoid: average pooling, then a learnable normalisation.

    Reading: the paper pools by 2x2x2 and keeps the size, without a word on where. One-sided windows would move every
    vessel by half a voxel along each axis, where thin vessels are two voxels wide; so what is pooled are the values at
    the eight corners of a voxel. ``"affine"`` is a scale and a shift per class, at the start such that logits run from
    -14 (no direction says yes) to 6 (all do); ``"batch"`` is batch normalisation.

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
        """Logits of voxels.

        Args:
            x: back-projection at their corners, B K A+1 b+1 C+1.

        Returns:
            B K A b C.
        """
        # Sums of neighbours, axis by axis: nothing is kept for the gradient, and any order of axes in memory will do.
        for axis in range(2, 5):
            x = _neighbours(x, axis)
        return self.norm(x.mul_(0.125))


def _neighbours(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Sums of every two neighbours along an axis, one fewer than there were."""
    count = x.shape[axis] - 1
    return x.narrow(axis, 0, count) + x.narrow(axis, 1, count)


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
        masks = self.filtration(masks)
        rows = torch.cat([masks[..., :1, :], masks, masks[..., -1:, :]], 3)
        rows = _neighbours(rows, 3).mul_(0.5)  # between the rows, where the corners of the voxels are
        return self.consensus(back_project(rows, angles, size_a + 1, size_c + 1))
