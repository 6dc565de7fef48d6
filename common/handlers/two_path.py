"""What changes from epoch to epoch when two paths are trained: the directions, and the weight of the random path."""

from __future__ import annotations

import logging

from ignite.engine import Engine, Events

from ..inferers.two_path import TwoPathInferer
from ..losses.two_path import TwoPathLoss, joint_weight

__all__ = ["TwoPathSchedule"]

logger = logging.getLogger(__name__)


class TwoPathSchedule:
    """Directions and weight of the two paths at the start of each epoch (angermann2019random25d).

    Both follow from the number of the epoch alone, so that the processes of one training agree without a word, and a
    run that was killed resumes as if it had not been.

    Args:
        inferer: is told the epoch, and draws.
        loss: its weight becomes c(n), see :func:`~common.losses.two_path.joint_weight`; what it is now is c(1).
    """

    def __init__(self, inferer: TwoPathInferer, loss: TwoPathLoss) -> None:
        self.inferer, self.loss, self.start = inferer, loss, loss.weight

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set what the epoch that `engine` begins is trained with."""
        epoch = engine.state.epoch
        self.inferer.begin_epoch(epoch)
        self.loss.weight = joint_weight(epoch, self.start)
        logger.debug("epoch %d: directions %s, weight %.4g.", epoch, self.inferer.angles, self.loss.weight)
