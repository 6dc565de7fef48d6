"""The two 3D U-Nets of Roth et al., one after the other, as one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .unet3d import UNet3D

__all__ = ["CascadedUNet3D"]


class CascadedUNet3D(nn.Module):
    """Two 3D U-Nets of the same form, for the body and for the candidate region in it (roth2017hierarchical, sec. 2).

    `stage1` sees the whole body; what it finds, dilated, is the region that `stage2` labels. The composite holds their
    weights; regions, windows of grey values and tiles are the inferer's. As a network it is `stage2`, so that tools
    which know nothing of stages run the one that gives the result.

    With the default arguments each stage has 19,072,712 parameters ("over 19 million" in the paper), a tile of
    132x132x116 voxels gives 44x44x28, and two tiles of one volume may be compared where their starts differ by a
    multiple of `stride` voxels. See :class:`~common.networks.unet3d.UNet3D` for details and errors.

    Reading: up-convolutions are normalised and the first convolution alone has a bias, as in the released definition;
    the paper's figure shows neither. Without norm every convolution has a bias.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        widths: channels of the first convolution per level, from the top.
        norm: ``"batch"`` (current statistics always, as published), ``"batch_running"``, ``"instance"``, ``"group"``
            or None.
        padded: True keeps the size of any input.
        deep_supervision: how many lower levels of each stage have a score of their own in training; only padded.
        channels_last: keep weights in torch's layout ``channels_last_3d``.

    >>> CascadedUNet3D(widths=(2, 4, 8, 16)).output_size((132, 132, 116))
    (44, 44, 28)
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 8,
        widths: Sequence[int] = (32, 64, 128, 256),
        norm: str | None = "batch",
        padded: bool = False,
        deep_supervision: int = 0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        arguments = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "widths": widths,
            "norm": norm,
            "padded": padded,
            "conv_bias": "all" if norm is None else "first",
            "up_norm": norm is not None,
            "deep_supervision": deep_supervision,
            "channels_last": channels_last,
        }
        self.stage1 = UNet3D(**arguments)
        self.stage2 = UNet3D(**arguments)
        self.in_channels, self.padded = in_channels, self.stage2.padded
        self.stride, self.halo = self.stage2.stride, self.stage2.halo

    # no annotation of the result: see UNet3D.forward
    def forward(self, x: torch.Tensor):
        """What `stage2` returns.

        Args:
            x: image with the grey values of stage 2, B in_channels D H W.

        Returns:
            logits, B out_channels and `output_size` of (D, H, W); a list in training mode with `deep_supervision`.
        """
        return self.stage2(x)

    def start_stage2(self) -> None:
        """Copy the weights of stage 1 into stage 2 (roth2017hierarchical, sec. 3: stage 2 is fine-tuned from stage 1).

        In place: an optimizer that was built over the parameters of stage 2 keeps them.
        """
        self.stage2.load_state_dict(self.stage1.state_dict())

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result of either stage for an image of `input_size` voxels (D, H, W).

        Raises:
            InputError: if the networks cannot take that size; the text names the nearest one that they can.
        """
        return self.stage2.output_size(input_size)

    def nearest_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """The valid input size (D, H, W) nearest to `input_size`."""
        return self.stage2.nearest_size(input_size)
