"""Blocks of RA-UNet: the pre-activation residual block, alone and at a join, and the attention residual module."""

from __future__ import annotations

import torch
from monai.networks.layers import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import nn
from torch.nn import functional as F

from ..checks import InputError, nearest, problem

__all__ = [
    "NORMS",
    "AttentionModule",
    "FrozenStatistics",
    "JoinBlock",
    "PreActivationBlock",
    "norm_layer",
    "upsampled",
    "upsampled_convolution",
]

NORMS = ("batch_running", "instance")
BATCH_EPS = 1e-3  # of Keras' batch normalisation


def norm_layer(spatial_dims: int, channels: int, norm: str, momentum: float) -> nn.Module:
    """A normalisation with scale and shift; see :class:`~common.networks.ra_unet.RAUNet` for the arguments."""
    if norm not in NORMS:
        rule = f"it must be one of {', '.join(NORMS)}"
        raise InputError(problem(f"norm is {norm!r}", rule, f"use norm={nearest(str(norm), NORMS) or NORMS[0]!r}"))
    spec = ("instance", {"affine": True})
    if norm == "batch_running":
        spec = ("batch", {"eps": BATCH_EPS, "momentum": float(momentum)})
    return get_norm_layer(spec, spatial_dims, channels)


def upsampled(x: torch.Tensor) -> torch.Tensor:
    """Every voxel twice along each axis (nearest neighbour), B C 2D 2H 2W."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def upsampled_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A padded convolution with a kernel of 3 on :func:`upsampled` features, which are never made.

    Taps that fall on copies of one voxel are summed first: a transposed convolution with a kernel of 4 and stride 2, of
    64 products where there would be 8 x 27.

    Args:
        x: B C D H W (or H W).
        weight: C' C 3 3 3 (or 3 3).
        bias: C', or None.

    Returns:
        B C' 2D 2H 2W.
    """
    channels, axes = weight.shape[:2], list(range(2, weight.ndim))
    taps = weight.flip(axes).flatten(0, 1).unsqueeze(1)
    if x.ndim == 5:
        kernel = (
            F.conv_transpose3d(taps, taps.new_ones(1, 1, 2, 2, 2)).squeeze(1).unflatten(0, channels).transpose(0, 1)
        )
        return F.conv_transpose3d(x, kernel, bias, stride=2, padding=1)
    kernel = F.conv_transpose2d(taps, taps.new_ones(1, 1, 2, 2)).squeeze(1).unflatten(0, channels).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


class FrozenStatistics:
    """Context in which running statistics are copies, thrown away after: what is computed again counts once.

    It may be entered many times, as by several backward passes through one graph.

    Args:
        part: its normalisations are meant.
    """

    def __init__(self, part: nn.Module) -> None:
        self.norms = [each for each in part.modules() if isinstance(each, (nn.BatchNorm2d, nn.BatchNorm3d))]
        self.before: list[dict[str, torch.Tensor]] = []

    def __enter__(self) -> None:
        self.before = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.before):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for norm, buffers in zip(self.norms, self.before):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


