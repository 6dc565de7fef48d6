"""Sums of scores that roll along one axis of a volume, and the labels or probabilities made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..geometry.boxes import Box, bounding_box
from ..geometry.grids import first_argmax, label_dtype
from .tiling import Tiling

__all__ = ["RollingSums", "Tally"]


class RollingSums:
    """Weighted sums of scores over tiles in a box, holding `height` rows along one axis: row r of it at ``r % height``.

    Args:
        sums: zeros, ``K d h w`` of the box's size but `height` rows along `axis`; with all of its rows nothing rolls.
        counts: zeros, ``d h w`` like `sums`, for the sum of weights; None where no mean is needed.
        box: the part of the volume that the sums are for; scores outside it are dropped.
        axis: the rolling spatial axis.
    """

    def __init__(self, sums: torch.Tensor, counts: torch.Tensor | None, box: Box, axis: int) -> None:
        self.sums, self.counts = sums, counts
        self.box, self.axis = box, axis
        self.height = sums.shape[axis + 1]

    @property
    def classes(self) -> int:
        """K."""
        return self.sums.shape[0]

    def add(self, scores: torch.Tensor, start: Sequence[int], weight: torch.Tensor | None) -> None:
        """Add the scores of one core, ``K d h w``, times `weight` (``d h w``; None is 1), inside the box."""
        for target, source in self._pieces(start, scores.shape[1:]):
            into, part = self.sums[(slice(None), *target)], scores[(slice(None), *source)]
            if weight is None:
                into.add_(part)
            else:
                into.addcmul_(part, weight[source])

    def count(self, start: Sequence[int], core: Sequence[int], weight: torch.Tensor | None) -> None:
        """Add the weights of one core to the counts, if any are kept."""
        if self.counts is not None:
            for target, source in self._pieces(start, core):
                self.counts[target] += 1 if weight is None else weight[source]

    def rows(self, first: int, stop: int) -> Iterator[tuple[tuple[slice, ...], torch.Tensor, torch.Tensor | None]]:
        """Where rows lie in the volume (index of the spatial axes), their sums (a view) and their counts."""
        for row, position, length in self._spans(first, stop):
            place = list(self.box.slices)
            place[self.axis] = slice(row, row + length)
            counts = None if self.counts is None else self.counts.narrow(self.axis, position, length)
            yield tuple(place), self.sums.narrow(self.axis + 1, position, length), counts

    def clear(self, first: int, stop: int) -> None:
        """Make room: rows that are finished give their places to later ones."""
        for _, sums, counts in self.rows(first, stop):
            sums.zero_()
            if counts is not None:
                counts.zero_()

    def _spans(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Rows first .. stop - 1 as runs without a seam: row, place in the buffer, length."""
        while first < stop:
            position = (first - self.box.start[self.axis]) % self.height
            length = min(self.height - position, stop - first)
            yield first, position, length
            first += length

    def _pieces(
        self, start: Sequence[int], core: Sequence[int]
    ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Index in the buffer and index in the core of the part of a core that lies in the box."""
        inside, source = _inside(start, core, self.box)
        target = [slice(a - first, b - first) for a, b, first in zip(inside.start, inside.stop, self.box.start)]
        axis = self.axis
        for row, position, length in self._spans(inside.start[axis], inside.stop[axis]):
            yield (
                (*target[:axis], slice(position, position + length), *target[axis + 1 :]),
                (*source[:axis], slice(row - start[axis], row - start[axis] + length), *source[axis + 1 :]),
            )


class Tally:
    """Turn the scores of windows into the result of one batch of volumes, rows at a time.

    Where every voxel has one prediction there is nothing to sum: the labels of a core are written as it comes.
    Otherwise sums are kept inside the box around the mask only.

    Args:
        shape: of the inputs, ``B C D H W``.
        output: ``"labels"`` or ``"probabilities"``.
        threshold: None for the best class, else what a mean must reach.
        majority: scores are votes of 0 and 1; with a threshold more than half of them must be 1.
        models: networks whose scores are added for every window.
        device: of the inputs.
    """

    def __init__(
        self,
        shape: Sequence[int],
        output: str,
        threshold: float | None,
        majority: bool,
        models: int,
        device: torch.device,
    ) -> None:
        self.batch, self.extent, self.device = shape[0], tuple(shape[2:]), device
        self.labels = output == "labels"
        self.threshold, self.majority, self.models = threshold, majority, models
        self.result: torch.Tensor | None = None

    @property
    def best_class(self) -> bool:
        """Whether the result is the class with the largest sum, for which no mean is needed."""
        return self.labels and self.threshold is None

    def allocate(self, classes: int) -> torch.Tensor:
        """The result, zeros, for `classes` channels of scores, made once."""
        if self.result is None:
            channels = 1 if self.best_class else classes
            dtype = torch.float32 if not self.labels else label_dtype(classes) if self.best_class else torch.uint8
            self.result = torch.zeros((self.batch, channels, *self.extent), dtype=dtype, device=self.device)
        return self.result

    def begin(self, item: int, tiling: Tiling, mask: torch.Tensor | None) -> None:
        """Start on one volume of the batch; `mask`, ``D H W`` bool, is not empty and stays the result's bounds."""
        self.item, self.tiling, self.mask = item, tiling, mask
        self.box = Box((0,) * len(self.extent), self.extent)
        if mask is not None:
            self.box = bounding_box(mask, spatial_dims=mask.ndim)
        self.done = self.box.start[tiling.axis]
        self.single = self.best_class and self.models == 1 and tiling.single
        self.sums: RollingSums | None = None

    def add(self, scores: torch.Tensor, starts: Sequence[Sequence[int]], weight: torch.Tensor | None) -> None:
        """Add one network's scores, ``n K d h w``, of the cores at `starts`."""
        if self.single:
            for start, core in zip(starts, scores):
                inside, source = _inside(start, core.shape[1:], self.box)
                self._finish(inside.slices, core[(slice(None), *source)], None)
            return
        if self.sums is None:
            self.sums = self._fresh(scores.shape[1])
        for start, core in zip(starts, scores):
            self.sums.add(core, start, weight)

    def count(self, starts: Sequence[Sequence[int]], weight: torch.Tensor | None) -> None:
        """Count the cores at `starts`, once for all networks."""
        if self.sums is not None:
            for start in starts:
                self.sums.count(start, self.tiling.core, weight)

    def advance(self, row: int) -> None:
        """No later window touches what lies before `row` of the rolling axis: finish it."""
        row = min(row, self.box.stop[self.tiling.axis])
        if self.sums is None or row <= self.done:
            return
        # rows further on than one buffer have been touched by no window: they stay zero
        stop = min(row, self.done + self.sums.height)
        for place, part, counts in self.sums.rows(self.done, stop):
            self._finish(place, part, counts)
        if self.labels:
            self.sums.clear(self.done, stop)
        self.done = row

    def _fresh(self, classes: int) -> RollingSums:
        """Sums for one volume: the result itself where probabilities are wanted, else rows that roll."""
        result, axis, rows = self.allocate(classes), self.tiling.axis, list(self.box.size)
        if self.labels:
            rows[axis] = min(self.tiling.height, rows[axis])
            sums = torch.zeros((classes, *rows), dtype=torch.float32, device=self.device)
        else:
            sums = result[(self.item, slice(None), *self.box.slices)]
        counts = None if self.best_class else torch.zeros(rows, dtype=torch.float32, device=self.device)
        return RollingSums(sums, counts, self.box, axis)

    def _finish(self, place: tuple[slice, ...], sums: torch.Tensor, counts: torch.Tensor | None) -> None:
        """Labels or means of a part of the volume, 0 outside the mask (where no window came, a mean is 0 / 0)."""
        result = self.allocate(len(sums))[(self.item, slice(None), *place)]
        if self.best_class:
            result[0] = first_argmax(sums, result.dtype)
        else:
            sums.div_(counts * self.models)
            if self.labels:
                result.copy_(sums > 0.5 if self.majority else sums >= self.threshold)
        if self.mask is not None:
            result.masked_fill_(~self.mask[place], 0)


def _inside(start: Sequence[int], core: Sequence[int], box: Box) -> tuple[Box, tuple[slice, ...]]:
    """The part of a core that lies in a box: as a box in the volume, and as an index of the core."""
    low = tuple(max(first, least) for first, least in zip(start, box.start))
    high = tuple(min(first + length, most) for first, length, most in zip(start, core, box.stop))
    return Box(low, high), tuple(slice(a - first, b - first) for a, b, first in zip(low, high, start))
