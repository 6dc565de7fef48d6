"""Weights for an evaluator, and a warning where they were trained on phantoms and the data are real."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from ..checks import InputError
from ..files import read_json
from ..weights import load_weights
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
    """

    def __init__(self, network: torch.nn.Module, path: str | os.PathLike[str]) -> None:
        self.network = network
        self.path = path
        self._warned = False

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
        engine.state.warning = None
        self._warned = False

    def _compare(self, engine: Engine) -> None:
        phantom = bool(engine.state.weights.get("phantom"))
        engine.state.warning = (
            PHANTOM_WARNING if phantom and not is_phantom_file(image_source(engine.state.batch)) else None
        )
        if engine.state.warning and not self._warned:
            logger.warning("%s\nWARNING: %s\n%s", "!" * 80, engine.state.warning, "!" * 80)
            self._warned = True


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
