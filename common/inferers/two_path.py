"""Training of both paths of the random 2.5D U-Net: directions drawn anew, the same in every process."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor

from ..checks import InputError, problem
from ..geometry.projection import sector_angles

__all__ = ["TwoPathInferer"]

_REDRAW = ("epoch", "iteration")
_DRAWS_OF_AN_EPOCH = 1 << 20  # more than an epoch has iterations


class TwoPathInferer(Inferer):
    """Give a network one random direction of each sector besides all the fixed ones (angermann2019random25d).

    Directions follow from `seed`, the epoch and, where they are drawn anew within it, the iteration, and from nothing
    else: every process of a training has the same ones, a run that was killed goes on with those it would have had,
    and no other draw of random numbers is touched. :class:`~common.handlers.two_path.TwoPathSchedule` tells the epoch;
    until it does, it is the first.

    Args:
        sectors: p, into how many sectors of 180 / p degrees the half circle is cut.
        seed: of the directions.
        redraw: "epoch", the paper's, or "iteration".

    Raises:
        InputError: for another `redraw`, or no sectors.

    >>> network = lambda inputs, projections, angles: [int(angle) // 45 for angle in angles]
    >>> TwoPathInferer(sectors=4)(torch.zeros(1, 1, 4, 4, 4), network)
    [0, 1, 2, 3]
    """

    def __init__(self, sectors: int = 12, seed: int = 0, redraw: str = "epoch") -> None:
        super().__init__()
        if redraw not in _REDRAW:
            rule = f"directions are drawn anew at each of: {', '.join(_REDRAW)}"
            raise InputError(problem(f"redraw is {redraw!r}", rule, "take 'epoch' for the paper's training"))
        self.sectors, self.seed, self.redraw = sectors, seed, redraw
        self.begin_epoch(1)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the directions of an epoch.

        Args:
            epoch: its number, from 1.
        """
        self.epoch, self._iteration = epoch, 0
        self.angles = self._draw()

    def _draw(self) -> list[float]:
        if self.redraw == "epoch":
            return sector_angles(self.sectors, self.seed, self.epoch)
        return sector_angles(self.sectors, self.seed, self.epoch * _DRAWS_OF_AN_EPOCH + self._iteration)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], projections: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run both paths.

        Args:
            inputs: B C A B C, rotation about the second axis in space.
            network: a :class:`~common.networks.random25d.RandomProjectionUNet`, wrapped or not.
            projections: B m C b W of the fixed directions, as ``common.transforms.ProjectVolumed`` makes them; made by
                the network where they are missing.

        Returns:
            logits B 2K A B C: of all directions, then of the random ones.
        """
        if self.redraw == "iteration":
            self.angles = self._draw()
            self._iteration += 1
        if projections is not None:
            projections = convert_to_tensor(projections, track_meta=False)
        return network(convert_to_tensor(inputs, track_meta=False), projections, self.angles)
