"""The answers of an ensemble in regions of interest, as maps of the whole volume."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..geometry.boxes import Box, crop

__all__ = ["EnsembleMaps", "PastedRegions"]


class PastedRegions:
    """Probabilities of regions, put in their place in a volume and averaged where regions overlap.

    Args:
        size: D H W of the volume.
        device: where the maps live.
        heads: how many maps.
    """

    def __init__(self, size: Sequence[int], device: torch.device, heads: int) -> None:
        self.sums = torch.zeros((heads, *size), device=device)
        self.regions = torch.zeros(tuple(size), dtype=torch.int32, device=device)

    def add(self, box: Box, logits: Sequence[torch.Tensor]) -> None:
        """Add a region: its box in voxels, and logits 1 1 d h w of each head, which may reach beyond the box."""
        part = (0, 0, *(slice(length) for length in box.size))
        for total, head in zip(self.sums, logits):
            crop(total, box).add_(head[part].float().sigmoid())
        crop(self.regions, box).add_(1)

    def mean(self) -> list[torch.Tensor]:
        """For each head D H W, 0 where no region was."""
        return list(self.sums.div_(self.regions.clamp_(min=1)))


class EnsembleMaps:
    """The channels of a result, written member by member: mean, variance, contour, regions, the members themselves.

    Args:
        result: C D H W of zeros, written in place.
        names: what the channels after the first hold, see :class:`~common.inferers.roi.RoIInferer`.
        members: how many there are.
    """

    def __init__(self, result: torch.Tensor, names: Sequence[str], members: int) -> None:
        self.members, self.added = members, 0
        self.maps, start = {"mean": result[0]}, 1
        for name in names:
            self.maps[name] = result[start : start + members] if name == "members" else result[start]
            start += members if name == "members" else 1

    def add(self, found: Sequence[torch.Tensor]) -> None:
        """Add the maps of the next member, D H W each: of the region and, where wanted, of the contour."""
        region, mean = found[0], self.maps["mean"]
        if "members" in self.maps:
            self.maps["members"][self.added].copy_(region)
        self.added += 1
        # Welford's update: no member is kept, and no small difference of large sums is taken
        change = region - mean
        mean.add_(change, alpha=1 / self.added)
        if "uncertainty" in self.maps:
            self.maps["uncertainty"].addcmul_(change, region - mean)
        if "contour" in self.maps:
            self.maps["contour"].add_(found[1])

    def finish(self, inside: torch.Tensor) -> None:
        """Complete the maps, once all members are in.

        Args:
            inside: D H W, where a region of any member lies.
        """
        for name in ("uncertainty", "contour"):
            if name in self.maps:
                self.maps[name].div_(self.members)
        if "probability" in self.maps:
            self.maps["probability"].copy_(self.maps["mean"])
        if "rois" in self.maps:
            self.maps["rois"].copy_(inside)
