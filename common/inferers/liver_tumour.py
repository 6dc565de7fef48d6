"""RA-UNet on a whole CT volume: the box of the liver, the liver in it, the tumours in the liver."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import ensure_tuple_rep

from ..checks import InputError, problem
from ..geometry.boxes import Box, at_least, crop, enlarge, paste
from ..geometry.slices import ROUNDING
from .liver_steps import (
    LiverSteps,
    Part,
    Watched,
    box_on_grid,
    check_stages,
    largest_part,
    localise,
    report_of,
    resize_into,
    spacings_of,
)
from .roi import plain_volumes, require_choice
from .voting import VotingInferer

__all__ = ["LiverTumourInferer"]

logger = logging.getLogger(__name__)

_STAGES = ("localiser", "liver", "tumour")
# the stage that makes each map
_MAPS = {"localiser": "localiser", "box": "localiser", "liver_probability": "liver", "tumour_probability": "tumour"}
# of a mask brought back to the grid by the released code's order
_RESIZED_BACK = 0.2 - ROUNDING


class LiverTumourInferer(Inferer):
    """Label the liver 1 and its tumours 2 in three stages, each in the box that the one before left (jin2020raunet).

    Box: every slice, resized, goes through ``network.localiser``; the largest component of the stacked masks, with a
    margin, is the box of the liver. Liver: the box, its slices resized, is tiled for ``network.liver``; probabilities
    that windows share are averaged, go back to the grid, and the largest component of what reaches `liver_threshold`
    is the liver. Tumours: the liver's box with the margin is tiled at full resolution for ``network.tumour``; inside
    the liver, what reaches `tumour_threshold` is tumour. Of several networks (an ensemble) the means are averaged.

    Boxes are views of the volume. Beyond the input nothing as large as it is held while the stages run; the answer is
    bytes, unless probabilities are among the `maps`. Where no liver is found a warning says so, the answer is empty,
    and the stages that follow are not run; a liver without tumour is an answer like any other.

    Deviation: slices are resized bilinearly, not by splines. The released code averages the tumour's models wrongly
    (five that are all sure come out at 0.477), refuses boxes thinner than a window, and surrounds the tumour's box with
    zeros; here a mean is a mean, and windows read true neighbours as far as the volume has them.
    Reading: a box is mapped outward from the resized slices, so that no voxel of the component is lost.

    Args:
        liver_tiles: runs the liver network on the resized box; it must give probabilities.
        tumour_tiles: runs the tumour network; the same.
        localiser_size: slices for the localiser, voxels ``(x, y)``.
        localiser_threshold: of the localiser's probability.
        box_margin: voxels of the grid added around both boxes, one number or one for each axis.
        box_margin_mm: millimetres added as well; the spacing is that of the MetaTensor's affine.
        liver_size: slices for the liver network, voxels ``(x, y)``.
        liver_threshold: of the mean probability of the liver.
        threshold_first: the released code's order: the threshold on the resized slices, the mask resized back, where it
            is at least 0.2 inside.
        tumour_threshold: of the mean probability of tumour.
        maps: further channels, in the order given: "localiser" (its mask on the grid), "box" (1 inside the liver's
            box), "liver_probability", "tumour_probability" (0 outside what was tiled).
        localiser_batch_size: slices that the localiser gets at a time.
        stage: the last one that is run, "localiser", "liver" or "tumour".

    `report` tells of the last call in plain numbers: ``box_share`` of the volumes' voxels, ``liver_found`` (in every
    volume), ``liver_ml`` (with its tumours) and ``tumour_ml`` where the spacing is known, ``tumours`` (components),
    ``windows`` of each stage (of the localiser: slices), ``seconds`` of each step.

    Raises:
        InputError: an argument outside its range.
    """

    legend = {
        "share": "box_share: voxels of the volume inside the box in which the liver is looked for.",
        "windows": "windows: slices that the localiser saw, windows that the two 3D networks saw.",
        "ml": "liver_ml holds the tumours as well.",
    }

    def __init__(
        self,
        liver_tiles: VotingInferer,
        tumour_tiles: VotingInferer,
        localiser_size: Sequence[int] = (256, 256),
        localiser_threshold: float = 0.5,
        box_margin: int | Sequence[int] = (10, 10, 10),
        box_margin_mm: float | None = None,
        liver_size: Sequence[int] = (224, 224),
        liver_threshold: float = 0.6,
        threshold_first: bool = False,
        tumour_threshold: float = 0.5,
        maps: Sequence[str] = (),
        localiser_batch_size: int = 8,
        stage: str = "tumour",
    ) -> None:
        super().__init__()
        self.liver_tiles, self.tumour_tiles = liver_tiles, tumour_tiles
        self.localiser_size, self.liver_size = tuple(localiser_size), tuple(liver_size)
        self.localiser_threshold, self.liver_threshold = localiser_threshold, liver_threshold
        self.threshold_first, self.tumour_threshold = threshold_first, tumour_threshold
        self.box_margin, self.box_margin_mm = box_margin, box_margin_mm
        self.maps, self.stage, self.localiser_batch_size = tuple(maps), stage, localiser_batch_size
        self.report: dict[str, Any] = {}
        self._check()

    def until(self, stage: str) -> LiverTumourInferer:
        """A copy that ends after a stage, without the maps of later ones.

        Raises:
            InputError: a stage that there is not.
        """
        require_choice("stage", stage, _STAGES)
        shorter = copy.copy(self)
        shorter.stage, shorter.report = stage, {}
        shorter.maps = tuple(name for name in self.maps if _MAPS[name] in shorter._stages)
        return shorter

    @property
    def _stages(self) -> tuple[str, ...]:
        """The stages that are run."""
        return _STAGES[: _STAGES.index(self.stage) + 1]

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:
        """Label a batch of volumes, one after the other.

        Args:
            inputs: B 1 X Y Z, grey values as in training, axial slices across the last axis, any device; a MetaTensor
                keeps its metadata.
            network: with the children `localiser` (2D), `liver` and `tumour` (3D, or several in a ModuleList), each
                with one channel of logits.

        Returns:
            labels B 1 X Y Z, uint8: 0, 1 and 2, or 0 and 1 after an earlier stage; with `maps` B 1+n X Y Z, float32
            where probabilities are among them.

        Raises:
            InputError: inputs of another shape, a network without these children or with other outputs, scores that are
                not finite, or a margin in mm without a spacing.
        """
        volumes = plain_volumes(inputs, finite=False)
        check_stages(network, self._stages)
        spacings = spacings_of(inputs)
        if self.box_margin_mm is not None and spacings is None:
            came = f"box_margin_mm={self.box_margin_mm} for a tensor without an affine"
            raise InputError(problem(came, "millimetres need the volume's spacing", "pass a MetaTensor, or voxels"))
        parts, measured = [], []
        for item, volume in enumerate(volumes[:, 0]):
            spacing = None if spacings is None else spacings[item]
            steps = LiverSteps(volumes.device, self._stages, volume.numel(), spacing)
            parts.append(self._run(volume, network, spacing, steps))
            measured.append(steps)
        floats = any(name.endswith("probability") for name in self.maps)
        shape = (len(volumes), 1 + len(self.maps), *volumes.shape[2:])
        # not before now: while the stages run, only their boxes are held
        answer = torch.zeros(shape, dtype=torch.float32 if floats else torch.uint8, device=volumes.device)
        for found, channels, steps in zip(parts, answer, measured):
            with steps.timed("paste"):
                for name, channel in zip(("labels", *self.maps), channels):
                    if name in found:
                        resize_into(crop(channel, found[name].box), found[name].values)
                if "labels" in found:
                    steps.count(crop(channels[0], found["labels"].box))
            logger.info("%s", steps)
        self.report = report_of(measured)
        return MetaTensor(answer).copy_meta_from(inputs, copy_attr=False) if isinstance(inputs, MetaTensor) else answer

    def _run(
        self, volume: torch.Tensor, network: Any, spacing: Sequence[float] | None, steps: LiverSteps
    ) -> dict[str, Part]:
        """What is found in one volume X Y Z: its labels and maps, each in its box; no entry for what is empty."""
        margin, parts = (self.box_margin, self.box_margin_mm, spacing), {}
        box = self._find_box(volume, network, parts, margin, steps)
        if box is None or self.stage == "localiser":
            return parts
        self._label_liver(volume, network, parts, box, steps)
        if "labels" not in parts:
            logger.warning(
                "no voxel of the liver's box (%s voxels) reached a probability of %g: the answer is empty",
                *("x".join(map(str, box.size)), self.liver_threshold),
            )
        elif self.stage == "tumour":
            least = [max(length, 1) for length in ensure_tuple_rep(self.tumour_tiles.roi_size, 3)]
            around = at_least(enlarge(parts["labels"].box, volume.shape, *margin), volume.shape, least)
            self._label_tumour(volume, network, parts, around, steps)
        return parts

    def _find_box(
        self, volume: torch.Tensor, network: Any, parts: dict[str, Part], margin: tuple, steps: LiverSteps
    ) -> Box | None:
        """The box in which the liver is looked for, in the volume; None where the localiser finds nothing."""
        with steps.timed("localiser"):
            sizes = self.localiser_size, self.localiser_threshold, self.localiser_batch_size
            mask = localise(volume, network.localiser, *sizes)
            steps.windows["localiser"] = volume.shape[2]
        with steps.timed("box"):
            mask, found = largest_part(mask, "the localiser's mask")
            if found is None:
                logger.warning("the localiser found no liver in %d slices: the answer is empty", volume.shape[2])
                return None
            slices = ensure_tuple_rep(self.liver_tiles.roi_size, 3)[2]
            box = enlarge(box_on_grid(found, self.localiser_size, volume.shape), volume.shape, *margin)
            box = at_least(box, volume.shape, (1, 1, max(slices, 1)))
            steps.box = math.prod(box.size)
            parts["box"] = Part(box, mask.new_ones(()).expand(box.size))
            if self.stage == "localiser" or "localiser" in self.maps:
                parts["localiser"] = Part(Box((0, 0, 0), tuple(volume.shape)), mask)
            if self.stage == "localiser":
                parts["labels"] = parts["localiser"]
        return box

    def _label_liver(
        self, volume: torch.Tensor, network: Any, parts: dict[str, Part], box: Box, steps: LiverSteps
    ) -> None:
        """Label the liver inside its box, if there is one."""
        with steps.timed("liver"):
            resized = volume.new_empty((1, 1, *self.liver_size, box.size[2]))
            resize_into(resized[0, 0], crop(volume, box))
            watched = Watched(network.liver, "liver")
            probability = self.liver_tiles(resized, watched.networks)[0, 0]
            steps.windows["liver"] = self.liver_tiles.windows
            watched.check()
            del resized
        with steps.timed("largest part"):
            if "liver_probability" in self.maps:
                parts["liver_probability"] = Part(box, probability)
            mask = torch.empty(box.size, dtype=torch.bool, device=volume.device)
            if self.threshold_first:
                resize_into(mask, (probability >= self.liver_threshold).float(), _RESIZED_BACK)
            else:
                resize_into(mask, probability, self.liver_threshold)
            del probability
            mask, found = largest_part(mask, "what the liver network found")
            if found is not None:
                start = [first + offset for first, offset in zip(box.start, found.start)]
                stop = [first + offset for first, offset in zip(box.start, found.stop)]
                parts["labels"] = Part(Box(tuple(start), tuple(stop)), crop(mask, found).to(torch.uint8))

    def _label_tumour(
        self, volume: torch.Tensor, network: Any, parts: dict[str, Part], box: Box, steps: LiverSteps
    ) -> None:
        """Turn labels 1 into 2 where a box around them holds tumour."""
        tiles = copy.copy(self.tumour_tiles)
        if "tumour_probability" not in self.maps:
            # the same means, cut off as they are done: not held for the whole box
            tiles.output, tiles.threshold = "labels", self.tumour_threshold
        with steps.timed("tumour"):
            tight, labels = parts["labels"]
            start, stop = ([a - b for a, b in zip(side, box.start)] for side in (tight.start, tight.stop))
            inner, watched = Box(tuple(start), tuple(stop)), Watched(network.tumour, "tumour")
            liver = paste(labels, inner, box.size).bool()
            found = tiles(crop(volume, box)[None, None], watched.networks, mask=liver[None, None])[0, 0]
            steps.windows["tumour"] = tiles.windows
            watched.check()
            if "tumour_probability" in self.maps:
                parts["tumour_probability"] = Part(box, found)
                found = (found >= self.tumour_threshold).logical_and_(liver)
            labels.add_(crop(found, inner))

    def _check(self) -> None:
        """Refuse arguments outside their range."""
        require_choice("stage", self.stage, _STAGES)
        for name in self.maps:
            require_choice("a map", name, _MAPS)
            if _MAPS[name] not in self._stages:
                came = f"the map '{name}' with stage='{self.stage}'"
                raise InputError(problem(came, f"the stage '{_MAPS[name]}' makes it", "leave the map out"))
        if len(set(self.maps)) < len(self.maps):
            raise InputError(problem(f"maps={self.maps}", "a map is one channel", "name each once"))
        for name, tiles in {"liver_tiles": self.liver_tiles, "tumour_tiles": self.tumour_tiles}.items():
            if tiles.output != "probabilities" or tiles.vote != "mean":
                came = f"{name} with output={tiles.output!r} and vote={tiles.vote!r}"
                rule = "windows give mean probabilities, thresholds are the inferer's own"
                raise InputError(problem(came, rule, "use output='probabilities', vote='mean'"))
        for name in ("localiser_threshold", "liver_threshold", "tumour_threshold"):
            if not 0 < getattr(self, name) <= 1:
                came = f"{name} is {getattr(self, name)!r}"
                raise InputError(problem(came, "a probability lies in 0 .. 1, and 0 takes all", "pass for example 0.5"))
        for name in ("localiser_size", "liver_size"):
            size = getattr(self, name)
            if len(size) != 2 or min(size) < 1:
                raise InputError(problem(f"{name} is {size}", "slices have two axes", "pass for example 256 256"))
        voxels = [*ensure_tuple_rep(self.box_margin, 3), self.box_margin_mm or 0]
        if min(voxels) < 0:
            came = f"box_margin={self.box_margin} and box_margin_mm={self.box_margin_mm}"
            raise InputError(problem(came, "a margin makes the box larger", "pass 0 or more"))
        if self.localiser_batch_size < 1:
            came = f"localiser_batch_size is {self.localiser_batch_size}"
            raise InputError(problem(came, "at least one slice is run at a time", "pass 1 or more"))
