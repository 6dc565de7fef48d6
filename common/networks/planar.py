"""The 3D U-Net's rival in 2D: the same network, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..checks import InputError, problem
from .doubling_unet import DoublingUNet, times
from .random25d import check_count

__all__ = ["PlanarUNet"]


class PlanarUNet(nn.Module):
    """The 2D equivalent of :class:`~common.networks.unet3d.UNet3D`, on every slice by itself (cicek2016unet3d, sec. 4).

    Levels, widths, doubling, biases and normalisation are those of the 3D network; kernels are 3x3, pooling and
    up-convolutions 2x2. Unpadded, 132x132xn voxels give 44x44xn across axis 2: nothing is lost along `axis`, and
    `stride`, here one number per axis, is 1 there. With the default widths, ``norm=None``, three channels and three
    classes it has 6,817,091 parameters.

    Reading: the paper says no more of its 2D rival than that it is equivalent. Here all slices across one axis are
    read, by default the xy-slices in the microscope's focal plane, where voxels are finest; slices annotated across
    another axis teach it, and are scored, along the lines in which they cut the slices that it reads. ``"batch"`` is
    the current statistics of a batch of one slice, as the paper's batch is one volume, in training and at test: so no
    slice knows of another, whatever tile it comes in. It is computed as the instance normalisation that it is.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        widths: channels of the first convolution per level, from the top; the last is the bottom level.
        norm: ``"batch"``, ``"batch_running"`` (statistics of all slices of the batch in training), ``"instance"``,
            ``"group"`` or None.
        padded: True keeps the size of any input.
        axis: spatial axis (0, 1 or 2) across which the slices lie; 2 takes the xy-slices of X Y Z.
        conv_bias: see :class:`~common.networks.unet3d.UNet3D`.
        up_bias: whether the up-convolutions have a bias.
        up_norm: normalisation and ReLU after each up-convolution.
        num_groups: groups of ``norm="group"``.
        slices_at_once: slices that pass together at test, for memory; no result depends on it.

    Raises:
        InputError: for arguments or image sizes that break these rules; for a size it names the nearest valid one.

    >>> PlanarUNet(widths=(2, 4, 8, 16)).output_size((132, 132, 7))
    (44, 44, 7)
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256),
        norm: str | None = "batch",
        padded: bool = False,
        axis: int = 2,
        conv_bias: str | None = None,
        up_bias: bool = False,
        up_norm: bool = False,
        num_groups: int = 8,
        slices_at_once: int = 16,
    ) -> None:
        super().__init__()
        if axis not in (0, 1, 2):
            came, rule = f"axis is {axis!r}", "slices lie across one of the axes 0, 1 and 2 of the volume"
            raise InputError(problem(came, rule, "use axis=2 for the xy-slices of X Y Z"))
        self.in_channels = in_channels
        self.axis = int(axis)
        self.slices_at_once = check_count("slices_at_once", slices_at_once)
        self.unet = DoublingUNet(
            2,
            in_channels,
            out_channels,
            widths,
            "instance" if norm == "batch" else norm,
            padded,
            conv_bias,
            up_bias,
            up_norm,
            num_groups,
        )
        self.stride = tuple(1 if across == self.axis else self.unet.stride for across in range(3))
        self.to(memory_format=torch.channels_last)  # what convolutions of many channels like best; features follow it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of every class.

        Args:
            x: image, B in_channels D H W; D, H, W valid for `output_size`.

        Returns:
            logits, B out_channels and `output_size` of (D, H, W).
        """
        together = self.training  # gradients need the features of all slices: pieces would save no memory
        if not torch.jit.is_scripting():
            x = self._checked(x)
            # a recorded loop would hold the number of slices fast
            together = together or torch.jit.is_tracing() or torch.compiler.is_compiling()
        stack = x.movedim(self.axis + 2, 1)
        slices = stack.flatten(0, 1)
        if together:
            logits = self.unet(slices)
        else:
            logits = torch.cat([self.unet(some) for some in slices.split(self.slices_at_once)])
        return logits.unflatten(0, [stack.shape[0], stack.shape[1]]).movedim(1, self.axis + 2)

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for an image of `input_size` voxels (D, H, W).

        Raises:
            InputError: if the network cannot take that size; the text names the nearest one that it can.
        """
        size = _three(input_size)
        valid = self.nearest_size(size)
        if size != valid:
            came = f"the input has {times(size)} voxels, read as slices of {times(self._plane(size))} across axis"
            came, rule = f"{came} {self.axis}", self.unet.size_rule()
            raise InputError(problem(came, f"in a slice {rule}", f"use the nearest valid size, {times(valid)}"))
        return self._volume(self.unet.output_size(self._plane(size)), size[self.axis])

    def nearest_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """The valid input size (D, H, W) nearest to `input_size`; the larger one of two equally near.

        >>> PlanarUNet(widths=(2, 4, 8, 16)).nearest_size((128, 130, 20))
        (132, 132, 20)
        """
        size = _three(input_size)
        return self._volume(self.unet.nearest_size(self._plane(size)), max(size[self.axis], 1))

    def _plane(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n for across, n in enumerate(size) if across != self.axis)

    def _volume(self, plane: tuple[int, ...], slices: int) -> tuple[int, ...]:
        return (*plane[: self.axis], slices, *plane[self.axis :])

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return x  # sizes are symbols there, and an exported graph cannot raise
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            came = f"the network got a tensor of shape {tuple(x.shape)}"
            rule = f"it takes (batch, {self.in_channels}, D, H, W)"
            raise InputError(problem(came, rule, "give the image that many channels or set in_channels"))
        self.output_size(x.shape[2:])
        return x.as_subclass(torch.Tensor)  # features have no use for metadata, which costs time at every operation


def _three(size: Sequence[int]) -> tuple[int, ...]:
    if len(size) != 3:
        came = f"size {tuple(size)} has {len(size)} axes"
        raise InputError(problem(came, "it must be (D, H, W)", "leave out batch and channels"))
    return tuple(int(n) for n in size)
