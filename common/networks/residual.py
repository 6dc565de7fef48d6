"""The residual block of 3D RU-Net, and how it is computed where memory counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = ["ResidualBlock", "recomputed", "without_gradients"]

# Values of a feature map that are worked on at once where no gradient is wanted: 16 MiB, which a cache can hold. A GPU
# is given four times as many, so that it is the work that takes its time, not the start of kernels.
SLAB = 2**22


class ResidualBlock(nn.Module):
    """Three convolutions with instance normalisation; the raw result of the first is added before the last ReLU.

    huang2021runet, as released: conv-norm-ReLU, conv-norm-ReLU, conv-norm, plus the first convolution's own result (not
    the block's input), ReLU. Padded with zeros, so that the size stays; dilation acts in the plane only. The
    normalisation has no parameters and always takes the statistics of what it is given.

    The steps `first`, `middle` and `finish` make up `forward`; a network that calls them one by one lets go of what it
    no longer needs in between. Without gradients they work slab by slab along D, and in place: no more than two feature
    maps are there at a time, and no blocked copies of them inside the convolutions. (Hooks of convolutions and
    normalisation are not called then.)

    Args:
        in_channels: channels of the input; with a second input, of both together.
        out_channels: channels of the result and in between.
        depth: size of the kernels along D, 1 or 3; in the plane it is 3.
        dilation: of the kernels in the plane.
        save_memory: True normalises again in the backward pass instead of keeping what the convolutions were given.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, dilation: int = 1, save_memory: bool = False
    ) -> None:
        super().__init__()

        def conv(channels: int) -> nn.Conv3d:
            padding = (depth // 2, dilation, dilation)
            return nn.Conv3d(channels, out_channels, (depth, 3, 3), padding=padding, dilation=(1, dilation, dilation))

        self.conv1, self.conv2, self.conv3 = conv(in_channels), conv(out_channels), conv(out_channels)
        self.norm = nn.InstanceNorm3d(out_channels)
        self.save_memory = save_memory

    def forward(self, x: torch.Tensor, below: torch.Tensor | None = None) -> torch.Tensor:
        """Features of the same size.

        Args:
            x: B C D H W.
            below: more channels of the same input, B C' D H W; the concatenation of the two is never made.

        Returns:
            B out_channels D H W.
        """
        first = self.first(x, below)
        return self.finish(self.middle(first), first)

    def first(self, x: torch.Tensor, below: torch.Tensor | None = None) -> torch.Tensor:
        """Raw result of the first convolution; arguments as `forward`."""
        if not torch.jit.is_scripting():
            if without_gradients():
                return _convolve(self.conv1, [x] if below is None else [x, below])
        conv = self.conv1
        if below is None:
            return conv(x)
        weight, part = conv.weight, x.shape[1]
        first = F.conv3d(x, weight[:, :part], conv.bias, 1, conv.padding, conv.dilation)
        return first.add_(F.conv3d(below, weight[:, part:], None, 1, conv.padding, conv.dilation))

    def middle(self, first: torch.Tensor) -> torch.Tensor:
        """Raw result of the third convolution from that of the first."""
        if not torch.jit.is_scripting():
            if without_gradients():
                y = _convolve(self.conv2, [first], moments(first, self.norm.eps))
                return _convolve(self.conv3, [y], moments(y, self.norm.eps), y)
            if self.save_memory:
                return recomputed(self._third, recomputed(self._second, first))
        return self._third(self._second(first))

    def finish(self, y: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Features from the raw results of the third and the first convolution; without gradients, in place of `y`."""
        if not torch.jit.is_scripting():
            if without_gradients():
                return _finish(y, first, moments(y, self.norm.eps))
        return F.relu_(self.norm(y).add_(first))

    # In place: for its gradient the normalisation needs its input, not its result.
    def _second(self, first: torch.Tensor) -> torch.Tensor:
        return self.conv2(F.relu_(self.norm(first)))

    def _third(self, second: torch.Tensor) -> torch.Tensor:
        return self.conv3(F.relu_(self.norm(second)))


def recomputed(
    function: Callable[..., Any],
    *inputs: torch.Tensor,
    within: Callable[[], AbstractContextManager] = nullcontext,
) -> Any:
    """Call `function` and keep its inputs only; the backward pass computes again what it needs, and nothing after that.

    Where a compiler reads the network, it is the compiler that decides what is kept.

    Args:
        function: what is called.
        inputs: its arguments.
        within: makes a context for the second computation, such as one that leaves running statistics alone.
    """
    if _compiling():
        return function(*inputs)
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), within()),
    )


def without_gradients() -> bool:
    """Whether features may be overwritten: no gradient is wanted, and Python itself runs the network."""
    return not torch.is_grad_enabled() and not _compiling()


def _compiling() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _slabs(x: torch.Tensor, channels: int) -> Iterator[slice]:
    """Slices along D of about `SLAB` values, where `x` has or gets `channels`."""
    items, _, depth, *plane = x.shape
    step = max((SLAB if x.device.type == "cpu" else 4 * SLAB) // max(items * channels * math.prod(plane), 1), 1)
    return (slice(start, min(start + step, depth)) for start in range(0, depth, step))


def moments(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / standard deviation of every channel of every item, B C 1 1 1, at least in float32.

    Squares are summed around the mean of each slab and then put together (Chan et al.), so that a mean far from zero
    costs no digits.
    """
    dtype, axes = torch.promote_types(x.dtype, torch.float32), (2, 3, 4)
    mean = squares = torch.zeros((), dtype=dtype, device=x.device)
    count = 0
    for slab in _slabs(x, x.shape[1]):
        part = x[:, :, slab].to(dtype)
        size = part[0, 0].numel()
        own = part.mean(axes, keepdim=True)
        step = own - mean
        squares = (
            squares + (part - own).square_().sum(axes, keepdim=True) + step.square() * (count * size / (count + size))
        )
        mean = mean + step * (size / (count + size))
        count += size
    return mean, (squares / count + eps).rsqrt()


def _convolve(
    conv: nn.Conv3d,
    parts: Sequence[torch.Tensor],
    norm: tuple[torch.Tensor, torch.Tensor] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolve slab by slab; with `norm` after normalisation and ReLU.

    Args:
        conv: the convolution, padded as those of :class:`ResidualBlock`.
        parts: its input B C D H W, in one or more parts along C.
        norm: mean and 1 / standard deviation of the input.
        out: where the result goes, B C' D H W; it may be the input itself. None makes a new one.
    """
    depth, halo = parts[0].shape[2], conv.kernel_size[0] // 2
    edge: torch.Tensor | None = None
    for slab in _slabs(parts[0], max(conv.in_channels, conv.out_channels)):
        end = min(slab.stop + halo, depth)
        window = torch.cat([part[:, :, slab.start : end] for part in parts], 1)
        if norm is not None:
            window = F.relu_((window - norm[0]).mul_(norm[1])).to(conv.weight.dtype)
        if halo:
            # The slice below the slab may have been overwritten: it was kept. Outside the volume there are zeros.
            before = torch.zeros_like(window[:, :, :1]) if edge is None else edge
            after = [torch.zeros_like(window[:, :, :1])] if end < slab.stop + halo else []
            edge = window[:, :, slab.stop - slab.start - 1 : slab.stop - slab.start].clone()
            window = torch.cat([before, window, *after], 2)
        result = _planar(conv, window)
        if out is None:
            out = result.new_empty(result.shape[0], result.shape[1], depth, *result.shape[3:])
        out[:, :, slab] = result
    return out


def _planar(conv: nn.Conv3d, window: torch.Tensor) -> torch.Tensor:
    """Convolve a window that brings its own slices before and after."""
    _, *padding = conv.padding
    _, *dilation = conv.dilation
    if conv.kernel_size[0] > 1:
        return F.conv3d(window, conv.weight, conv.bias, 1, (0, *padding), (1, *dilation))
    planes = window.transpose(1, 2).flatten(0, 1)  # slices in the batch: a few slices take a slow kernel in 3D
    result = F.conv2d(planes, conv.weight[:, :, 0], conv.bias, 1, padding, dilation)
    return result.unflatten(0, (window.shape[0], window.shape[2])).transpose(1, 2)


def _finish(y: torch.Tensor, first: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    for slab in _slabs(y, y.shape[1]):
        part = (y[:, :, slab] - norm[0]).mul_(norm[1]).add_(first[:, :, slab])
        y[:, :, slab] = F.relu_(part)
    return y
