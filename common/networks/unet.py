"""The plain padded U-Net, in 2D and 3D, that the projection networks and their rivals are built of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from monai.networks.layers import Conv, Pool
from torch import nn
from torch.nn import functional as F

from ..checks import InputError, parse_flag, problem
from .blocks import DoubleConv, UpDoubleConv, checked_widths, init_msra
from .ra_parts import FrozenStatistics
from .residual import recomputed

__all__ = ["UNet", "UNet2D"]


class UNet(nn.Module):
    """U-Net of padded 3-kernel convolutions, two a level, as the rivals of angermann2019random25d (section 3).

    A level of width w convolves to w twice; pooling by 2 leads down, a transposed convolution of kernel 3 and stride 2
    with w channels up again, where two convolutions follow on [analysis, upsampled]. The default is the paper's 3D
    U-Net with 1,618,489 parameters; :class:`UNet2D` has 8,629,921.

    Reading: the paper names "4 downsamplings", "128 channels deepest" and rounded parameter counts; these widths with
    kernels of 3 also in the transposed convolutions, biases everywhere and no normalisation meet both counts. Weights
    start as from Caffe's MSRA filler, so that features keep their scale without normalisation.

    Sizes that the poolings do not divide are padded with zeros at the end of the axis, and the result is cut back.
    With a normalisation the convolutions before it have no bias, which it would take away again.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the result.
        widths: channels per level, from the top; the last is the bottom level.
        norm: ``"batch"``, ``"batch_running"``, ``"instance"``, ``"group"`` (eight groups) or None (paper).
        save_memory: True computes the features of each level again in the backward pass instead of keeping them; same
            result.

    Raises:
        InputError: for other arguments; and for images of which a normalisation would see one value per channel at
            the bottom.

    >>> UNet(widths=(2, 4)).output_size((5, 6, 7))
    (5, 6, 7)
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: Sequence[int] = (8, 16, 32, 64, 128),
        norm: str | None = None,
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            came, rule = f"spatial_dims is {spatial_dims!r}", "it must be 2 (images) or 3 (volumes)"
            raise InputError(problem(came, rule, "use 2 or 3"))
        usual = (8, 16, 32, 64, 128) if spatial_dims == 3 else (32, 64, 128, 256, 512)
        widths = checked_widths(in_channels, out_channels, widths, usual)
        self.spatial_dims, self.in_channels = int(spatial_dims), int(in_channels)
        self.save_memory = parse_flag(save_memory, "save_memory")
        self.stride = 2 ** (len(widths) - 1)
        self._needs_statistics = norm in ("batch", "batch_running", "instance")
        bias = norm is None
        self.analysis = nn.ModuleList(
            DoubleConv((above, width, width), norm, bias=(bias, bias), padded=True, spatial_dims=self.spatial_dims)
            for above, width in zip([self.in_channels, *widths], widths)
        )
        self.pool = Pool[Pool.MAX, self.spatial_dims](2)
        self.synthesis = nn.ModuleList(
            UpDoubleConv(
                (below, width, width),
                norm,
                bias=bias,
                up_bias=True,
                padded=True,
                spatial_dims=self.spatial_dims,
                up_kernel=3,
                up_channels=width,
            )
            for below, width in zip(reversed(widths[1:]), reversed(widths[:-1]))
        )
        self.score = Conv[Conv.CONV, self.spatial_dims](widths[0], int(out_channels), 1)
        self.apply(init_msra)
        if self.spatial_dims == 2:  # the layout that convolutions of many channels like best; features follow it
            self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            x: image, B in_channels D H W (H W in 2D).

        Returns:
            B out_channels D H W.
        """
        if not torch.jit.is_scripting():
            x = self._checked_image(x)
            if self.save_memory and torch.is_grad_enabled():
                return self._cut(self._saving(self._padded(x)), x.shape)
        size = x.shape
        x = self._padded(x)
        skips: list[torch.Tensor] = []
        for level, convs in enumerate(self.analysis):
            if level > 0:
                x = self.pool(x)
            x = convs(x)
            skips.append(x)
        skips.pop()
        for level_up in self.synthesis:
            x = level_up(x, skips.pop())
        return self._cut(self.score(x), size)

    def _saving(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, convs in enumerate(self.analysis):
            skips.append(x)
            x = self._again(convs, convs if level == 0 else functools.partial(self._pooled, convs), x)
        skips = [*skips[1:], x]
        x = skips.pop()
        for level_up in self.synthesis[:-1]:
            x = self._again(level_up, level_up, x, skips.pop())
        if not len(self.synthesis):
            return self.score(x)
        return self._again(self.synthesis[-1], self._end, x, skips.pop())

    def _again(self, part: nn.Module, step: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """Call a step that has the normalisations of `part`, and keep its inputs only."""
        return recomputed(step, *inputs, within=functools.partial(FrozenStatistics, part))

    def _pooled(self, convs: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return convs(self.pool(x))

    def _end(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.score(self.synthesis[-1](x, skip))

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for axis in range(x.ndim - 1, 1, -1):
            pads += [0, (self.stride - x.shape[axis] % self.stride) % self.stride]
        return F.pad(x, pads) if sum(pads) > 0 else x

    def _cut(self, x: torch.Tensor, size: list[int]) -> torch.Tensor:
        for axis in range(2, x.ndim):
            # A cut that cuts nothing would still cost a copy of the gradient.
            if x.shape[axis] != size[axis]:
                x = x.narrow(axis, 0, size[axis])
        return x

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for an image of `input_size` (D, H, W; H, W in 2D): the same.

        Raises:
            InputError: if a normalisation cannot take that size; the text names one that it can.
        """
        size, axes = tuple(int(n) for n in input_size), "(D, H, W)" if self.spatial_dims == 3 else "(H, W)"
        if len(size) != self.spatial_dims:
            came = f"size {size} has {len(size)} axes"
            raise InputError(problem(came, f"it must be {axes}", "leave out batch and channels"))
        if self._needs_statistics and max(size) <= self.stride:
            came = f"the input has {_times(size)} voxels, of which one value per channel is left at the bottom"
            larger = _times((*size[:-1], self.stride + 1))
            raise InputError(
                problem(came, "the normalisation needs two or more", f"use {larger} or more, or norm=None")
            )
        return size

    def _checked_image(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return x  # sizes are symbols there, and an exported graph cannot raise
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            came = f"the network got a tensor of shape {tuple(x.shape)}"
            rule = f"it takes (batch, {self.in_channels}, {'D, ' if self.spatial_dims == 3 else ''}H, W)"
            raise InputError(problem(came, rule, "give the image that many channels or set in_channels"))
        self.output_size(x.shape[2:])
        return x.as_subclass(torch.Tensor)  # features have no use for metadata, which costs time at every operation


class UNet2D(UNet):
    """The 2D U-Net of angermann2019random25d (section 3) with 8,629,921 parameters; see :class:`UNet`.

    Reading: "exactly the same as" the drawing of Ronneberger et al. would have about 31 million; half its widths with
    transposed convolutions of kernel 3 meet the paper's count.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the result.
        widths: channels per level, from the top; the last is the bottom level.
        norm: as of :class:`UNet`.
        save_memory: as of :class:`UNet`.

    >>> sum(parameter.numel() for parameter in UNet2D().parameters())
    8629921
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        norm: str | None = None,
        save_memory: bool = False,
    ) -> None:
        super().__init__(2, in_channels, out_channels, widths, norm, save_memory)


def _times(size: Sequence[int]) -> str:
    return "x".join(str(n) for n in size)
