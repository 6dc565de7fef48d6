"""Weights for an evaluator; refused where they saw what is scored, called out where they were trained on phantoms."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from ..checks import InputError, problem
from ..data.overlap import resolved, shared_scans
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
        evaluated: what is scored, as :func:`common.data.provenance.provenance` tells it: weights that were trained on
            the same data set under another split would be scored on what they have seen, and are refused. Another
            data set may be split in any way, but scans in it that are known again by their content as trained on are
            called out as a phantom's weights are. None, as in prediction, compares nothing.
        settings: grid, windows and the like, as :class:`~common.engines.stage_trainer.StageTrainer` noted them of the
            training. Other ones can be meant (a wider region, thick slices), so they are no error: they are logged and
            kept as ``engine.state.warning``, as a phantom's weights are.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str | os.PathLike[str],
        evaluated: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.path = path
        self.evaluated = evaluated
        self.settings = settings
        self._other = self._shared = ""
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
            InputError: when they were trained on the data that are scored, under another split.
        """
        engine.state.weights, self._shared = load_weights(self.network, self.path), ""
        if self.evaluated is not None:
            _check_split(engine.state.weights, self.evaluated, Path(self.path).name)
            if contents := engine.state.weights.get("contents"):  # else the scans need not be read
                self._shared = shared_scans(contents, resolved(self.evaluated).get("contents"))
        self._other = differing_settings(engine.state.weights.get("settings", {}), self.settings)
        engine.state.warning = None
        self._told = set()

    def _compare(self, engine: Engine) -> None:
        warnings = [self._shared] if self._shared else []
        warnings += [f"these weights were trained with {self._other}."] if self._other else []
        if engine.state.weights.get("phantom") and not is_phantom_file(image_source(engine.state.batch)):
            warnings.append(PHANTOM_WARNING)
        engine.state.warning = " ".join(warnings) or None
        for warning in warnings:
            if warning not in self._told:
                logger.warning("%s\nWARNING: %s\n%s", "!" * 80, warning, "!" * 80)
                self._told.add(warning)


def _check_split(trained: Mapping[str, Any], evaluated: Mapping[str, Any], name: str, link: str = "") -> None:
    """Refuse to score weights on parts of their own data set that they, or those they started from, may have seen."""
    if before := trained.get("started_from"):
        _check_split(before, evaluated, name, " started from weights that")
    if trained.get("fingerprint") != evaluated["fingerprint"]:
        return
    if "split" not in trained:
        logger.warning("%s does not say how its data were split: scores may be of what it was trained on.", name)
        return
    then, now = trained["split"], evaluated["split"]
    if "joined" in then:
        came = f"'{name}'{link} {'join' if link else 'joins'} {len(then['joined'])} runs on this data set"
        rule = "together they were trained on every case that one of them held out"
        raise InputError(problem(came, rule, "evaluate each run on its own fold, or score another data set"))
    if then.get("cases") and now.get("cases") and not set(then["cases"]) & set(now["cases"]):
        return  # not one case of the training is scored
    # what the training's split lacks decided nothing in it
    differing = [setting for setting in then if then[setting] != now.get(setting)]
    if differing:
        came = ", ".join(f"{setting} {_text(then[setting])} (now {_text(now.get(setting))})" for setting in differing)
        raise InputError(
            problem(
                f"'{name}'{link} {'were' if link else 'was'} trained on this data set with {came}",
                "under another split it would be scored on what it was trained on",
                f"pass {' '.join(f'--{setting} {_text(then[setting])}' for setting in differing)}, or train anew",
            )
        )


def _text(value: int | list[int] | None) -> str:
    """A setting as a command line takes it."""
    return json.dumps(value, separators=(",", ":")) if value is not None else "None"


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
