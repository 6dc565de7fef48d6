"""The trainer of all stages of a method at once, for federated learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer

from .stage_trainer import StageTrainer

__all__ = ["RoundTrainer"]


class RoundTrainer(SupervisedTrainer):
    """Train every stage of a composite at each call of :meth:`run`, and hold the composite for whoever averages it.

    ``monai.fl`` runs one trainer, ``train::trainer``, once a round, and exchanges the weights of its network. That of a
    method of several stages holds the last child only: this trainer, laid over it, runs the earlier stages before it
    and has the composite for its network. A stage is trained in every round for as many epochs as it is configured to,
    from the weights of the federation, and goes on with its optimiser and schedule where the last round left them.

    Args:
        network_def: the composite that holds every network of the method.
        network: what the last stage trains.
        steps: what comes before the last stage, in order: trainers of stages, and functions without arguments.
        kwargs: of the last stage, as of :class:`~common.engines.stage_trainer.StageTrainer`.
    """

    def __init__(
        self,
        network_def: torch.nn.Module,
        network: torch.nn.Module,
        *,
        steps: Sequence[StageTrainer | Callable[[], Any]],
        **kwargs: Any,
    ) -> None:
        self.steps = [*steps, StageTrainer(network_def, network, **kwargs)]
        self.stages = [step for step in self.steps if isinstance(step, StageTrainer)]
        self._planned = [int(stage.state.max_epochs) for stage in self.stages]
        self._stopped = False
        shared = ("device", "max_epochs", "train_data_loader", "optimizer", "loss_function")
        super().__init__(network=network_def, **{name: kwargs[name] for name in shared})

    def run(self) -> None:
        """Train every stage once, in order; the round counts as the epochs of the last stage."""
        self._stopped = False
        self.fire_event(Events.STARTED)
        for stage, planned in zip(self.stages, self._planned, strict=True):
            stage.state.max_epochs = stage.state.epoch + planned
        for step in self.steps:
            if self._stopped:
                break
            step.run() if isinstance(step, StageTrainer) else step()
        self.state.epoch = self.stages[-1].state.epoch
        self.state.iteration = sum(stage.state.iteration for stage in self.stages)
        self.state.epoch_length = sum(stage.state.epoch_length or 0 for stage in self.stages)
        for stage in self.stages:
            self.state.metrics |= stage.state.metrics
        self.fire_event(Events.EPOCH_COMPLETED)
        self.fire_event(Events.COMPLETED)

    def terminate(self) -> None:
        """End the stage that is running after its iteration, and begin no other."""
        self._end("terminate")

    def interrupt(self) -> None:
        """As :meth:`terminate`; the round can be run again."""
        self._end("interrupt")

    def _end(self, how: str) -> None:
        self._stopped = True
        for stage in self.stages:
            getattr(stage, how)()
