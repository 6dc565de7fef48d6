"""The U-Net whose channels are doubled before each pooling, in 3D and in 2D, unpadded or padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv, Pool
from torch import nn

from ..checks import InputError, parse_flag, problem
from .blocks import DoubleConv, UpDoubleConv, checked_widths, init_msra

__all__ = ["DoublingUNet", "times"]

CONV_BIASES = ("all", "first", "none", None)


class DoublingUNet(nn.Module):
    """U-Net of one form in 2D and 3D: channels are doubled before each pooling, up-convolutions keep theirs.

    :class:`~common.networks.unet3d.UNet3D` is it for volumes (cicek2016unet3d), and says what each argument means;
    :class:`~common.networks.planar.PlanarUNet` applies it to the slices of a volume.

    Args:
        spatial_dims: 2 (3x3 convolutions) or 3.
        in_channels, out_channels, widths, norm, padded, conv_bias, up_bias, up_norm, num_groups, deep_supervision: see
            :class:`~common.networks.unet3d.UNet3D`.

    Raises:
        InputError: for arguments or image sizes that break these rules; for a size it names the nearest valid one.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 3,
        out_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256),
        norm: str | None = "batch",
        padded: bool = False,
        conv_bias: str | None = None,
        up_bias: bool = False,
        up_norm: bool = False,
        num_groups: int = 8,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__()
        padded = parse_flag(padded, "padded")
        widths = _checked(in_channels, out_channels, widths, norm, conv_bias, up_norm)
        deep_supervision = _checked_heads(deep_supervision, len(widths), padded)
        if conv_bias is None:
            conv_bias = "none" if norm else "all"
        every = conv_bias == "all"
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.padded = padded
        self.stride = 2 ** (len(widths) - 1)
        self.halo = 0 if padded else 6 * self.stride - 4
        # Statistics of a single number are undefined: at the bottom level one voxel is not enough for these.
        self._needs_statistics = norm in ("batch", "batch_running", "instance")

        self.analysis = nn.ModuleList()
        channels = in_channels
        for level, width in enumerate(widths):
            bias = (every or (conv_bias == "first" and level == 0), every)
            self.analysis.append(DoubleConv((channels, width, 2 * width), norm, num_groups, bias, padded, spatial_dims))
            channels = 2 * width
        self.pool = Pool[Pool.MAX, spatial_dims](2, ceil_mode=padded)
        self.synthesis = nn.ModuleList()
        for width in reversed(widths[:-1]):
            joined = (channels, 2 * width, 2 * width)
            self.synthesis.append(UpDoubleConv(joined, norm, num_groups, every, up_bias, up_norm, padded, spatial_dims))
            channels = 2 * width
        convolution = Conv[Conv.CONV, spatial_dims]
        self.score = convolution(channels, out_channels, kernel_size=1)
        self.deep_supervision = deep_supervision
        self.deep_scores = nn.ModuleList(
            convolution(2 * width, out_channels, kernel_size=1) for width in widths[1 : deep_supervision + 1]
        )
        self.apply(init_msra)

    # TorchScript infers the type of the result: one tensor, which an annotation of both kinds would hide from it.
    def forward(self, x: torch.Tensor):
        """Logits of every class.

        Args:
            x: image, B in_channels D H W (H W in 2D) of sizes valid for `output_size`.

        Returns:
            logits, B out_channels and `output_size` of these sizes. In training mode with `deep_supervision`: a list of
            them, at full size, half, a quarter and so on (odd sizes are rounded up), as MONAI's
            ``DeepSupervisionLoss`` takes it. A scripted network always returns the one tensor.
        """
        if not torch.jit.is_scripting():
            self._check(x)
        skips: list[torch.Tensor] = []
        for level, convs in enumerate(self.analysis):
            if level > 0:
                x = self.pool(x)
            x = convs(x)
            skips.append(x)
        skips.pop()
        deeper: list[torch.Tensor] = []
        for level_up in self.synthesis:
            if self.training and self.deep_supervision > 0:  # elsewhere the features of lower levels are let go
                deeper.append(x)
            x = level_up(x, skips.pop())
        logits = self.score(x)
        if torch.jit.is_scripting():
            return logits
        else:
            return self._with_deeper(logits, deeper)

    def _with_deeper(self, logits: torch.Tensor, deeper: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        if not (self.training and self.deep_supervision):
            return logits
        return [logits, *(score(x) for score, x in zip(self.deep_scores, reversed(deeper)))]

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for an image of `input_size` voxels (D, H, W; H, W in 2D).

        Raises:
            InputError: if the network cannot take that size; the text names the nearest one that it can.
        """
        size = self._checked_axes(input_size)
        valid = self.nearest_size(size)
        if size == valid:
            return tuple(n - 2 * self.halo for n in size)
        came = f"the input has {times(size)} voxels"
        raise InputError(problem(came, self.size_rule(), f"use the nearest valid size, {times(valid)}"))

    def size_rule(self) -> str:
        """What a valid input size is, for the text of an error."""
        if self.padded:
            rule = "the normalisation needs more than one voxel at the bottom level, "
            return rule + f"so one axis must exceed {self.stride} voxels"
        rule = f"each axis of an unpadded {len(self.analysis)}-level network must be {self._smallest()}"
        return rule + (f" + a multiple of {self.stride}" if self.stride > 1 else " or more")

    def nearest_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """The valid input size nearest to `input_size`; the larger one of two equally near.

        >>> DoublingUNet(widths=(2, 4, 8, 16)).nearest_size((128, 130, 20))
        (132, 132, 92)
        """
        size = self._checked_axes(input_size)
        if not self.padded:
            start = self._smallest()
            return tuple(start + max(0, (n - start + self.stride // 2) // self.stride) * self.stride for n in size)
        size = tuple(max(n, 1) for n in size)
        if self._needs_statistics and max(size) <= self.stride:
            longest = size.index(max(size))
            size = tuple(self.stride + 1 if axis == longest else n for axis, n in enumerate(size))
        return size

    def _checked_axes(self, size: Sequence[int]) -> tuple[int, ...]:
        if len(size) != self.spatial_dims:
            came = f"size {tuple(size)} has {len(size)} axes"
            raise InputError(problem(came, f"it must be ({_axes(self.spatial_dims)})", "leave out batch and channels"))
        return tuple(int(n) for n in size)

    def _smallest(self) -> int:
        # The result is 4 voxels (or 4 modulo `stride`) plus a multiple of `stride`, and must be enough for statistics.
        result = max(3 % self.stride + 1, 1 + int(self._needs_statistics))
        return 2 * self.halo + result

    def _check(self, x: torch.Tensor) -> None:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return  # sizes are symbols there, and an exported graph cannot raise
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            came = f"the network got a tensor of shape {tuple(x.shape)}"
            rule = f"it takes (batch, {self.in_channels}, {_axes(self.spatial_dims)})"
            raise InputError(problem(came, rule, "give the image that many channels or set in_channels"))
        self.output_size(x.shape[2:])


def _checked(
    in_channels: int, out_channels: int, widths: Sequence[int], norm: str | None, conv_bias: str | None, up_norm: bool
) -> list[int]:
    widths = checked_widths(in_channels, out_channels, widths, (32, 64, 128, 256))
    if conv_bias not in CONV_BIASES:
        known = ", ".join(str(b) for b in CONV_BIASES)
        raise InputError(problem(f"conv_bias is {conv_bias!r}", f"it must be one of {known}", "leave it out"))
    if up_norm and norm is None:
        raise InputError(
            problem(
                "up_norm is true with norm None", "it needs a kind of normalisation", "set norm or leave up_norm out"
            )
        )
    return widths


def _checked_heads(count: int, levels: int, padded: bool) -> int:
    if count and not padded:
        came = f"deep_supervision is {count} in an unpadded network"
        rule = "its lower levels do not cover the region of the result"
        raise InputError(problem(came, rule, "set padded to true, or deep_supervision to 0"))
    most = max(levels - 2, 0)
    if int(count) != count or not 0 <= count <= most:
        came = f"deep_supervision is {count} in a network of {levels} levels"
        rule = f"it counts the levels between the top and the bottom, 0 to {most}"
        raise InputError(problem(came, rule, f"use {most} or less, or add a level to widths"))
    return int(count)


def _axes(spatial_dims: int) -> str:
    return "D, H, W" if spatial_dims == 3 else "H, W"


def times(size: Sequence[int]) -> str:
    """A size as texts show it.

    >>> times((132, 132, 116))
    '132x132x116'
    """
    return "x".join(str(n) for n in size)
