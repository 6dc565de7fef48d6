"""Encoder and decoder of 3D RU-Net."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .residual import ResidualBlock, recomputed

__all__ = ["Decoder", "Encoder", "difference"]


class Encoder(nn.Module):
    """Global image encoder (huang2021runet): three residual blocks, pooled by (1, 2, 2), then (2, 2, 2)."""

    def __init__(self, in_channels: int, width: int, dilations: tuple[int, int, int], save_memory: bool) -> None:
        super().__init__()
        self.block1 = ResidualBlock(in_channels, width, 1, dilations[0], save_memory)
        self.pool1 = nn.MaxPool3d((1, 2, 2))
        self.block2 = ResidualBlock(width, 2 * width, 3, dilations[1], save_memory)
        self.pool2 = nn.MaxPool3d(2)
        self.block3 = ResidualBlock(2 * width, 4 * width, 3, dilations[2], save_memory)
        self.save_memory = save_memory

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """F_I, F_II and F_III of an image B C D H W."""
        if not torch.jit.is_scripting():
            if self.save_memory and torch.is_grad_enabled():
                return self._saving(x)
        # One step a line: what a step was given is let go as soon as the next one begins.
        f1 = self.block1(x)
        first = self.block2.first(self.pool1(f1))
        f2 = self.block2.finish(self.block2.middle(first), first)
        first = self.block3.first(self.pool2(f2))
        return f1, f2, self.block3.finish(self.block3.middle(first), first)

    def _saving(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Of the first block, which has most voxels and least work for each, only the image is kept.
        f1, pooled = recomputed(self._first_block, x)
        first = self.block2.first(pooled)
        f2, pooled = recomputed(self._end_of_second_block, self.block2.middle(first), first)
        first = self.block3.first(pooled)
        return f1, f2, self.block3.finish(self.block3.middle(first), first)

    def _first_block(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f1 = self.block1(x)
        return f1, self.pool1(f1)

    def _end_of_second_block(self, y: torch.Tensor, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f2 = self.block2.finish(y, first)
        return f2, self.pool2(f2)


class Decoder(nn.Module):
    """Local region decoder (huang2021runet) with a head for the region and one for its contour.

    The 1x1x1 convolution comes before the trilinear upsampling, not after: the one mixes channels, the other voxels
    with weights whose sum is one, so the order does not matter to the result, and less is computed and kept.
    """

    def __init__(self, width: int, dilations: tuple[int, int, int], save_memory: bool) -> None:
        super().__init__()
        self.conv2 = nn.Conv3d(4 * width, 2 * width, 1)
        self.up2 = nn.Upsample(scale_factor=(2.0, 2.0, 2.0), mode="trilinear")
        self.block2 = ResidualBlock(4 * width, 2 * width, 3, dilations[1], save_memory)
        self.conv1 = nn.Conv3d(2 * width, width, 1)
        self.up1 = nn.Upsample(scale_factor=(1.0, 2.0, 2.0), mode="trilinear")
        self.block1 = ResidualBlock(2 * width, width, 1, dilations[0], save_memory)
        self.region = nn.Conv3d(width, 2, 1)
        self.contour = nn.Conv3d(width, 2, 1)
        self.save_memory = save_memory

    def forward(self, f1: torch.Tensor, f2: torch.Tensor, f3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of region and contour, each B 1 and the size of `f1`."""
        if not torch.jit.is_scripting():
            if self.save_memory and torch.is_grad_enabled():
                return self._saving(f1, f2, f3)
        first = self._join2(f2, self.conv2(f3))
        low = self._end2(self.block2.middle(first), first)
        first = self._join1(f1, low)
        return self._heads(self.block1.middle(first), first)

    def _saving(self, f1: torch.Tensor, f2: torch.Tensor, f3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = recomputed(self._join2, _own(f2), self.conv2(_own(f3)))
        low = recomputed(self._end2, self.block2.middle(first), first)
        first = recomputed(self._join1, _own(f1), low)
        return recomputed(self._heads, self.block1.middle(first), first)

    def _join2(self, f2: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        return self.block2.first(f2, F.relu_(self.up2(low)))

    def _end2(self, y: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return self.conv1(self.block2.finish(y, first))

    def _join1(self, f1: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        return self.block1.first(f1, F.relu_(self.up1(low)))

    def _heads(self, y: torch.Tensor, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.block1.finish(y, first)
        if torch.jit.is_tracing():  # a traced graph can hand an optional bias to a convolution and to nothing else
            return _foreground(self.region(features)), _foreground(self.contour(features))
        weight = torch.cat([difference(self.region.weight), difference(self.contour.weight)])
        bias = torch.cat([difference(self.region.bias), difference(self.contour.bias)])
        logits = F.conv3d(features, weight, bias)
        return logits[:, :1], logits[:, 1:]


def difference(weight: torch.Tensor | None) -> torch.Tensor:
    """Foreground less background of a head of two channels; the logit of its softmax."""
    assert weight is not None  # TorchScript takes any bias for optional
    return weight[1:] - weight[:1]


def _foreground(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 1:] - logits[:, :1]


def _own(crop: torch.Tensor) -> torch.Tensor:
    """A copy of a crop, so that keeping it does not keep the features of the whole volume."""
    return crop.clone() if crop.untyped_storage().nbytes() > crop.nbytes else crop
