"""Regions of interest in training: what a network's own locator finds, joined by the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer

from ..checks import InputError, problem
from ..geometry.boxes import Box
from ..geometry.rois import (
    STRIDES,
    check_locator,
    clipped_box,
    locate_rois,
    pad_to_cells,
    pooled_label,
    pyramid_crops,
    scaled_box,
)
from ..networks.rois import RoIPrediction
from .roi import plain_volumes, require_choice

__all__ = ["RoITrainingInferer"]

_CHOICES = {"rois": ("located", "whole", "none"), "ground_truth": ("missing", "always", "never")}


class RoITrainingInferer(Inferer):
    """Heat map and decoded regions of one network, for its loss (huang2021runet).

    Regions come from the network's own heat map, as at inference; gradients run through the features, not through the
    choice of boxes. The box of the ground truth is that of the label max-pooled to cells, found and enlarged as if it
    were a heat map. Sizes that are not whole numbers of cells are padded; regions are cut back to the volume.

    Deviation: where the heat map shows no region the released code decodes one cell in the corner; here the ground
    truth steps in, so that the decoder learns from the start.

    Args:
        rois: "located"; "whole": the whole volume is the one region and the locator is not asked; "none": the locator
            alone, nothing is decoded.
        threshold: see :func:`~common.geometry.rois.locate_rois`.
        normalise_heat: scale every heat map to 0 .. 1 by its own extremes, as in the released code.
        margin: cells added around a part of the heat map or of the label.
        top: regions of a volume from the heat map, and from the label, the largest first; None for all.
        ground_truth: when the boxes of the label join: "missing", where a volume shows no region; "always"; "never".

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(
        self,
        rois: str = "located",
        threshold: float = 0.5,
        normalise_heat: bool = False,
        margin: int | Sequence[int] = (1, 2, 2),
        top: int | None = 2,
        ground_truth: str = "missing",
    ) -> None:
        super().__init__()
        self.rois, self.threshold, self.normalise_heat = rois, threshold, normalise_heat
        self.margin, self.top, self.ground_truth = margin, top, ground_truth
        for name, known in _CHOICES.items():
            require_choice(name, getattr(self, name), known)
        check_locator(threshold, margin, top)

    def __call__(self, inputs: torch.Tensor, network: Any, targets: torch.Tensor | None = None) -> RoIPrediction:
        """Encode a batch, locate, and decode the regions.

        Args:
            inputs: B 1 D H W, any device.
            network: a :class:`~common.networks.ru_net.RUNet`, or another with `encode`, `locate` and `decode`.
            targets: B C D H W, channel 0 the label, non-zero = foreground; not needed where no ground truth joins.

        Returns:
            logits, in the network's precision; see :class:`~common.networks.rois.RoIPrediction`.

        Raises:
            InputError: inputs or targets of another shape.
        """
        volumes = plain_volumes(inputs, finite=False)
        size = tuple(volumes.shape[2:])
        features = network.encode(pad_to_cells(volumes))
        heat = None if self.rois == "whole" else network.locate(features[-1])
        cells = [
            (item, box)
            for item in range(len(volumes) if self.rois != "none" else 0)
            for box in self._boxes(heat, features[-1], targets, item, size)
        ]
        boxes, regions, contours = [], [], []
        for (item, cell_box), crops in zip(cells, pyramid_crops(features, cells)):
            region, contour = network.decode(*crops)
            box = clipped_box(scaled_box(cell_box, STRIDES[0]), size)
            part = (..., *(slice(length) for length in box.size))
            boxes.append((item, box))
            regions.append(region[part])
            contours.append(contour[part])
        return RoIPrediction(heat, boxes, regions, contours)

    def _boxes(
        self,
        heat: torch.Tensor | None,
        coarsest: torch.Tensor,
        targets: torch.Tensor | None,
        item: int,
        size: tuple[int, ...],
    ) -> list[Box]:
        """Boxes of one volume in cells, each once."""
        if heat is None:
            return [Box((0, 0, 0), tuple(coarsest.shape[2:]))]
        probability = heat[item].detach().float().sigmoid()
        boxes = locate_rois(probability, self.threshold, self.normalise_heat, self.margin, self.top)
        if self.ground_truth == "always" or (self.ground_truth == "missing" and not boxes):
            label = pooled_label(_label(targets, item, size))
            boxes += locate_rois(label, 0.5, False, self.margin, self.top)
        return list(dict.fromkeys(boxes))


def _label(targets: torch.Tensor | None, item: int, size: tuple[int, ...]) -> torch.Tensor:
    """The label of one volume, 1 1 D H W."""
    if targets is None or targets.ndim != 5 or len(targets) <= item or tuple(targets.shape[2:]) != size:
        came = f"targets of {None if targets is None else tuple(targets.shape)} for volumes of {size} voxels"
        rule = "regions of the ground truth come from a label of the same size"
        raise InputError(problem(came, rule, "pass B C D H W with the label first, or set ground_truth='never'"))
    return targets[item : item + 1, :1]
