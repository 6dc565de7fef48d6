"""3D RU-Net on a whole volume: encoded once, decoded in the regions of interest, by every member of an ensemble."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..checks import InputError, nearest, problem
from ..geometry.boxes import Box
from ..geometry.rois import (
    STRIDES,
    check_locator,
    clipped_box,
    locate_rois,
    normalised_heat,
    pad_to_cells,
    pyramid_crop,
    scaled_box,
)
from ..geometry.subsampling import upsample_nearest
from .roi_maps import EnsembleMaps, PastedRegions
from .timing import Stopwatch

__all__ = ["RoIInferer", "not_finite", "plain_volumes", "require_choice"]

logger = logging.getLogger(__name__)

_CHOICES = {"rois": ("located", "whole"), "output": ("region", "heat")}
_MAPS = ("probability", "contour", "uncertainty", "rois", "members")
_STEPS = ("encode", "locate", "crop", "decode", "paste")


class RoIInferer(Inferer):
    """Segment a volume inside the regions of interest that each member of an ensemble finds (huang2021runet).

    Member by member: the whole volume is encoded once; the heat map of the locator gives boxes; the features inside a
    box, at every scale, are decoded; probabilities go back to their place, averaged where boxes overlap, 0 outside.
    Then the members are averaged. Volumes of a batch are worked on one after the other, so that the features of one
    volume and one member are held at a time. Only the cells of the heat map above the threshold go to the host.

    Where no member finds a region, a warning says so and the answer is 0. Sizes that are not whole numbers of cells
    are padded and cut back.

    Args:
        rois: "located", or "whole": the whole volume is the one region and the locator is not asked.
        threshold: see :func:`~common.geometry.rois.locate_rois`.
        normalise_heat: scale every heat map to 0 .. 1 by its own extremes, as in the released code.
        margin: cells added around a part of the heat map.
        top: regions of a volume that a member decodes at most, the largest first; None for all.
        output: "region", or "heat": the locators alone, nothing is decoded.
        maps: further channels, in this order: "probability" (channel 0 once more), "contour" (mean probability of the
            contour), "uncertainty" (variance of the members' probabilities), "rois" (1 inside the regions of all
            members), "members" (the probability of each member, in the order of the network).

    `report` tells of the last call in plain numbers: `rois` decoded by each member and `rois_left_out` beyond `top`,
    `roi_share` of the volumes' voxels inside any region, `found` (a region, in every volume), `seconds` of each step.

    Deviation: the released code adds 0.001 to the number of boxes that a voxel lies in before it divides.

    Raises:
        InputError: an argument outside its range.
    """

    legend = {
        "share": "roi_share: voxels of the volume inside a region of interest of any member.",
        "rois": "rois: regions of interest that a member decoded; rois_left_out: those beyond the largest ones.",
        "roi_recall": "roi_recall: the share of the reference inside a region of interest of any member.",
    }

    def __init__(
        self,
        rois: str = "located",
        threshold: float = 0.5,
        normalise_heat: bool = False,
        margin: int | Sequence[int] = (1, 2, 2),
        top: int | None = 10,
        output: str = "region",
        maps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.rois, self.threshold, self.normalise_heat = rois, threshold, normalise_heat
        self.margin, self.top, self.output = margin, top, output
        self.maps = (maps,) if isinstance(maps, str) else tuple(maps)
        self.report: dict[str, Any] = {}
        for name, known in _CHOICES.items():
            require_choice(name, getattr(self, name), known)
        check_locator(threshold, margin, top)
        for name in self.maps:
            require_choice("an entry of maps", name, _MAPS)
        if len(set(self.maps)) < len(self.maps):
            raise InputError(problem(f"maps={list(self.maps)}", "a map is written once", "name each map once"))
        if output == "heat" and (self.maps or rois == "whole"):
            came = f"output='heat' with rois={rois!r} and maps={list(self.maps)}"
            raise InputError(problem(came, "heat maps come alone, from the locator", "use output='region'"))

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:
        """Segment a batch of volumes.

        Args:
            inputs: B 1 D H W, prepared as for training; any device. A MetaTensor keeps its metadata.
            network: a :class:`~common.networks.ru_net.RUNetEnsemble`, or another with `members` by name, each with its
                `encode`, `locate` and `decode`.

        Returns:
            B C D H W, float32: channel 0 the mean over members of the probability of the region (of the heat map, a
            cell's value for all its voxels, with ``output="heat"``), then the channels of `maps`.

        Raises:
            InputError: inputs of another shape or not finite, a network without members, or a member whose answer is
                not finite.
        """
        volumes, members = plain_volumes(inputs), _members(network)
        channels = 1 + sum(len(members) if name == "members" else 1 for name in self.maps)
        answer = volumes.new_zeros((len(volumes), channels, *volumes.shape[2:]), dtype=torch.float32)
        tally = _Tally(volumes.device, members)
        for volume, result in zip(volumes.split(1), answer):
            self._volume(volume, members, result, tally)
        self.report = tally.report(located=self.output == "region")
        logger.info("%s", tally)
        return MetaTensor(answer).copy_meta_from(inputs, copy_attr=False) if isinstance(inputs, MetaTensor) else answer

    def _volume(self, volume: torch.Tensor, members: Mapping[str, Any], result: torch.Tensor, tally: _Tally) -> None:
        """Write the channels of one volume, 1 1 D H W, into `result`, C D H W."""
        size = tuple(volume.shape[2:])
        maps = EnsembleMaps(result, self.maps, len(members))
        inside = torch.zeros(size, dtype=torch.bool)  # on the host: boxes are plain numbers
        padded, highest = pad_to_cells(volume), {}
        for name, member in members.items():
            if self.output == "heat":
                found = self._heat_map(padded, size, member, name, tally)
            else:
                boxes, found, highest[name] = self._regions(padded, size, member, name, tally)
                tally.rois[name] += len(boxes)
                for box in boxes:
                    inside[box.slices] = True
            with tally.timed("paste"):
                maps.add(found)
        with tally.timed("paste"):
            maps.finish(inside)
        if self.output == "region":
            tally.region(inside)
            if not tally.shares[-1][0]:
                logger.warning(
                    "no region of interest was found in a volume of %s voxels: the heat maps reach %s, the threshold "
                    "is %g; the answer is empty",
                    "x".join(map(str, size)),
                    ", ".join(f"{value:.3f} ({name})" for name, value in highest.items()),
                    self.threshold,
                )
        if not bool(result.isfinite().all()):
            raise not_finite("a decoded region")

    def _heat_map(
        self, padded: torch.Tensor, size: tuple[int, ...], member: Any, name: str, tally: _Tally
    ) -> list[torch.Tensor]:
        """The heat map of a member in voxels, D H W."""
        with tally.timed("encode"):
            features = member.encode(padded)
        with tally.timed("locate"):
            return [upsample_nearest(self._heat(member, features[-1], name), STRIDES[0], size)[0, 0]]

    def _regions(
        self, padded: torch.Tensor, size: tuple[int, ...], member: Any, name: str, tally: _Tally
    ) -> tuple[list[Box], list[torch.Tensor], float]:
        """Boxes in voxels, maps of the region and, where asked for, of the contour, and the highest heat."""
        with tally.timed("encode"):
            features = member.encode(padded)
        cells, highest = [Box((0, 0, 0), tuple(features[-1].shape[2:]))], 1.0
        if self.rois == "located":
            with tally.timed("locate"):
                heat = self._heat(member, features[-1], name)
                cells = locate_rois(heat, self.threshold, False, self.margin, None)
                highest = 1.0 if cells else float(heat.max())
        kept = cells[: self.top]
        if len(kept) < len(cells):
            tally.left_out += len(cells) - len(kept)
            logger.warning("%s found %d regions of interest; the %d largest are decoded", name, len(cells), len(kept))
        pasted = PastedRegions(size, padded.device, 2 if "contour" in self.maps else 1)
        boxes = [clipped_box(scaled_box(box, STRIDES[0]), size) for box in kept]
        for cell_box, box in zip(kept, boxes):
            with tally.timed("crop"):
                crops = pyramid_crop(features, cell_box)
            with tally.timed("decode"):
                logits = member.decode(*crops)
            with tally.timed("paste"):
                pasted.add(box, logits)
        with tally.timed("paste"):
            return boxes, pasted.mean(), highest

    def _heat(self, member: Any, coarsest: torch.Tensor, name: str) -> torch.Tensor:
        """Heat map of one volume, 1 1 d h w, float32."""
        heat = member.locate(coarsest).float().sigmoid()
        if not bool(heat.isfinite().all()):
            raise not_finite(f"the heat map of {name}")
        return normalised_heat(heat) if self.normalise_heat else heat


class _Tally(Stopwatch):
    """What is counted and timed over the volumes of a call."""

    def __init__(self, device: torch.device, members: Mapping[str, Any]) -> None:
        super().__init__(device)
        self.seconds = dict.fromkeys(_STEPS, 0.0)
        self.rois = dict.fromkeys(members, 0)
        self.left_out = 0
        self.shares: list[tuple[int, int]] = []

    def region(self, inside: torch.Tensor) -> None:
        """Count the voxels inside the regions of one volume, a mask on the host."""
        self.shares.append((int(inside.count_nonzero()), inside.numel()))

    def report(self, located: bool) -> dict[str, Any]:
        """The measures as plain numbers; those of regions where there were any to decode."""
        if not located:
            return {"seconds": dict(self.seconds)}
        return {
            "rois": dict(self.rois),
            "rois_left_out": self.left_out,
            "roi_share": self.share,
            "found": all(voxels > 0 for voxels, _ in self.shares),
            "seconds": dict(self.seconds),
        }

    @property
    def share(self) -> float:
        """Part of the volumes' voxels that lies inside a region."""
        return sum(voxels for voxels, _ in self.shares) / max(1, sum(size for _, size in self.shares))

    def __str__(self) -> str:
        steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in self.seconds.items() if seconds)
        if not self.shares:
            return steps
        rois = ", ".join(f"{number} of {name}" for name, number in self.rois.items())
        return f"regions of interest: {rois}, together {self.share:.1%} of the volume; {steps}"


