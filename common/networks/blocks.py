"""Convolution blocks that several networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import ADN, Convolution
from monai.networks.layers import Conv
from torch import nn

from ..checks import InputError, nearest, problem

__all__ = ["NORMS", "DoubleConv", "UpDoubleConv", "checked_widths", "init_msra", "norm_spec"]

NORMS = ("batch", "batch_running", "instance", "group", None)


def norm_spec(norm: str | None, channels: int, num_groups: int = 8) -> tuple[str, dict] | None:
    """MONAI's normalisation tuple for one of our norm names.

    Args:
        norm: ``"batch"`` = batch normalisation with the statistics of the current batch, in training and at test alike;
            ``"batch_running"`` = with running statistics at test; ``"instance"``; ``"group"``; None = no normalisation.
            All of them learn a scale and a shift per channel.
        channels: channels to be normalised.
        num_groups: groups of ``"group"``; must divide `channels`.

    Raises:
        InputError: for another name, or channels that `num_groups` does not divide.

    >>> norm_spec("batch", 32)
    ('batch', {'track_running_stats': False})
    """
    if norm not in NORMS:
        guess = nearest(str(norm), [n for n in NORMS if n])
        known = ", ".join(str(n) for n in NORMS)
        raise InputError(problem(f"norm is {norm!r}", f"it must be one of {known}", f"use norm={guess or 'batch'!r}"))
    if norm is None:
        return None
    if norm == "batch":
        return "batch", {"track_running_stats": False}
    if norm == "batch_running":
        return "batch", {}
    if norm == "instance":
        return "instance", {"affine": True}
    if num_groups < 1 or channels % num_groups:
        came = f"num_groups is {num_groups} at a layer of {channels} channels"
        raise InputError(problem(came, "it must divide the channels of every layer", "choose a divisor of all widths"))
    return "group", {"num_groups": num_groups}


def checked_widths(in_channels: int, out_channels: int, widths: Sequence[int], usual: tuple[int, ...]) -> list[int]:
    """The widths of a network's levels as whole numbers.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the result.
        widths: channels per level.
        usual: the widths that the error text names.

    Raises:
        InputError: where one of the numbers is no count.
    """
    if in_channels < 1 or out_channels < 1:
        came = f"in_channels is {in_channels} and out_channels is {out_channels}"
        raise InputError(problem(came, "both must be 1 or more", "count the channels of the image and the classes"))
    if len(widths) == 0 or any(int(w) != w or w < 1 for w in widths):
        rule = "it must list a whole number of channels per level"
        raise InputError(problem(f"widths is {widths!r}", rule, f"use {usual}"))
    return [int(w) for w in widths]


def _convolution(
    dims: int, in_channels: int, out_channels: int, norm: str | None, num_groups: int, bias: bool, padded: bool
) -> Convolution:
    # ReLU works in place: for its gradient the normalisation needs its input, not its output; one tensor less is kept.
    return Convolution(
        dims,
        in_channels,
        out_channels,
        kernel_size=3,
        padding=1 if padded else 0,
        norm=norm_spec(norm, out_channels, num_groups),
        act=("relu", {"inplace": True}),
        bias=bias,
    )


class DoubleConv(nn.Sequential):
    """Two 3x3x3 convolutions, each followed by normalisation and ReLU (cicek2016unet3d, sec. 2).

    Args:
        channels: (in, between, out).
        norm: see :func:`norm_spec`.
        num_groups: groups of ``norm="group"``.
        bias: (of the first convolution, of the second).
        padded: True keeps the size; False loses 4 voxels per axis.
        spatial_dims: 3, or 2 for 3x3 convolutions of slices and projections.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        norm: str | None = "batch",
        num_groups: int = 8,
        bias: tuple[bool, bool] = (False, False),
        padded: bool = False,
        spatial_dims: int = 3,
    ) -> None:
        super().__init__(
            _convolution(spatial_dims, channels[0], channels[1], norm, num_groups, bias[0], padded),
            _convolution(spatial_dims, channels[1], channels[2], norm, num_groups, bias[1], padded),
        )


class UpDoubleConv(nn.Module):
    """Up-convolution (2x2x2, channels kept), concatenation with the analysis path, and two 3x3x3 convolutions.

    The up-convolution of cicek2016unet3d (fig. 2) is plain; roth2017hierarchical normalises it and applies ReLU
    (`up_norm`), as the released Caffe definition does.

    The concatenation [analysis, upsampled] is never made: the first convolution takes each part with its share of the
    weights and adds the results, so that the largest tensor of a level is neither copied nor kept for the gradient.

    Args:
        channels: (from the level below, of the analysis path, out).
        norm: see :func:`norm_spec`.
        num_groups: groups of ``norm="group"``.
        bias: whether the two 3x3x3 convolutions have one.
        up_bias: whether the up-convolution has one.
        up_norm: normalisation and ReLU after the up-convolution.
        padded: True keeps the size; False loses 4 voxels per axis.
        spatial_dims: 3 or 2.
        up_kernel: side of the up-convolution's kernel, 2 or 3.
        up_channels: channels that the up-convolution gives; None keeps them.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        norm: str | None = "batch",
        num_groups: int = 8,
        bias: bool = False,
        up_bias: bool = False,
        up_norm: bool = False,
        padded: bool = False,
        spatial_dims: int = 3,
        up_kernel: int = 2,
        up_channels: int | None = None,
    ) -> None:
        super().__init__()
        below, skip, out = channels
        risen = up_channels or below
        relu = ("relu", {"inplace": True})
        self.up = Convolution(
            spatial_dims,
            below,
            risen,
            strides=2,
            kernel_size=up_kernel,
            padding=(up_kernel - 1) // 2,
            output_padding=up_kernel % 2,
            is_transposed=True,
            norm=norm_spec(norm, risen, num_groups) if up_norm else None,
            act=relu if up_norm else None,
            bias=up_bias,
        )
        convolution = Conv[Conv.CONV, spatial_dims]
        self.join = convolution(skip + risen, out, kernel_size=3, padding=1 if padded else 0, bias=bias)
        normalisation = norm_spec(norm, out, num_groups)
        self.join_adn = ADN("NA", in_channels=out, norm=normalisation, norm_dim=spatial_dims, act=relu)
        self.conv = _convolution(spatial_dims, out, out, norm, num_groups, bias, padded)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Go up one level.

        Along an axis where `skip` is longer than the upsampled features (unpadded convolutions) its centre is taken;
        where it is shorter (pooling rounded an odd size up) the end of the upsampled features is cut.

        Args:
            x: features of the level below, B C d h w.
            skip: features of this level's analysis path, B S D H W.

        Returns:
            B out, with D H W (padded) or 2d-4 2h-4 2w-4.
        """
        x = self.up(x)
        for axis in range(2, x.ndim):
            # A cut that cuts nothing would still cost a copy of the gradient.
            if skip.shape[axis] < x.shape[axis]:
                x = x.narrow(axis, 0, skip.shape[axis])
            elif skip.shape[axis] > x.shape[axis]:
                skip = skip.narrow(axis, (skip.shape[axis] - x.shape[axis]) // 2, x.shape[axis])
        weight, part = self.join.weight, skip.shape[1]
        joined = self.join._conv_forward(skip, weight[:, :part], self.join.bias)
        joined = joined.add_(self.join._conv_forward(x, weight[:, part:], None))
        return self.conv(self.join_adn(joined))


def init_msra(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan-in and zero biases, as Caffe's MSRA filler; for ``network.apply``.

    roth2017hierarchical uses it for all layers, up-convolutions included; there the fan-in counts the output channels
    times the kernel, as in Caffe.
    """
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
