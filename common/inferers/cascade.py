"""The cascade of two 3D U-Nets on a whole CT volume: body, candidate region, labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..checks import InputError, problem
from ..geometry.body import body_mask
from ..geometry.morphology import dilate
from ..geometry.subsampling import parse_factor, subsample, upsample_nearest
from .timing import Stopwatch
from .voting import VotingInferer

__all__ = ["CascadeInferer"]

logger = logging.getLogger(__name__)


class CascadeInferer(Inferer):
    """Label a CT in two stages, each inside the region that the one before left (roth2017hierarchical, sec. 2 and 3).

    On every n-th voxel of the volume: the body (C1) by threshold; ``network.stage1`` labels C1; what it finds, dilated,
    AND C1 is the candidate region C2; ``network.stage2`` labels C2. Labels go back to the input's grid by nearest
    neighbour. What is handed over is a mask: stage 2 reads the same volume, not a crop of it, and windows whose core
    misses the region are never run. Class probabilities of the whole grid are never held.

    Where no body is found, or stage 1 finds nothing, a warning says so, the answer is empty and the stages that
    follow are not run.

    Reading: the grey-value window of each stage is that of the released code. The paper's dilation by "r = 3"
    voxels is taken as a cube's, on the grid that the networks see; the released code dilates by 5.

    Args:
        window1: grey values for stage 1: ``window1(volume, mask)``, B 1 X Y Z in HU and C1 in, float32 out.
        tiles1: runs stage 1; it must give labels (``output="labels"``, ``threshold=None``).
        window2: grey values for stage 2, as `window1`; it gets C1 as well.
        tiles2: runs stage 2.
        downsampling: step along every axis, voxels; one number or three.
        body_threshold: HU from which a voxel is not air.
        body_opening: voxels by which the body is opened, on the working grid.
        dilation: radius of the cube that stage 1's foreground grows by, voxels of the working grid.
        stages: 2, or 1 to end after stage 1.
        compare: further ways to run stage 2 on the same region, by names for `report`. With any, the result has a
            channel for each answer.

    `report` tells of the last call in plain numbers: ``c1_share`` and ``c2_share`` of the volumes' voxels,
    ``stage1_found`` (in every volume), ``windows`` of each stage, ``seconds`` of each step.

    Raises:
        InputError: an argument outside its range.
    """

    legend = {
        "share": "C1: the body, where stage 1 is run. C2: the candidate region that stage 1 leaves, where stage 2 is "
        "run. Shares are of the volume's voxels.",
        "recall": "The candidate's recall is the share of the reference's organs that lies in C2.",
    }

    def __init__(
        self,
        window1: Callable,
        tiles1: VotingInferer,
        window2: Callable,
        tiles2: VotingInferer,
        downsampling: int | Sequence[int] = 2,
        body_threshold: float = -500.0,
        body_opening: int = 2,
        dilation: int = 3,
        stages: int = 2,
        compare: Mapping[str, VotingInferer] | None = None,
    ) -> None:
        super().__init__()
        self.window1, self.tiles1, self.window2, self.tiles2 = window1, tiles1, window2, tiles2
        self.downsampling, self.body_threshold = parse_factor(downsampling), body_threshold
        self.dilation, self.body_opening = _voxels(dilation, "dilation"), _voxels(body_opening, "body_opening")
        self.stages, self.compare = stages, dict(compare or {})
        self.report: dict[str, Any] = {}
        if stages not in (1, 2) or (stages == 1 and self.compare):
            came = f"stages={stages!r} with {len(self.compare)} inferers to compare"
            remedy = "pass stages=2, or 1 without compare"
            raise InputError(problem(came, "there are 1 or 2 stages, and stage 2 is what is compared", remedy))
        if taken := {"body", "stage1", "candidate", "stage2"} & set(self.compare):
            came = f"compare names an answer '{min(taken)}'"
            raise InputError(problem(came, "the cascade has a map of that name itself", "choose another name"))
        for tiles in (tiles1, tiles2, *self.compare.values()):
            if tiles.output != "labels" or tiles.threshold is not None:
                came = f"tiles with output={tiles.output!r} and threshold={tiles.threshold!r}"
                raise InputError(problem(came, "a stage hands over labels", "use output='labels', threshold=None"))

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Label a batch of volumes, one after the other.

        Args:
            inputs: B 1 X Y Z in HU, axial slices across the last axis, any device; a MetaTensor keeps its metadata.
            network: composite with the children `stage1` and `stage2`: windows B 1 x y z in, scores B K x' y' z' out.
            args, kwargs: further arguments of the networks.

        Returns:
            labels B 1 X Y Z, uint8 up to 256 classes; with `compare` B 3+n X Y Z: stage 1, stage 2, each of the n of
            `compare`, and C2 as 0 and 1.

        Raises:
            InputError: inputs of another shape, or a network without these children.
        """
        volumes = _checked(inputs, network, ("stage1", "stage2")[: self.stages])
        steps = [_Steps(volumes.device, self._answers(self.stages)) for _ in volumes]
        answers = []
        for volume, one in zip(volumes.split(1), steps):
            maps = self._run(subsample(volume, self.downsampling), network, one, self.stages, args, kwargs)
            answers.append(self._channels(maps))
            del maps
            logger.info("%s", one)
        whole = _Steps(volumes.device, ())
        with whole.timed("upsampling"):
            labels = answers[0] if len(answers) == 1 else torch.cat(answers)
            result = upsample_nearest(labels, self.downsampling, volumes.shape[2:])
        self.report = _report([*steps, whole])
        return MetaTensor(result).copy_meta_from(inputs, copy_attr=False) if isinstance(inputs, MetaTensor) else result

    @torch.no_grad()
    def localise(self, volume: torch.Tensor, network: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The regions of stage 2, without running it; for training it.

        Args:
            volume: B 1 X Y Z in HU on the working grid, that is subsampled already.
            network: composite with the child `stage1`.

        Returns:
            C1 (bool), labels of stage 1, and C2 (bool), each B 1 X Y Z; plain tensors on the volume's device.

        Raises:
            InputError: a volume of another shape, or a network without that child.
        """
        volumes = _checked(volume, network, ("stage1",))
        steps = [_Steps(volumes.device, self._answers(1)) for _ in volumes]
        found = [self._run(one, network, step, 1, (), {}) for one, step in zip(volumes.split(1), steps)]
        self.report = _report(steps)
        return tuple(torch.cat([maps[name] for maps in found]) for name in ("body", "stage1", "candidate"))

    def _channels(self, maps: dict[str, torch.Tensor]) -> torch.Tensor:
        """The maps of one volume that make up the result, 1 C X Y Z; labels that are not there are empty."""
        names = self._answers(self.stages)
        names = [*names, "candidate"] if self.compare else names[-1:]
        empty = maps["stage1"].new_zeros(()).expand_as(maps["stage1"])
        found = [maps.get(name, empty).to(empty.dtype) for name in names]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _answers(self, stages: int) -> list[str]:
        """Names of what gives labels, in the order of the result's channels."""
        if stages == 1:
            return ["stage1"]
        return ["stage1", "stage2", *self.compare]

    def _run(
        self, volume: torch.Tensor, network: Any, steps: _Steps, stages: int, args: tuple, kwargs: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """Regions and labels of one volume, 1 1 X Y Z on the working grid; no entry for what needs not be run."""
        with steps.timed("body"):
            body = body_mask(volume, self.body_threshold, self.body_opening)
            steps.region("c1", body)
        if not steps.voxels["c1"]:
            low, high = torch.stack(torch.aminmax(volume)).tolist()
            logger.warning(
                "no body was found in a volume of %s voxels from %g to %g HU: nothing of at least %g HU is left by an "
                "opening of %d voxels; the answer is empty",
                *(_times(volume), low, high, self.body_threshold, self.body_opening),
            )
            steps.region("c2", body)
            return {"body": body, "stage1": body.to(torch.uint8), "candidate": body}
        with steps.timed("stage1"):
            labels = self.tiles1(self.window1(volume, body), network.stage1, *args, mask=body, **kwargs)
            steps.windows["stage1"] = self.tiles1.windows
        with steps.timed("candidate"):
            candidate = dilate(labels, self.dilation).logical_and_(body)
            steps.region("c2", candidate)
        maps = {"body": body, "stage1": labels, "candidate": candidate}
        if not steps.voxels["c2"]:
            logger.warning(
                "stage 1 found nothing in a body of %d of %s voxels (%d windows): the candidate region is empty",
                *(steps.voxels["c1"], _times(volume), self.tiles1.windows),
            )
        elif stages == 2:
            with steps.timed("stage2"):
                windowed = self.window2(volume, body)
            for name, tiles in {"stage2": self.tiles2, **self.compare}.items():
                with steps.timed(name):
                    maps[name] = tiles(windowed, network.stage2, *args, mask=candidate, **kwargs)
                    steps.windows[name] = tiles.windows
        return maps


class _Steps(Stopwatch):
    """What is measured on one volume: voxels of its regions, windows and seconds of each step."""

    def __init__(self, device: torch.device, answers: Sequence[str]) -> None:
        super().__init__(device)
        self.size = 0
        self.voxels: dict[str, int] = {}
        self.windows = dict.fromkeys(answers, 0)

    def region(self, name: str, mask: torch.Tensor) -> None:
        """Count the voxels of a region."""
        self.size = mask.numel()
        self.voxels[name] = int(torch.count_nonzero(mask))

    def __str__(self) -> str:
        shares = ", ".join(f"{name.upper()} {voxels / self.size:.1%}" for name, voxels in self.voxels.items())
        steps = ", ".join(
            f"{step} {seconds:.1f} s" + (f" ({self.windows[step]} windows)" if step in self.windows else "")
            for step, seconds in self.seconds.items()
        )
        return f"of the volume: {shares}; {steps}"


def _report(measured: Sequence[_Steps]) -> dict[str, Any]:
    """The measures of several volumes in one, as plain numbers."""
    volumes = [one for one in measured if one.size]
    size = sum(one.size for one in volumes)
    return {
        "c1_share": sum(one.voxels["c1"] for one in volumes) / size,
        "c2_share": sum(one.voxels["c2"] for one in volumes) / size,
        "stage1_found": all(one.voxels["c2"] > 0 for one in volumes),
        "windows": _summed([one.windows for one in measured]),
        "seconds": _summed([one.seconds for one in measured]),
    }


def _summed(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Sums of the entries of one name."""
    total: dict[str, float] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total


def _checked(inputs: torch.Tensor, network: Any, stages: Sequence[str]) -> torch.Tensor:
    """The inputs as a plain tensor, when they and the network can be used."""
    if not isinstance(inputs, torch.Tensor) or inputs.ndim != 5 or inputs.shape[1] != 1 or 0 in inputs.shape:
        came = f"inputs of {tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__}"
        rule = "a CT comes as B 1 X Y Z with at least one voxel"
        raise InputError(problem(came, rule, "add the batch and channel axes, or pass one channel"))
    missing = [stage for stage in stages if not callable(getattr(network, stage, None))]
    if missing:
        came = f"the network {type(network).__name__} has no {' and no '.join(missing)}"
        rule = "the cascade runs the children stage1 and stage2 of one network"
        raise InputError(problem(came, rule, "pass a common.networks.CascadedUNet3D, unwrapped"))
    return inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs


def _voxels(value: Any, name: str) -> int:
    """A number of voxels as a whole number."""
    try:
        good = int(value) == value and value >= 0
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        remedy = f"pass for example --{name} {3 if name == 'dilation' else 2}"
        raise InputError(problem(f"{name} is {value!r}", "it counts whole voxels, from 0", remedy))
    return int(value)


def _times(volume: torch.Tensor) -> str:
    return "x".join(str(length) for length in volume.shape[2:])
