"""RA-UNet of Jin et al.: a U-Net of residual blocks whose skips pass attention residual modules, in 2D or 3D."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from monai.networks.layers import Conv, Pool
from torch import nn

from ..checks import InputError, parse_flag, problem
from .ra_parts import (
    AttentionModule,
    FrozenStatistics,
    JoinBlock,
    PreActivationBlock,
    norm_layer,
    upsampled_convolution,
)
from .residual import recomputed

__all__ = ["RAUNet"]

STRIDE = 32  # five poolings by 2


class RAUNet(nn.Module):
    """RA-UNet (jin2020raunet): RA-UNet-I with ``spatial_dims=2, width=4``, RA-UNet-II with the default arguments.

    Channels are 4, 4, 8, 16, 32 and 64 times `width` from the top down to the bottom; the skips of the four inner
    levels pass attention residual modules whose soft masks are 4, 3, 2 and 1 poolings deep, so that all end on the grid
    of the bottom; the topmost skip is plain. RA-UNet-II has 4,420,849 trainable parameters (4,439,697 numbers with the
    running statistics), RA-UNet-I 737,897 (747,321), as the released code.

    Not the RAUNet of Ni et al. for cataract instruments, which has the name only.

    Reading: depths of the masks, widths, the last convolution's kernel of 3, the biases and Keras' defaults of
    normalisation (eps 0.001, momentum 0.99, here 0.01) and of initial weights (Glorot, zero biases) are those of the
    released code. Two operations are exchanged where the result stays the same: see
    :class:`~common.networks.ra_parts.JoinBlock` and :class:`~common.networks.ra_parts.AttentionModule`.
    Deviation: the result are logits; the sigmoid is the caller's.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the result.
        width: the paper's filter number f.
        norm: ``"batch_running"``, batch normalisation with running statistics at test (paper), or ``"instance"``.
        norm_momentum: share of a new batch in the running statistics; 1 - the momentum of Keras.
        save_memory: True computes features again in the backward pass instead of keeping them; same result.

    Raises:
        InputError: for other arguments; for images whose sides are no multiples of 32; and where the normalisation
            would see one value per channel at the bottom, as in training with a single patch of 32x32x32 voxels.

    >>> RAUNet(width=1).output_size((32, 64, 32))
    (32, 64, 32)
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 8,
        norm: str = "batch_running",
        norm_momentum: float = 0.01,
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        _check_arguments(spatial_dims, in_channels, out_channels, width, norm_momentum)
        self.spatial_dims, self.in_channels, self.norm = int(spatial_dims), int(in_channels), norm
        self.save_memory = parse_flag(save_memory, "save_memory")
        dims, form, conv = self.spatial_dims, (norm, float(norm_momentum)), Conv[Conv.CONV, self.spatial_dims]
        top, *inner, bottom = (factor * int(width) for factor in (4, 4, 8, 16, 32, 64))
        self.pool = Pool[Pool.MAX, dims](2)
        self.stem = nn.Sequential(conv(self.in_channels, top, 3, padding=1), norm_layer(dims, top, *form))
        self.stem.append(nn.ReLU(inplace=True))
        self.encoder = nn.ModuleList(
            PreActivationBlock(dims, above, channels, *form) for above, channels in zip([top, *inner], inner)
        )
        self.bottom = nn.Sequential(
            PreActivationBlock(dims, inner[-1], bottom, *form), PreActivationBlock(dims, bottom, bottom, *form)
        )
        # from the lowest of the four levels up
        self.attention = nn.ModuleList(
            AttentionModule(dims, channels, depth, *form) for depth, channels in enumerate(reversed(inner), 1)
        )
        self.decoder = nn.ModuleList(
            JoinBlock(dims, (below, channels, channels), *form)
            for below, channels in zip([bottom, *reversed(inner)], reversed(inner))
        )
        self.join = conv(inner[0] + top, top, 3, padding=1)
        self.join_norm = nn.Sequential(norm_layer(dims, top, *form), nn.ReLU(inplace=True))
        self.head = conv(top, int(out_channels), 3, padding=1)
        self.apply(_init_glorot)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            x: image, B in_channels D H W (H W in 2D); sides are multiples of 32.

        Returns:
            B out_channels D H W.
        """
        if not torch.jit.is_scripting():
            x = self._checked_image(x)
            if self.save_memory and torch.is_grad_enabled():
                return self._saving(x)
        first = self.stem(x)
        x = self.pool(first)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        x = self.bottom(self.pool(x))
        for attention, block in zip(self.attention, self.decoder):
            x = block(x, attention(skips.pop()))
        return self._end(x, first)

    def _saving(self, x: torch.Tensor) -> torch.Tensor:
        first = self._again(self.stem, self.stem, x)
        x, skips = first, []
        for block in [*self.encoder, self.bottom]:
            skips.append(x)
            x = self._again(block, functools.partial(self._pooled, block), x)
        for attention, block in zip(self.attention, self.decoder):
            x = self._again(block, block, x, self._again(attention, attention, skips.pop()))
        return self._again(self.join_norm, self._end, x, first)

    def _again(self, part: nn.Module, step: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """Call a step that has the normalisations of `part`, and keep its inputs only."""
        return recomputed(step, *inputs, within=functools.partial(FrozenStatistics, part))

    def _pooled(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return block(self.pool(x))

    def _end(self, x: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Logits from the highest features of the decoder and of the stem; their concatenation is never made."""
        weight, part = self.join.weight, x.shape[1]
        joined = upsampled_convolution(x, weight[:, :part], self.join.bias)
        joined.add_(self.join._conv_forward(first, weight[:, part:], None))
        return self.head(self.join_norm(joined))

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for an image of `input_size` voxels (D, H, W; H, W in 2D): the same.

        Raises:
            InputError: if the network cannot take that size; the text names the one to pad to.
        """
        size, axes = tuple(int(n) for n in input_size), "(D, H, W)" if self.spatial_dims == 3 else "(H, W)"
        if len(size) != self.spatial_dims:
            came = f"size {size} has {len(size)} axes"
            raise InputError(problem(came, f"it must be {axes}", "leave out batch and channels"))
        padded = tuple(max(-(-n // STRIDE), 1) * STRIDE for n in size)
        if size != padded:
            came = f"the input has {_times(size)} voxels"
            rule = f"its sides must be multiples of {STRIDE}, for it is pooled five times"
            raise InputError(problem(came, rule, f"pad it to {_times(padded)}"))
        if self.norm == "instance" and max(size) == STRIDE:
            came = f"the input has {_times(size)} voxels, of which one value per channel is left at the bottom"
            rule = "instance normalisation needs two or more"
            larger = _times((*size[:-1], 2 * STRIDE))
            raise InputError(problem(came, rule, f"use windows of {larger} or more, or norm='batch_running'"))
        return size

    def _checked_image(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return x  # sizes are symbols there, and an exported graph cannot raise
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            came = f"the network got a tensor of shape {tuple(x.shape)}"
            rule = f"it takes (batch, {self.in_channels}, {'D, ' if self.spatial_dims == 3 else ''}H, W)"
            raise InputError(problem(came, rule, "give the image that many channels or set in_channels"))
        size = self.output_size(x.shape[2:])
        if self.training and x.shape[0] == 1 and max(size) == STRIDE:
            came = f"one image of {_times(size)} voxels leaves one value per channel at the bottom"
            rule = "batch normalisation needs two or more to train"
            raise InputError(problem(came, rule, "train with a batch of two or more, or with larger patches"))
        return x.as_subclass(torch.Tensor)  # features have no use for metadata, which costs time at every operation


def _check_arguments(spatial_dims: int, in_channels: int, out_channels: int, width: int, momentum: float) -> None:
    if spatial_dims not in (2, 3):
        came, rule = f"spatial_dims is {spatial_dims!r}", "it must be 2 (slices) or 3 (volumes)"
        raise InputError(problem(came, rule, "use 2 for RA-UNet-I, 3 for RA-UNet-II"))
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("width", width)):
        if int(value) != value or value < 1:
            rule = "it must be a whole number, 1 or more"
            raise InputError(problem(f"{name} is {value!r}", rule, "use width=8 and one channel, as published"))
    if not 0 < momentum <= 1:
        came, rule = f"norm_momentum is {momentum!r}", "it is the share of a new batch, above 0 and at most 1"
        raise InputError(problem(came, rule, "use 0.01, as published"))


def _init_glorot(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _times(size: Sequence[int]) -> str:
    return "x".join(str(n) for n in size)
