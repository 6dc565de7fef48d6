"""Sums of scores that roll along one axis of a volume, and the labels or probabilities made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..geometry.grids import first_argmax, label_dtype
from .tiling import Tiling

__all__ = ["RollingSums", "Tally"]


class RollingSums:
    """Weighted sums of scores over tiles, holding `height` rows along one axis: row r lives at ``r % height``.

    Args:
        sums: zeros, ``K D H W`` with `height` rows along `axis`; with all rows of the volume nothing rolls.
        counts: zeros, ``D H W`` like `sums`, for the sum of weights; None where no mean is needed.
        extent: spatial size of the volume.
        axis: the rolling spatial axis.
    """

    def __init__(self, sums: torch.Tensor, counts: torch.Tensor | None, extent: Sequence[int], axis: int) -> None:
        self.sums, self.counts = sums, counts
        self.extent, self.axis = tuple(extent), axis
        self.height = sums.shape[axis + 1]

    @property
    def classes(self) -> int:
        """K."""
        return self.sums.shape[0]

    def add(self, scores: torch.Tensor, start: Sequence[int], weight: torch.Tensor | None) -> None:
        """Add the scores of one core, ``K d h w``, times `weight` (``d h w``; None is 1), inside the volume."""
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
            place = [slice(None)] * len(self.extent)
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
            position = first % self.height
            length = min(self.height - position, stop - first)
            yield first, position, length
            first += length

    def _pieces(
        self, start: Sequence[int], core: Sequence[int]
    ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Index in the buffer and index in the core of the part of a core that lies in the volume."""
        low = [max(first, 0) for first in start]
        high = [min(first + length, voxels) for first, length, voxels in zip(start, core, self.extent)]
        target = [slice(a, b) for a, b in zip(low, high)]
        source = [slice(a - first, b - first) for a, b, first in zip(low, high, start)]
        axis = self.axis
        for row, position, length in self._spans(low[axis], high[axis]):
            target[axis] = slice(position, position + length)
            source[axis] = slice(row - start[axis], row - start[axis] + length)
            yield tuple(target), tuple(source)


class Tally:
    """Turn the scores of windows into the result of one batch of volumes, rows at a time.

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

    def begin(self, item: int, tiling: Tiling, row: int) -> None:
        """Start on one volume of the batch, whose first window begins at `row` of the rolling axis."""
        self.item, self.tiling, self.done = item, tiling, max(row, 0)
        self.sums: RollingSums | None = None

    def add(self, scores: torch.Tensor, starts: Sequence[Sequence[int]], weight: torch.Tensor | None) -> None:
        """Add one network's scores, ``n K d h w``, of the cores at `starts`."""
        if self.sums is None:
            self.sums = self._fresh(scores.shape[1])
        for start, core in zip(starts, scores):
            self.sums.add(core, start, weight)

    def count(self, starts: Sequence[Sequence[int]], weight: torch.Tensor | None) -> None:
        """Count the cores at `starts`, once for all networks."""
        for start in starts:
            self.sums.count(start, self.tiling.core, weight)

    def advance(self, row: int) -> None:
        """No later window touches what lies before `row` of the rolling axis: finish it."""
        if self.sums is None or row <= self.done:
            return
        # rows further on than one buffer have been touched by no window: they stay zero
        stop = min(row, self.done + self.sums.height)
        for place, part, counts in self.sums.rows(self.done, stop):
            self._finish(self.result[(self.item, slice(None), *place)], part, counts)
        if self.labels:
            self.sums.clear(self.done, stop)
        self.done = row

    def _fresh(self, classes: int) -> RollingSums:
        """Sums for one volume: the result itself where probabilities are wanted, else rows that roll."""
        result, axis, rows = self.allocate(classes), self.tiling.axis, list(self.extent)
        if self.labels:
            rows[axis] = self.tiling.height
            sums = torch.zeros((classes, *rows), dtype=torch.float32, device=self.device)
        else:
            sums = result[self.item]
        counts = None if self.best_class else torch.zeros(rows, dtype=torch.float32, device=self.device)
        return RollingSums(sums, counts, self.extent, axis)

    def _finish(self, result: torch.Tensor, sums: torch.Tensor, counts: torch.Tensor | None) -> None:
        """Labels or means of some rows; where no window came, the mean is 0 / 0 and the mask's business."""
        if self.best_class:
            result[0] = first_argmax(sums, result.dtype)
            return
        sums.div_(counts * self.models)
        if self.labels and self.majority:
            result.copy_(sums > 0.5)
        elif self.labels:
            result.copy_(sums >= self.threshold)
