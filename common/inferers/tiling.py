"""Where the windows of a volume lie: cores that cover it, each read with a margin around."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, groupby, product

import torch

from ..checks import InputError, problem
from ..geometry.grids import tile_starts, tiling_starts

__all__ = ["Tiling", "margin_of"]


def margin_of(roi: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """Voxels that a network loses on each side of every axis, 0 for a padded network.

    Args:
        roi: window that the network reads.
        size: spatial size of what it returns.

    Raises:
        InputError: the output is larger, or smaller by an odd number, so that no constant symmetric margin fits.

    >>> margin_of((132, 132, 116), (44, 44, 28))
    (44, 44, 44)
    """
    differences = [read - kept for read, kept in zip(roi, size)]
    if len(roi) != len(size) or min(differences) < 0 or any(difference % 2 for difference in differences):
        raise InputError(
            problem(
                f"the network turns a window of {tuple(roi)} into {tuple(size)}",
                "what it returns must be as large as the window, or smaller by the same number of voxels on both sides",
                "choose a roi_size whose output differs by an even number along every axis, or a network with padding",
            )
        )
    return tuple(difference // 2 for difference in differences)


class Tiling:
    """The windows of one volume: cores that cover it, each read with a margin around.

    Tiles come in the order of the rolling axis, along which the volume is longest in tiles: sums over one tile's
    height along that axis are the smallest buffer that ever holds all unfinished voxels.

    Args:
        extent: spatial size of the volume, voxels.
        roi: window that the network reads.
        margin: voxels of the window around its core, on both sides of every axis.
        overlap: fraction of a core that the next one covers again, for each axis.
        votes: None, or the exact number of cores that cover every voxel. They are as many tilings without overlap,
            each shifted by ``core / votes`` along all axes at once; they reach beyond the volume.
        align: starts of cores are multiples of this many voxels, for each axis.
    """

    def __init__(
        self,
        extent: Sequence[int],
        roi: Sequence[int],
        margin: Sequence[int],
        overlap: Sequence[float],
        votes: int | None,
        align: Sequence[int],
    ) -> None:
        self.extent, self.roi, self.margin = tuple(extent), tuple(roi), tuple(margin)
        self.core = tuple(length - 2 * lost for length, lost in zip(roi, margin))
        if min(self.core) < 1:
            raise InputError(
                problem(
                    f"a window of {self.roi} with a margin of {self.margin} on both sides",
                    "at least one voxel must remain inside the margin",
                    "enlarge roi_size or lessen context",
                )
            )
        if any(length < step or (votes is not None and length % step) for length, step in zip(self.core, align)):
            raise InputError(
                problem(
                    f"cores of {self.core} voxels, starting on multiples of {tuple(align)}",
                    "a core holds at least `align` voxels, under `votes` a multiple of them",
                    "enlarge roi_size, or choose context so that the core is a multiple of align",
                )
            )
        if votes is None:
            steps = [max(int(length * (1 - part)), 1) for length, part in zip(self.core, overlap)]
            self.grids = [[tile_starts(*axis) for axis in zip(self.extent, self.core, steps, align)]]
        else:
            self.grids = [
                [
                    tiling_starts(voxels, length, length * vote // votes // step * step)
                    for voxels, length, step in zip(extent, self.core, align)
                ]
                for vote in range(votes)
            ]
        heights = [voxels / min(length, voxels) for voxels, length in zip(self.extent, self.core)]
        self.axis = heights.index(max(heights))

    @property
    def first(self) -> tuple[int, ...]:
        """First voxel of the first core."""
        return tuple(axis[0] for axis in self.grids[0])

    @property
    def single(self) -> bool:
        """Whether no voxel of the volume lies in more than one core."""
        steps = [(b - a, length) for axis, length in zip(self.grids[0], self.core) for a, b in zip(axis, axis[1:])]
        return len(self.grids) == 1 and all(step >= length for step, length in steps)

    @property
    def height(self) -> int:
        """Rows along the rolling axis that one core covers inside the volume."""
        return min(self.core[self.axis], self.extent[self.axis])

    def tiles(self, mask: torch.Tensor | None = None) -> list[tuple[int, ...]]:
        """First voxels of the cores, rising along the rolling axis.

        Args:
            mask: ``D H W``, non-zero where an answer is wanted; cores that miss it are left out. It costs one copy
                of a flag per core to the host.
        """
        found = [start for grid in self.grids for start in product(*grid)]
        if mask is not None:
            flags = torch.cat([_touched(mask, grid, self.core).flatten() for grid in self.grids]).tolist()
            found = list(compress(found, flags))
        return sorted(found, key=lambda start: (start[self.axis], start))

    def batches(self, size: int, mask: torch.Tensor | None = None) -> list[list[tuple[int, ...]]]:
        """The tiles in lists of at most `size` that begin on the same row of the rolling axis."""
        rows = [list(row) for _, row in groupby(self.tiles(mask), key=lambda start: start[self.axis])]
        return [row[first : first + size] for row in rows for first in range(0, len(row), size)]

    def window(self, start: Sequence[int]) -> list[int]:
        """First voxel of the window around a core."""
        return [first - lost for first, lost in zip(start, self.margin)]


def _touched(mask: torch.Tensor, grid: Sequence[Sequence[int]], core: Sequence[int]) -> torch.Tensor:
    """Whether each core of a grid meets the mask; axis by axis, so that every voxel is read once or twice."""
    touched = mask if mask.dtype == torch.bool else mask != 0
    for axis, (starts, length) in enumerate(zip(grid, core)):
        spans = [(max(first, 0), min(first + length, touched.shape[axis])) for first in starts]
        touched = torch.stack([touched.narrow(axis, a, b - a).any(dim=axis) for a, b in spans], dim=axis)
    return touched
