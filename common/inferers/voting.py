"""One sliding-window inferer for every method: windows of a volume vote for its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer
from monai.utils import ensure_tuple_rep, fall_back_tuple, optional_import

from ..checks import InputError, problem
from ..geometry.grids import PADDING_MODES, first_argmax, read_window
from .rolling import Tally
from .tiling import Tiling, margin_of

tqdm, _ = optional_import("tqdm", name="tqdm")

__all__ = ["VotingInferer"]

_CHOICES = {
    "mode": ("constant", "gaussian"),
    "vote": ("mean", "majority"),
    "output": ("labels", "probabilities"),
    "activation": ("softmax", "sigmoid", None),
    "padding_mode": PADDING_MODES,
}


class _OtherSize(Exception):
    """The first window came back smaller than read, from a network that does not tell its output size."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__(size)
        self.size = size


class VotingInferer(Inferer):
    """Run one or several networks window by window and let the windows vote for every voxel.

    The tiling of cicek2016unet3d (unpadded convolutions, section 2), the mean over R predictions of
    roth2017hierarchical (equation 4), the votes of overlapping windows and the five-model mean of jin2020raunet.
    For labels, sums of scores are kept only for one window's height along the axis that the volume is longest in, and
    inside the box around the mask; rows that no later window touches become labels at once. One network and
    ``votes=1`` need no sums at all. Everything stays on the inputs' device.

    Reading: how R predictions a voxel come about is not published; here they are R tilings without overlap,
    each shifted by a further ``core / R`` along all axes, so that every voxel, at the border too, has exactly R.

    Args:
        roi_size: window that the network reads, voxels, ``(d, h, w)`` or one number; a part that is not positive
            takes the whole axis. The core of a window is what the network returns, less `context`.
        overlap: fraction of a core that the next core covers again, 0 <= overlap < 1, one number or one per axis.
        votes: number R of predictions for every voxel; replaces `overlap`.
        mode: ``"constant"``, all predictions count the same, or ``"gaussian"``, MONAI's weights (sigma: 1/8 core).
        vote: ``"mean"`` of the activated scores, or ``"majority"`` of the windows' own labels.
        output: ``"labels"``, or ``"probabilities"``: mean scores, under a majority the share of the votes.
        activation: applied to what the network returns: ``"softmax"`` over the classes, ``"sigmoid"``, or None.
        threshold: None gives each voxel its best class; a number gives every channel a mask by itself, 1 where its mean
            is at least `threshold` (under a majority: where more than half of the votes are at least `threshold`).
        context: voxels around every core that are read and whose scores are dropped, one number or one per axis.
        align: cores start on multiples of this many voxels, one number or one per axis; the last may reach beyond the
            volume. With the stride of its deepest level (8 for three poolings of 2) an unpadded network without tile
            statistics gives in windows what it gives on the whole volume.
        padding_mode: what lies beyond the volume: ``"reflect"``, ``"replicate"``, or ``"constant"`` 0. Inside it,
            windows always read their true neighbours.
        sw_batch_size: windows run at a time.
        progress: show a progress bar, on a terminal only.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(
        self,
        roi_size: int | Sequence[int],
        overlap: float | Sequence[float] = 0.5,
        votes: int | None = None,
        mode: str = "constant",
        vote: str = "mean",
        output: str = "labels",
        activation: str | None = "softmax",
        threshold: float | None = None,
        context: int | Sequence[int] = 0,
        align: int | Sequence[int] = 1,
        padding_mode: str = "reflect",
        sw_batch_size: int = 1,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.roi_size, self.overlap, self.votes, self.context = roi_size, overlap, votes, context
        self.mode, self.vote, self.output, self.activation = mode, vote, output, activation
        self.threshold, self.align, self.padding_mode = threshold, align, padding_mode
        self.sw_batch_size, self.progress = sw_batch_size, progress
        self._windows = 0
        for name, known in _CHOICES.items():
            _require(getattr(self, name) in known, name, getattr(self, name), f"one of {known}")
        fractions = overlap if isinstance(overlap, Sequence) else [overlap]
        _require(all(0 <= part < 1 for part in fractions), "overlap", overlap, "at least 0 and less than 1")
        _require(votes is None or votes >= 1, "votes", votes, "None or at least 1")
        margins = context if isinstance(context, Sequence) else [context]
        _require(all(voxels >= 0 for voxels in margins), "context", context, "at least 0")
        _require(min(align if isinstance(align, Sequence) else [align]) >= 1, "align", align, "at least 1")
        _require(sw_batch_size >= 1, "sw_batch_size", sw_batch_size, "at least 1")
        unused = threshold is not None and vote == "mean" and output == "probabilities"
        _require(not unused, "threshold", threshold, "None where mean probabilities are the output")

    @property
    def windows(self) -> int:
        """Windows of the last call, each read once by every network."""
        return self._windows

    @torch.no_grad()
    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable | Sequence[Callable],
        *args: Any,
        mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Predict a batch of volumes.

        Args:
            inputs: ``B C D H W`` or ``B C H W``; a MetaTensor keeps its metadata.
            network: window ``B C d h w`` in, scores ``B K d' h' w'`` out, as large as the window or smaller by a
                constant margin; or a sequence of such networks, whose means are averaged. A method
                ``output_size(roi)`` of the network is asked for the margin; without one the first window shows it.
            args: further arguments of the networks.
            mask: ``B 1 D H W`` (or ``1 1 D H W``), non-zero where an answer is wanted. Windows whose core misses it are
                not run; outside it the result is 0.
            kwargs: further keyword arguments of the networks.

        Returns:
            labels ``B 1 D H W``, uint8 up to 256 classes; masks ``B K D H W``, uint8, with a threshold; or float32
            probabilities ``B K D H W``.

        Raises:
            InputError: inputs, mask or network output of a shape that does not fit.
        """
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        roi = self._roi(volume)
        networks = list(network) if isinstance(network, (list, tuple, torch.nn.ModuleList)) else [network]
        _require(len(networks) > 0, "network", network, "at least one network")
        if mask is not None:
            mask = self._fitting_mask(mask, volume)
        run = _Run(self, volume, mask, networks, args, kwargs)
        told = [tuple(model.output_size(roi)) for model in networks if callable(getattr(model, "output_size", None))]
        try:
            result = run(roi, told[0] if told else roi, learn=not told)
        except _OtherSize as seen:
            result = run(roi, seen.size, learn=False)
        self._windows = run.windows
        return MetaTensor(result).copy_meta_from(inputs, copy_attr=False) if isinstance(inputs, MetaTensor) else result

    def _roi(self, volume: torch.Tensor) -> tuple[int, ...]:
        """The window for these inputs."""
        dims = volume.ndim - 2
        if dims < 1 or (isinstance(self.roi_size, Sequence) and len(self.roi_size) != dims):
            raise InputError(
                problem(
                    f"inputs of {tuple(volume.shape)} for roi_size {self.roi_size}",
                    "inputs are B C and as many spatial axes as roi_size",
                    "add the batch and channel axes, or pass a roi_size with one number per spatial axis",
                )
            )
        return tuple(fall_back_tuple(ensure_tuple_rep(self.roi_size, dims), volume.shape[2:]))

    @staticmethod
    def _fitting_mask(mask: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
        """The mask as a plain tensor ``B 1 D H W`` on the device of the volume."""
        mask = mask.as_tensor() if isinstance(mask, MetaTensor) else mask
        wanted = (volume.shape[0], 1, *volume.shape[2:])
        if mask.ndim != volume.ndim or tuple(mask.shape) not in (wanted, (1, *wanted[1:])):
            raise InputError(
                problem(
                    f"a mask of {tuple(mask.shape)} for inputs of {tuple(volume.shape)}",
                    f"the mask must be {wanted}",
                    "put the mask on the inputs' grid",
                )
            )
        mask = mask if mask.dtype == torch.bool else mask != 0
        return mask.to(volume.device).expand(wanted)


class _Run:
    """One call of the inferer: what stays the same while its windows go by."""

    def __init__(
        self,
        settings: VotingInferer,
        volume: torch.Tensor,
        mask: torch.Tensor | None,
        networks: Sequence[Callable],
        args: tuple,
        kwargs: dict[str, Any],
    ) -> None:
        self.settings, self.volume, self.mask = settings, volume, mask
        self.networks, self.args, self.kwargs = networks, args, kwargs
        self.drop = ensure_tuple_rep(settings.context, volume.ndim - 2)

    def __call__(self, roi: tuple[int, ...], size: tuple[int, ...], learn: bool) -> torch.Tensor:
        """The result for networks that make `size` of windows `roi`; `learn` raises another size as `_OtherSize`."""
        settings, volume = self.settings, self.volume
        self.size, self.learn, self.classes, self.windows = size, learn, None, 0
        margin = [lost + drop for lost, drop in zip(margin_of(roi, size), self.drop)]
        overlap, align = (ensure_tuple_rep(given, len(roi)) for given in (settings.overlap, settings.align))
        self.tiling = Tiling(volume.shape[2:], roi, margin, overlap, settings.votes, align)
        weight = None
        if settings.mode == "gaussian":
            weight = compute_importance_map(self.tiling.core, settings.mode, device=volume.device)
        majority = settings.vote == "majority"
        tally = Tally(volume.shape, settings.output, settings.threshold, majority, len(self.networks), volume.device)
        for item in range(volume.shape[0]):
            self._vote(item, tally, weight)
        if tally.result is None:
            # nothing was wanted anywhere; with a channel for every class one window has to tell how many zeros
            tally.allocate(1 if tally.best_class else self._scores(self.networks[0], 0, [self.tiling.first]).shape[1])
        return tally.result

    def _vote(self, item: int, tally: Tally, weight: torch.Tensor | None) -> None:
        """All windows of one volume."""
        tiling = self.tiling
        mask = None if self.mask is None else self.mask[item, 0]
        batches = tiling.batches(self.settings.sw_batch_size, mask)
        if not batches:
            return
        tally.begin(item, tiling, mask)
        self.windows += sum(map(len, batches))
        # disable=None: a bar on a terminal only, no lines in a log
        for starts in tqdm(batches, desc="windows", leave=False, disable=None) if self.settings.progress else batches:
            tally.advance(starts[0][tiling.axis])
            for network in self.networks:
                tally.add(self._scores(network, item, starts), starts, weight)
            tally.count(starts, weight)
        tally.advance(tiling.extent[tiling.axis])

    def _scores(self, network: Callable, item: int, starts: Sequence[Sequence[int]]) -> torch.Tensor:
        """What a network says of the cores at `starts`: ``n K d h w``, float32, activated or as votes."""
        settings, tiling = self.settings, self.tiling
        volume = self.volume[item : item + 1]
        windows = [read_window(volume, tiling.window(start), tiling.roi, settings.padding_mode) for start in starts]
        scores = network(windows[0] if len(windows) == 1 else torch.cat(windows), *self.args, **self.kwargs)
        self._check(scores, len(starts))
        scores = scores.as_tensor() if isinstance(scores, MetaTensor) else scores
        inside = [slice(drop, length - drop) for drop, length in zip(self.drop, self.size)]
        scores = scores[(slice(None), slice(None), *inside)]
        # half precision is widened here: sums of many windows need float32
        if settings.activation == "softmax":
            scores = torch.softmax(scores, dim=1, dtype=torch.float32)
        elif settings.activation == "sigmoid":
            scores = torch.sigmoid(scores.float())
        else:
            scores = scores.float()
        if settings.vote == "mean":
            return scores
        if settings.threshold is not None:
            return (scores >= settings.threshold).float()
        winner = first_argmax(scores.split(1, dim=1), torch.int64)
        return torch.zeros_like(scores).scatter_(1, winner, 1.0)

    def _check(self, scores: Any, windows: int) -> None:
        """Refuse what cannot be stitched; the first window of an unknown network may still set the size."""
        if not isinstance(scores, torch.Tensor) or scores.ndim != self.volume.ndim or scores.shape[0] != windows:
            came = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise InputError(
                problem(
                    f"the network returned {came} for {windows} windows",
                    "it must return one tensor of scores, B K and the spatial axes",
                    "wrap the network so that forward returns its final scores only",
                )
            )
        size, classes = tuple(scores.shape[2:]), scores.shape[1]
        if size != self.size and self.learn:
            raise _OtherSize(size)
        if size != self.size or self.classes not in (None, classes):
            raise InputError(
                problem(
                    f"a network returned {classes} channels of {size} for a window of {self.tiling.roi}, "
                    f"where {self.classes or 'some'} channels of {self.size} were expected",
                    "all networks must keep to one output size (that of output_size, else of the first window) "
                    "and one number of classes",
                    "use networks of one geometry and task, or mend output_size",
                )
            )
        self.learn, self.classes = False, classes
        best_class = self.settings.threshold is None and (
            self.settings.output == "labels" or self.settings.vote == "majority"
        )
        if classes == 1 and (best_class or self.settings.activation == "softmax"):
            raise InputError(
                problem(
                    "the network has one output channel",
                    "a softmax or a best class needs at least two",
                    "pass activation='sigmoid' and a threshold such as 0.5",
                )
            )


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    """Raise for an argument that breaks its rule."""
    if not holds:
        raise InputError(problem(f"{name}={value!r}", f"{name} must be {rule}", f"change {name}"))
