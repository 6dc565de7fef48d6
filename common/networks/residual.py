"""The residual block of 3D RU-Net."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ResidualBlock"]


class ResidualBlock(nn.Module):
    """Three convolutions with instance normalisation; the raw result of the first is added before the last ReLU.

    huang2021runet, as released: conv-norm-ReLU, conv-norm-ReLU, conv-norm, plus the first convolution's own
    result (not the block's input), ReLU. Padded with zeros, so that the size stays; dilation acts in the plane only.
    The normalisation has no parameters and always takes the statistics of what it is given.

    Args:
        in_channels: channels of the input; with a second input, of both together.
        out_channels: channels of the result and in between.
        depth: size of the kernels along D, 1 or 3; in the plane it is 3.
        dilation: of the kernels in the plane.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, dilation: int = 1) -> None:
        super().__init__()

        def conv(channels: int) -> nn.Conv3d:
            padding = (depth // 2, dilation, dilation)
            return nn.Conv3d(channels, out_channels, (depth, 3, 3), padding=padding, dilation=(1, dilation, dilation))

        self.conv1, self.conv2, self.conv3 = conv(in_channels), conv(out_channels), conv(out_channels)
        self.norm = nn.InstanceNorm3d(out_channels)

    def forward(self, x: torch.Tensor, below: torch.Tensor | None = None) -> torch.Tensor:
        """Features of the same size.

        Args:
            x: B C D H W.
            below: more channels of the same input, B C' D H W; the concatenation of the two is never made.

        Returns:
            B out_channels D H W.
        """
        first = self._first(x, below)
        y = self.conv2(self._active(first))
        y = self.conv3(self._active(y))
        return F.relu_(self.norm(y).add_(first))

    def _first(self, x: torch.Tensor, below: torch.Tensor | None) -> torch.Tensor:
        conv = self.conv1
        if below is None:
            return conv(x)
        weight, part = conv.weight, x.shape[1]
        first = F.conv3d(x, weight[:, :part], conv.bias, 1, conv.padding, conv.dilation)
        return first.add_(F.conv3d(below, weight[:, part:], None, 1, conv.padding, conv.dilation))

    def _active(self, y: torch.Tensor) -> torch.Tensor:
        # In place: for its gradient the normalisation needs its input, not its result.
        return F.relu_(self.norm(y))
