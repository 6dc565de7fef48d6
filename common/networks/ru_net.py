"""3D RU-Net of Huang et al.: the whole volume is encoded once, and decoded in its regions of interest only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..checks import InputError, nearest, parse_flag, problem
from .blocks import init_msra
from .ru_parts import Decoder, Encoder, difference

__all__ = ["DILATIONS", "RUNet", "RUNetEnsemble"]

# in the plane: of F_I, F_II and F_III (huang2021runet); the decoder repeats those of F_II and F_I
DILATIONS = {"RF64": (1, 1, 1), "RF88": (1, 1, 2), "RF112": (1, 2, 2)}
LOCATORS = {"sigmoid": 1, "softmax": 2}
CELL = (2, 4, 4)


class RUNet(nn.Module):
    """3D RU-Net (huang2021runet): encoder and RoI locator see the whole volume, the decoder one region at a time.

    `encode`, `locate` and `decode` are its steps; boxes are cut by :func:`~common.geometry.rois.pyramid_crop`, and the
    order of the steps is the inferer's. As a network (`forward`) it decodes the whole volume as one region: a 3D U-Net
    with the same encoder.

    With the default arguments it has 4,255,589 parameters (softmax locator: 4,255,782), and a voxel of the result
    depends on 26x64x64 (RF64), 26x88x88 (RF88) or 26x112x112 (RF112) voxels, as published.

    Reading: the published receptive fields are those of upsampling that repeats voxels, averaged over the places in a
    cell; trilinear weights reach 2x6x6 voxels further. Kernels are dilated in the plane only, and the first pooling is
    (1, 2, 2), as released: no other order gives 26 along D.
    Deviation: heads of two channels return the difference of their logits, whose sigmoid is the softmax probability.

    Args:
        variant: ``"RF64"``, ``"RF88"`` or ``"RF112"``: the receptive field in the plane, by dilation.
        in_channels: channels of the image.
        width: channels of F_I; F_II has twice, F_III four times as many.
        locator: ``"sigmoid"``, one channel (paper), or ``"softmax"``, two (as released).
        save_memory: True computes features again in the backward pass instead of keeping them; same result.

    Raises:
        InputError: for other arguments, and for images whose size is no multiple of `cell`.

    >>> RUNet(width=2).output_size((4, 16, 16))
    (4, 16, 16)
    """

    cell = CELL

    def __init__(
        self,
        variant: str = "RF88",
        in_channels: int = 1,
        width: int = 48,
        locator: str = "sigmoid",
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        dilations = DILATIONS[_checked(variant, in_channels, width, locator)]
        self.variant, self.in_channels = variant, int(in_channels)
        self.save_memory = parse_flag(save_memory, "save_memory")
        width = int(width)
        self.encoder = Encoder(self.in_channels, width, dilations, self.save_memory)
        self.locator = nn.Conv3d(4 * width, LOCATORS[locator], 1)
        self.decoder = Decoder(width, dilations, self.save_memory)
        self.apply(init_msra)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probability of the region, with the whole volume as one RoI.

        Args:
            x: image, B in_channels D H W; D, H, W multiples of `cell`.

        Returns:
            B 1 D H W.
        """
        f1, f2, f3 = self.encode(x)
        return self.decode(f1, f2, f3)[0].sigmoid()

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features of the whole volume.

        Args:
            x: image, B in_channels D H W; D, H, W multiples of `cell`.

        Returns:
            F_I, B width D H W; F_II, B 2*width D H/2 W/2; F_III, B 4*width D/2 H/4 W/4.

        Raises:
            InputError: for another shape; the text names the nearest size to pad to.
        """
        if not torch.jit.is_scripting():
            x = self._checked_image(x)
        return self.encoder(x)

    @torch.jit.export
    def locate(self, f3: torch.Tensor) -> torch.Tensor:
        """Logits of the heat map.

        Args:
            f3: F_III, B 4*width d h w.

        Returns:
            B 1 d h w.
        """
        if self.locator.out_channels == 1:
            return self.locator(f3)
        return F.conv3d(f3, difference(self.locator.weight), difference(self.locator.bias))

    @torch.jit.export
    def decode(self, f1: torch.Tensor, f2: torch.Tensor, f3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of region and contour from the features of one RoI.

        Args:
            f1: crop of F_I, B width 2d 4h 4w.
            f2: crop of F_II, B 2*width 2d 2h 2w.
            f3: crop of F_III, B 4*width d h w.

        Returns:
            logits of the region and of its contour, each B 1 2d 4h 4w.

        Raises:
            InputError: where the crops are not of one box.
        """
        if not torch.jit.is_scripting():
            _check_crops(f1, f2, f3)
        return self.decoder(f1, f2, f3)

    def locator_parameters(self) -> list[nn.Parameter]:
        """Parameters of encoder and locator, which are trained first (huang2021runet)."""
        return [*self.encoder.parameters(), *self.locator.parameters()]

    def output_size(self, input_size: Sequence[int]) -> tuple[int, int, int]:
        """Size of the result for an image of `input_size` voxels (D, H, W): the same.

        Raises:
            InputError: if the network cannot take that size; the text names the one to pad to.
        """
        if len(input_size) != 3:
            came = f"size {tuple(input_size)} has {len(input_size)} axes"
            raise InputError(problem(came, "it must be (D, H, W)", "leave out batch and channels"))
        size = tuple(int(n) for n in input_size)
        padded = [max(-(-n // step), 1) * step for n, step in zip(size, CELL)]
        if padded == list(CELL):
            padded[2] *= 2  # instance normalisation needs more than one value
        if size != tuple(padded):
            came = f"the input has {_times(size)} voxels"
            rule = f"its sides must be multiples of {_times(CELL)}, and it must be larger than that"
            raise InputError(problem(came, rule, f"pad it to {_times(padded)}"))
        return size

    def _checked_image(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return x  # sizes are symbols there, and an exported graph cannot raise
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            came = f"the network got a tensor of shape {tuple(x.shape)}"
            rule = f"it takes (batch, {self.in_channels}, D, H, W)"
            raise InputError(problem(came, rule, "give the image that many channels or set in_channels"))
        self.output_size(x.shape[2:])
        return x.as_subclass(torch.Tensor)  # features have no use for metadata, which costs time at every operation


class RUNetEnsemble(nn.Module):
    """RU-Nets of several receptive fields, whose probabilities are averaged (huang2021runet).

    Args:
        variants: one member each.
        in_channels: see :class:`RUNet`.
        width: see :class:`RUNet`.
        locator: see :class:`RUNet`.
        save_memory: see :class:`RUNet`.

    Raises:
        InputError: for arguments and image sizes that :class:`RUNet` refuses, and for a list of no or equal variants.

    >>> list(RUNetEnsemble(width=2).members)
    ['RF64', 'RF88', 'RF112']
    """

    cell = CELL

    def __init__(
        self,
        variants: Sequence[str] = ("RF64", "RF88", "RF112"),
        in_channels: int = 1,
        width: int = 48,
        locator: str = "sigmoid",
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        listed = isinstance(variants, (list, tuple)) and all(isinstance(variant, str) for variant in variants)
        if not listed or len(variants) == 0 or len(set(variants)) < len(variants):
            rule = "it must list one or more different variants"
            raise InputError(problem(f"variants is {variants!r}", rule, f"use {list(DILATIONS)}"))
        self.in_channels = int(in_channels)
        self.members = nn.ModuleDict(
            {variant: RUNet(variant, in_channels, width, locator, save_memory) for variant in variants}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of the members' probabilities of the region, each with the whole volume as one RoI.

        Args:
            x: image, B in_channels D H W; D, H, W multiples of `cell`.

        Returns:
            B 1 D H W.
        """
        results = [member(x) for member in self.members.values()]
        return torch.stack(results).mean(0)

    def locator_parameters(self) -> list[nn.Parameter]:
        """Parameters of all encoders and locators."""
        return [parameter for member in self.members.values() for parameter in member.locator_parameters()]

    def output_size(self, input_size: Sequence[int]) -> tuple[int, int, int]:
        """Size of the result for an image of `input_size` voxels (D, H, W): the same; errors as :class:`RUNet`'s."""
        return next(iter(self.members.values())).output_size(input_size)


def _checked(variant: str, in_channels: int, width: int, locator: str) -> str:
    for name, value, known in (("variant", variant, DILATIONS), ("locator", locator, LOCATORS)):
        if value not in known:
            guess = nearest(str(value), known) or next(iter(known))
            rule = f"it must be one of {', '.join(known)}"
            raise InputError(problem(f"{name} is {value!r}", rule, f"use {name}={guess!r}"))
    for name, value in (("in_channels", in_channels), ("width", width)):
        if int(value) != value or value < 1:
            rule = "it must be a whole number, 1 or more"
            raise InputError(problem(f"{name} is {value!r}", rule, "use width=48 and one channel, as published"))
    return variant


def _check_crops(f1: torch.Tensor, f2: torch.Tensor, f3: torch.Tensor) -> None:
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return
    d, h, w = f3.shape[2:]
    if f1.shape[2:] != (2 * d, 4 * h, 4 * w) or f2.shape[2:] != (2 * d, 2 * h, 2 * w):
        came = f"the crops of F_I, F_II and F_III have {', '.join(_times(f.shape[2:]) for f in (f1, f2, f3))} voxels"
        rule = "for d h w of F_III they must have 2d 4h 4w and 2d 2h 2w"
        raise InputError(problem(came, rule, "crop the three by one box of F_III, scaled"))


def _times(size: Sequence[int]) -> str:
    return "x".join(str(n) for n in size)