class PreActivationBlock(nn.Module):
    """Bottleneck of three steps norm-ReLU-convolution (kernels 1, 3, 1), added to a projection of its input.

    jin2020raunet, as released: a quarter of `out_channels` in between, always a 1x1x1 projection on the shortcut (also
    where the channels stay), no activation after the sum, every convolution with a bias.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the result, a multiple of 4.
        norm: ``"batch_running"`` or ``"instance"``.
        momentum: share of a new batch in the running statistics.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, norm: str, momentum: float) -> None:
        super().__init__()
        conv, between = Conv[Conv.CONV, spatial_dims], out_channels // 4
        self.norm1 = norm_layer(spatial_dims, in_channels, norm, momentum)
        self.conv1 = conv(in_channels, between, 1)
        self.norm2 = norm_layer(spatial_dims, between, norm, momentum)
        self.conv2 = conv(between, between, 3, padding=1)
        self.norm3 = norm_layer(spatial_dims, between, norm, momentum)
        self.conv3 = conv(between, out_channels, 1)
        self.shortcut = conv(in_channels, out_channels, 1)

    # ReLU and sums work in place: for their gradients, normalisation and convolution need their inputs alone.
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the same size.

        Args:
            x: B in_channels D H W (or H W).

        Returns:
            B out_channels D H W.
        """
        return self._end(self.conv1(F.relu_(self.norm1(x)))).add_(self.shortcut(x))

    def _end(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2(F.relu_(self.norm2(x)))
        return self.conv3(F.relu_(self.norm3(x)))


class JoinBlock(PreActivationBlock):
    """The block on [upsampled, same level] (jin2020raunet), without making that concatenation or the upsampled part.

    Normalisation, ReLU and 1x1x1 convolutions do not mix voxels, and repeated voxels have the mean and variance of the
    voxels themselves: all of these come before the upsampling, on an eighth of the voxels, with the result (rounding
    apart) of the block on the concatenation. Parameters and statistics are those of that block.

    Args:
        spatial_dims: 2 or 3.
        channels: (from the level below, of this level, out).
        norm: see :class:`PreActivationBlock`.
        momentum: see :class:`PreActivationBlock`.
    """

    __constants__ = ["batch"]

    def __init__(self, spatial_dims: int, channels: tuple[int, int, int], norm: str, momentum: float) -> None:
        below, same, out = channels
        super().__init__(spatial_dims, below + same, out, norm, momentum)
        self.copies = 2**spatial_dims
        self.batch, self.eps, self.momentum = norm == "batch_running", float(self.norm1.eps), float(momentum)

    def forward(self, low: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Features of the level of `x`.

        Args:
            low: of the level below, B C d h w.
            x: of this level, B C' 2d 2h 2w.

        Returns:
            B out_channels 2d 2h 2w.
        """
        return self._end(self._first(low, x)).add_(self._shortcut(low, x))

    def _first(self, low: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        weight, part = self.conv1.weight, low.shape[1]
        small = F.relu_(self._norm(low, 0, self.copies))
        first = upsampled(self.conv1._conv_forward(small, weight[:, :part], self.conv1.bias))
        return first.add_(self.conv1._conv_forward(F.relu_(self._norm(x, part, 1)), weight[:, part:], None))

    def _shortcut(self, low: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        weight, part = self.shortcut.weight, low.shape[1]
        short = upsampled(self.shortcut._conv_forward(low, weight[:, :part], self.shortcut.bias))
        return short.add_(self.shortcut._conv_forward(x, weight[:, part:], None))

    def _norm(self, x: torch.Tensor, start: int, copies: int) -> torch.Tensor:
        """Normalise the channels from `start` on, of which each voxel stands for `copies`."""
        norm, end = self.norm1, start + x.shape[1]
        weight, bias = norm.weight[start:end], norm.bias[start:end]
        if not self.batch:
            return F.instance_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        mean, var, counted = norm.running_mean, norm.running_var, norm.num_batches_tracked
        assert mean is not None and var is not None and counted is not None
        mean, var = mean[start:end], var[start:end]
        if not self.training:
            return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        kept = var * (1.0 - self.momentum)
        # copies: the backward pass must find what it was given
        own_mean, own_var = mean.clone(), var.clone()
        result = F.batch_norm(x, own_mean, own_var, weight, bias, True, self.momentum, self.eps)
        # The running variance is that of a sample: divided by n - 1, where n counts the copies.
        size = x.numel() // x.shape[1]
        mean.copy_(own_mean)
        var.copy_((own_var - kept) * (copies * (size - 1) / (copies * size - 1)) + kept)
        if start == 0:
            counted.add_(1)
        return result


class AttentionModule(nn.Module):
    """Attention residual module (jin2020raunet): a trunk, and a soft mask that strengthens it, (1 + S) * T.

    x1 = block(x); T = two blocks of x1; S = an encoder and decoder of `depth` poolings on x1, two 1x1x1 convolutions,
    sigmoid; the result is block((1 + S) * T). 6 + 3 (depth - 1) blocks of equal channels.

    The mask's last upsampling comes after its 1x1x1 convolutions and the sigmoid, which do not mix voxels: the same S
    from an eighth of the work.

    Args:
        spatial_dims: 2 or 3.
        channels: of input and result.
        depth: poolings of the soft mask, 1 or more.
        norm: see :class:`PreActivationBlock`.
        momentum: see :class:`PreActivationBlock`.
    """

    def __init__(self, spatial_dims: int, channels: int, depth: int, norm: str, momentum: float) -> None:
        super().__init__()

        def block() -> PreActivationBlock:
            return PreActivationBlock(spatial_dims, channels, channels, norm, momentum)

        conv = Conv[Conv.CONV, spatial_dims]
        self.first = block()
        self.trunk = nn.Sequential(block(), block())
        self.pool = Pool[Pool.MAX, spatial_dims](2)
        self.down = nn.ModuleList(block() for _ in range(depth))
        self.skip = nn.ModuleList(block() for _ in range(depth - 1))
        self.up = nn.ModuleList(block() for _ in range(depth))
        self.mask = nn.Sequential(conv(channels, channels, 1), conv(channels, channels, 1), nn.Sigmoid())
        self.last = block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the same size.

        Args:
            x: B channels D H W (or H W); sides are multiples of 2 ** depth.

        Returns:
            B channels D H W.
        """
        x = self.first(x)
        factor = self.soft_mask(x).add(1.0)
        x = self.trunk(x)
        return self.last(x * upsampled(factor))

    def soft_mask(self, x: torch.Tensor) -> torch.Tensor:
        """S before its last upsampling, B channels D/2 H/2 W/2, between 0 and 1, from x1."""
        skips: list[torch.Tensor] = []
        for down in self.down:
            x = down(self.pool(x))
            skips.append(x)
        skips.pop()
        for level, skip in enumerate(self.skip):
            skips[level] = skip(skips[level])
        for up in self.up:
            x = up(x)
            if len(skips) > 0:
                x = upsampled(x).add_(skips.pop())
        return self.mask(x)