def plain_volumes(inputs: torch.Tensor, finite: bool = True) -> torch.Tensor:
    """Volumes B 1 D H W as a plain tensor; with `finite` every voxel is looked at.

    Raises:
        InputError: inputs of another shape, or with values that are not finite.
    """
    if not isinstance(inputs, torch.Tensor) or inputs.ndim != 5 or inputs.shape[1] != 1 or 0 in inputs.shape:
        came = f"inputs of {tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__}"
        rule = "volumes come as B 1 D H W with at least one voxel"
        raise InputError(problem(came, rule, "add the batch and channel axes, or pass one channel"))
    volumes = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
    if finite and not bool(volumes.isfinite().all()):
        came = f"{int((~volumes.isfinite()).sum())} of {volumes.numel()} voxels are not finite"
        rule = "normalisation spreads a single one over the whole volume"
        raise InputError(problem(came, rule, "mend the image, or replace them before preprocessing"))
    return volumes


def require_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a value that is not among those known.

    Raises:
        InputError: with the nearest of them.
    """
    if value not in known:
        remedy = f"use {nearest(str(value), known) or known[0]!r}"
        raise InputError(problem(f"{name} is {value!r}", f"it must be one of {', '.join(known)}", remedy))


def _members(network: Any) -> dict[str, Any]:
    """The members of an ensemble by name."""
    try:
        members = dict(network.members.items())
    except AttributeError:
        members = {}
    if not members:
        came = f"the network {type(network).__name__} has no members"
        rule = "an ensemble holds its networks in members, by name"
        raise InputError(problem(came, rule, "pass a common.networks.RUNetEnsemble, unwrapped"))
    return members


def not_finite(what: str) -> InputError:
    """The error for scores that are not finite."""
    rule = "weights or half precision gave numbers beyond all bounds"
    return InputError(
        problem(f"{what} holds values that are not finite", rule, "run with --amp false; else train anew")
    )
