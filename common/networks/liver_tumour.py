"""The three networks of Jin et al., for the place of the liver, the liver and its tumours, as one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..checks import InputError, nearest, problem
from .ra_unet import RAUNet

__all__ = ["LiverTumourRAUNet"]

STAGES = ("localiser", "liver", "tumour")


class LiverTumourRAUNet(nn.Module):
    """RA-UNet-I for the place of the liver in slices, and RA-UNet-II twice, for liver and tumours (jin2020raunet).

    The composite holds the weights of `localiser`, `liver` and `tumour`; slices, boxes, windows and thresholds are the
    inferer's. As a network it is the two 3D networks on one window: of every voxel the probabilities of background,
    liver and tumour, a tumour being in the liver.

    Deviation: `forward` is for tools that know nothing of stages. The method gives each network windows of its own, and
    cuts the probabilities off at thresholds of their own.

    Args:
        in_channels: channels of the image.
        localiser_width: the filter number of RA-UNet-I.
        width: the filter number of both RA-UNet-II.
        members: how many networks each 3D stage has, whose probabilities are averaged: the paper's ensemble has one of
            each of five folds. Above one, `liver` and `tumour` are lists of networks.
        norm: see :class:`~common.networks.ra_unet.RAUNet`.
        norm_momentum: see there.
        save_memory: see there.

    Raises:
        InputError: for arguments and image sizes that :class:`~common.networks.ra_unet.RAUNet` refuses, and for fewer
            than one member.

    >>> [name for name, _ in LiverTumourRAUNet(width=1, localiser_width=1).named_children()]
    ['localiser', 'liver', 'tumour']
    """

    __constants__ = ["ensemble"]

    def __init__(
        self,
        in_channels: int = 1,
        localiser_width: int = 4,
        width: int = 8,
        members: int = 1,
        norm: str = "batch_running",
        norm_momentum: float = 0.01,
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        if int(members) != members or members < 1:
            rule = "it must be a whole number, 1 or more"
            raise InputError(problem(f"members is {members!r}", rule, "use 1, or 5 for the ensemble of five folds"))
        self.in_channels, self.members, self.ensemble = int(in_channels), int(members), members > 1
        form = {"norm": norm, "norm_momentum": norm_momentum, "save_memory": save_memory}

        def volumes() -> nn.Module:
            networks = [RAUNet(3, in_channels, 1, width, **form) for _ in range(self.members)]
            return nn.ModuleList(networks) if self.ensemble else networks[0]

        self.localiser = RAUNet(2, in_channels, 1, localiser_width, **form)
        self.liver = volumes()
        self.tumour = volumes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities of background, liver and tumour.

        Args:
            x: image, B in_channels D H W; D, H, W multiples of 32.

        Returns:
            B 3 D H W: 1 - l, l (1 - t) and l t, where l and t are the (mean) sigmoids of the two 3D stages.
        """
        if self.ensemble:
            liver = torch.stack([network(x).sigmoid() for network in self.liver]).mean(0)
            tumour = torch.stack([network(x).sigmoid() for network in self.tumour]).mean(0)
        else:
            liver, tumour = self.liver(x).sigmoid(), self.tumour(x).sigmoid()
        both = liver * tumour
        return torch.cat([1 - liver, liver - both, both], 1)

    def child(self, name: str) -> nn.Module:
        """The network of a stage; of several members the list of them.

        Args:
            name: ``"localiser"``, ``"liver"`` or ``"tumour"``.

        Raises:
            InputError: for another name.
        """
        if name not in STAGES:
            rule = f"it must be one of {', '.join(STAGES)}"
            raise InputError(
                problem(f"there is no stage {name!r}", rule, f"use {nearest(str(name), STAGES) or 'liver'!r}")
            )
        return getattr(self, name)

    def check_trainable(self) -> None:
        """
        Raises:
            InputError: for an ensemble, which is joined and not trained.
        """
        if self.ensemble:
            came = f"liver and tumour have {self.members} members each"
            rule = "an ensemble is joined from the weights of runs on several folds, not trained"
            raise InputError(problem(came, rule, "train each fold with members=1 and join their weights"))

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for an image of `input_size` voxels (D, H, W): the same.

        Raises:
            InputError: if the networks cannot take that size; the text names the one to pad to.
        """
        network = self.liver[0] if self.ensemble else self.liver
        return network.output_size(input_size)
