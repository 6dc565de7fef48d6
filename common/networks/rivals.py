"""What a 2.5D network is compared with: a 2D U-Net slice by slice, and a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..checks import InputError, parse_flag, problem
from .random25d import check_count, check_norm
from .residual import recomputed
from .unet import UNet2D

__all__ = ["IntensityThreshold", "SliceUNet"]


class SliceUNet(nn.Module):
    """The 2D U-Net applied to every slice across axis a, a rival in angermann2019random25d (section 3).

    Args:
        in_channels: channels of the image.
        out_channels: foreground classes K.
        widths: of :class:`~common.networks.unet.UNet2D`.
        norm: ``"instance"``, ``"group"`` or None (paper).
        slices_at_once: slices that pass the network together.
        save_memory: True keeps no features for the backward pass but computes them again, for `slices_at_once` slices
            at a time; same result.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        norm: str | None = None,
        slices_at_once: int = 8,
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        check_norm(norm)
        self.in_channels = int(in_channels)
        self.slices_at_once = check_count("slices_at_once", slices_at_once)
        self.save_memory = parse_flag(save_memory, "save_memory")
        self.unet = UNet2D(in_channels, out_channels, widths, norm)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            image: B in_channels A b C.

        Returns:
            B out_channels A b C.
        """
        if not torch.jit.is_scripting():
            image = _checked_image(self, image, self.in_channels)
        slices = image.transpose(1, 2).flatten(0, 1)
        logits: list[torch.Tensor] = []
        for start in range(0, slices.shape[0], self.slices_at_once):
            some = slices[start : start + self.slices_at_once]
            if torch.jit.is_scripting():
                logits.append(self.unet(some))
            else:
                saving = self.save_memory and torch.is_grad_enabled()
                logits.append(recomputed(self.unet, some) if saving else self.unet(some))
        return torch.cat(logits).unflatten(0, [image.shape[0], image.shape[2]]).transpose(1, 2)

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for a volume of `input_size` voxels (A, b, C): the same.

        Raises:
            InputError: if a normalisation cannot take slices of that size.
        """
        size = _three(input_size)
        self.unet.output_size(size[1:])
        return size


class IntensityThreshold(nn.Module):
    """A threshold per class on the intensity, the least that a segmentation can do: slope * (x - threshold).

    Args:
        in_channels: channels of the image; x is their sum.
        out_channels: foreground classes K.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1) -> None:
        super().__init__()
        self.in_channels = check_count("in_channels", in_channels)
        channels = check_count("out_channels", out_channels)
        self.threshold = nn.Parameter(torch.full((channels,), 0.5 * self.in_channels))
        self.slope = nn.Parameter(torch.full((channels,), 10.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            image: B in_channels A b C, scaled to [0, 1].

        Returns:
            B out_channels A b C.
        """
        if not torch.jit.is_scripting():
            image = _checked_image(self, image, self.in_channels)
        x = image.sum(1, keepdim=True)
        return (x - self.threshold[:, None, None, None]) * self.slope[:, None, None, None]

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for a volume of `input_size` voxels (A, b, C): the same."""
        return _three(input_size)


def _checked_image(network: nn.Module, image: torch.Tensor, channels: int) -> torch.Tensor:
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return image  # sizes are symbols there, and an exported graph cannot raise
    if image.ndim != 5 or image.shape[1] != channels:
        came = f"the network got a tensor of shape {tuple(image.shape)}"
        rule = f"it takes (batch, {channels}, A, b, C)"
        raise InputError(problem(came, rule, "give the image that many channels or set in_channels"))
    network.output_size(image.shape[2:])
    return image.as_subclass(torch.Tensor)


def _three(size: Sequence[int]) -> tuple[int, ...]:
    if len(size) != 3:
        came = f"size {tuple(size)} has {len(size)} axes"
        raise InputError(problem(came, "it must be (A, b, C)", "leave out batch and channels"))
    return tuple(int(n) for n in size)
