"""The 3D U-Net of Cicek et al., unpadded as published or padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..checks import parse_flag
from .doubling_unet import DoublingUNet

__all__ = ["UNet3D"]


class UNet3D(DoublingUNet):
    """3D U-Net (cicek2016unet3d, fig. 2): channels are doubled before each pooling, up-convolutions keep theirs.

    A level of width w convolves to w, then to 2w, then pools by 2; the synthesis path mirrors it with 2w and 2w.
    With the default widths, ``norm=None``, three channels in and three classes there are the paper's 19,069,955
    parameters, and a tile of 132x132x116 voxels gives 44x44x28. roth2017hierarchical is the same network with
    ``conv_bias="first"`` and ``up_norm=True`` (19,072,712 parameters with one channel and eight classes).

    Unpadded, each side of the input loses `halo` voxels: 44 at four levels, the paper's receptive field of
    88 = 132 - 44 voxels. Two tiles agree with the untiled result to rounding where their starts differ by a multiple of
    `stride` voxels (the pooling grid, 8 at four levels) and the normalisation does not depend on the tile (None, or
    ``"batch_running"`` at test).

    Reading: the paper normalises with the current statistics also at test (``norm="batch"``); its parameter count
    belongs to the network without normalisation. Whether up-convolutions were normalised is open: its figure shows
    them plain (the default here). Convolutions have a bias where no normalisation follows that would cancel it.
    Weights start as from Caffe's MSRA filler. A batch of several tiles shares its statistics; the paper's batch is one.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        widths: channels of the first convolution per level, from the top; the last is the bottom level.
        norm: ``"batch"`` (current statistics always), ``"batch_running"``, ``"instance"``, ``"group"`` or None.
        padded: True pads every convolution with zeros and keeps the size of any input: odd sizes are rounded up by
            pooling and cut back after the up-convolution.
        conv_bias: which 3x3x3 convolutions have a bias: ``"all"``, ``"first"`` (only the very first), ``"none"``; None
            means ``"all"`` without norm and ``"none"`` with it. The last, 1x1x1 convolution always has one.
        up_bias: whether the up-convolutions have a bias.
        up_norm: normalisation and ReLU after each up-convolution (roth2017hierarchical).
        num_groups: groups of ``norm="group"``.
        deep_supervision: how many levels of the synthesis path below the top have a score of their own (a 1x1x1
            convolution), for the loss to reach them directly; only padded, at most the levels less 2. None of the
            published networks has them; they belong to the ``modern`` recipes.
        channels_last: keep weights in torch's layout ``channels_last_3d``, which features follow: narrow networks take
            less time by it on a processor. Results differ by rounding.

    Raises:
        InputError: for arguments or image sizes that break these rules; for a size it names the nearest valid one.

    >>> UNet3D(widths=(2, 4, 8, 16)).output_size((132, 132, 116))
    (44, 44, 28)
    """

    def __init__(
        self,
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
        channels_last: bool = False,
    ) -> None:
        super().__init__(
            3,
            in_channels,
            out_channels,
            widths,
            norm,
            padded,
            conv_bias,
            up_bias,
            up_norm,
            num_groups,
            deep_supervision,
        )
        if parse_flag(channels_last, "channels_last"):
            self.to(memory_format=torch.channels_last_3d)
