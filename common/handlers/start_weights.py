"""Weights that a training starts from."""

from __future__ import annotations

import os

import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from ..checks import WeightsError, problem
from ..weights import load_weights

__all__ = ["StartWeights"]


class StartWeights(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` for the weights of a bundle, with errors that say what differs.

    What the sidecar of the weights says is kept as ``engine.state.started_from``: whatever they were trained on, the
    weights that come of this training have seen, too. A training that is resumed goes on from its own weights, as with
    every ``CheckpointLoader`` (:class:`~common.engines.stage_trainer.StageTrainer`).

    Args:
        network: the network to fill.
        path: a state dict, with its sidecar where it has one.
    """

    def __init__(self, network: torch.nn.Module, path: str | os.PathLike[str]) -> None:
        super().__init__(str(path), {"model": network})
        self.network = network

    def __call__(self, engine: Engine) -> None:
        """
        Raises:
            WeightsError: when there are no weights, or they are of another network.
        """
        if not os.path.isfile(self.load_path):
            came = f"there are no weights at '{self.load_path}' to start from"
            rule = "start_from names a file of weights of this network"
            raise WeightsError(problem(came, rule, "correct --start_from, or leave it out"))
        info = load_weights(self.network, self.load_path)
        # scans' hashes and versions of an ancestor would only lengthen every sidecar after it
        engine.state.started_from = {key: value for key, value in info.items() if key not in ("contents", "versions")}
        self.logger.info("training starts from the weights %s.", self.load_path)
