"""What a network that decodes regions of interest gives: for its loss to read, for its inferer to write."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..geometry.boxes import Box

__all__ = ["RoIPrediction"]


class RoIPrediction(NamedTuple):
    """The heat map of a batch and what was decoded in its regions of interest (huang2021runet).

    `boxes`, `regions` and `contours` are equally long, one entry a region; none where no region was decoded.

    Args:
        heat: logits of the locator for each cell, B 1 d h w with sizes rounded up; None where the locator did not run.
        boxes: item of the batch, and the region in voxels of the input, which it does not leave.
        regions: logits of the foreground, 1 1 d h w of the box's size each.
        contours: logits of the foreground's inner contour, alike.
    """

    heat: torch.Tensor | None
    boxes: list[tuple[int, Box]]
    regions: list[torch.Tensor]
    contours: list[torch.Tensor]
