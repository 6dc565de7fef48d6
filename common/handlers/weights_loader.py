"""Weights for an evaluator; called out where they were trained on phantoms."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from ..checks import InputError
from ..files import read_json
from ..weights import differing_settings, load_weights
from .cases import image_source

__all__ = ["PHANTOM_WARNING", "WeightsLoader", "is_phantom_file"]

logger = logging.getLogger(__name__)

PHANTOM_WARNING = (
    "these weights were trained on a synthetic phantom and the input is not one: the result shows that the program "
    "runs and nothing else. Train on real data before using it."
)


class WeightsLoader:
    """Loads ``models/model.pt`` when an evaluator starts; without weights it refuses to start.

    The weights' sidecar is kept as ``engine.state.weights``. Where it says ``phantom: true`` and the image of the
    current case does not come from a phantom data set, :data:`PHANTOM_WARNING` is logged and kept as
    ``engine.state.warning`` (else None), from where reports and pictures take it.

    Args:
        network: the network to fill.
        path: the weights.
        settings: grid, windows and the like, as :class:`~common.engines.stage_trainer.StageTrainer` noted them of the
            training. Other ones can be meant (a wider region, thick slices), so they are no error: they are logged and
            kept as ``engine.state.warning``, as a phantom's weights are.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.path = path
        self.settings = settings
        self._warnings: list[str] = []
        self._told: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the evaluator.
        """
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.ITERATION_STARTED, self._compare)

    def _load(self, engine: Engine) -> None:
        """
        Raises:
            WeightsError: when there are no weights, or they are of another network.
        """
        engine.state.weights = load_weights(self.network, self.path)
        self._warnings = self._compared(engine.state.weights)
        engine.state.warning = None
        self._told = set()

    def _compared(self, info: Mapping[str, Any]) -> list[str]:
        """What is to be told of these weights at every case.

        Args:
            info: their sidecar.
        """
        other = differing_settings(info.get("settings", {}), self.settings)
        return [f"these weights were trained with {other}."] if other else []

    def _compare(self, engine: Engine) -> None:
        warnings = list(self._warnings)
        if engine.state.weights.get("phantom") and not is_phantom_file(image_source(engine.state.batch)):
            warnings.append(PHANTOM_WARNING)
        engine.state.warning = " ".join(warnings) or None
        for warning in warnings:
            if warning not in self._told:
                logger.warning("%s\nWARNING: %s\n%s", "!" * 80, warning, "!" * 80)
                self._told.add(warning)


def is_phantom_file(path: str | os.PathLike[str]) -> bool:
    """Whether the nearest ``dataset.json`` in the folders above a file says ``"phantom": true``."""
    return bool(path) and _is_phantom_folder(Path(path).resolve().parent)


@functools.lru_cache(maxsize=1024)
def _is_phantom_folder(folder: Path) -> bool:
    for parent in (folder, *folder.parents):
        listing = parent / "dataset.json"
        if listing.is_file():
            try:
                content = read_json(listing)
            except (InputError, OSError):
                return False
            return isinstance(content, dict) and content.get("phantom") is True
    return False
