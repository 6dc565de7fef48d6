"""Random runs of whole slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Randomizable, Transform

from ..checks import InputError, problem
from ..geometry.grids import tile_starts
from .source import check_one_grid
from .window import cut_window

__all__ = ["RandSlab", "RandSlabd", "sweep_share"]


def sweep_share(extent: int, slices: int = 32, step: int = 25) -> tuple[list[int], int]:
    """Which windows the released code takes of a volume for RA-UNet-II (jin2020raunet, section 2.3).

    Args:
        extent: slices of the volume.
        slices: slices of a window.
        step: slices from one window of the sweep to the next.

    Returns:
        the starts of a regular sweep, the last one clamped to the end, and the number of random windows beside it,
        4 int(2 extent / 20).

    >>> sweep_share(100)
    ([0, 25, 50, 68], 40)
    """
    return tile_starts(extent, slices, step), 4 * int(2 * extent / 20)


class RandSlab(Randomizable, Transform):
    """Draw a window of so many slices along the last axis, whole in the other two (jin2020raunet, section 2.3).

    The released code stores windows of each volume once: a regular sweep and uniformly random ones, see
    :func:`sweep_share`. Here a window is drawn of either kind in the same proportion.

    Deviation: volumes with fewer slices are padded by repeating the border slices on both sides; the released code
    passes over them.

    Args:
        slices: slices of a window.
        sweep_step: slices from one window of the sweep to the next, at most `slices`.

    Raises:
        InputError: for arguments out of range.
    """

    def __init__(self, slices: int = 32, sweep_step: int = 25) -> None:
        self.slices, self.sweep_step = int(slices), int(sweep_step)
        if not 1 <= self.sweep_step <= self.slices:
            came = f"slices {slices} with sweep_step {sweep_step} was given"
            rule = "the sweep must step on by 1 slice at least and leave out none"
            raise InputError(problem(came, rule, "give a sweep_step from 1 to the number of slices"))
        self.start = 0

    def randomize(self, extent: int) -> None:
        """Draw the first slice of the window for a volume of `extent` slices; it is negative for a shorter one."""
        sweep, random = sweep_share(extent, self.slices, self.sweep_step)
        drawn = int(self.R.randint(len(sweep) + random))
        if drawn < len(sweep) or extent <= self.slices:
            self.start = sweep[min(drawn, len(sweep) - 1)]
        else:
            self.start = int(self.R.randint(extent - self.slices + 1))

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Cut the window out.

        Args:
            img: C X Y Z.
            randomize: draw a window; otherwise the one drawn last is taken.

        Returns:
            C X Y `slices` of the same type and dtype, a copy. The affine of a `MetaTensor` follows; the record of
            operations applied before ends here.
        """
        if randomize:
            self.randomize(img.shape[-1])
        return cut_window(img, (0, 0, self.start), (*img.shape[1:3], self.slices), "replicate")


class RandSlabd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandSlab`: the same slices of all entries.

    Args:
        keys: images and labels on one grid.
        slices, sweep_step: see :class:`RandSlab`.
        allow_missing_keys: do not raise when one is missing.
    """

    def __init__(
        self, keys: KeysCollection, slices: int = 32, sweep_step: int = 25, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.slab = RandSlab(slices, sweep_step)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandSlabd:
        """Seed this transform."""
        super().set_random_state(seed, state)
        self.slab.set_random_state(seed, state)
        return self

    def randomize(self, data: Any) -> None:
        """Draw a window for a volume of `data` slices."""
        self.slab.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the window out of every entry."""
        result = dict(data)
        volumes = {key: torch.as_tensor(data[key]) for key in self.key_iterator(result)}
        if not volumes:
            return result
        first, reference = next(iter(volumes.items()))
        check_one_grid(volumes, reference, str(first))
        self.randomize(reference.shape[-1])
        for key in volumes:
            result[key] = self.slab(data[key], randomize=False)
        return result
