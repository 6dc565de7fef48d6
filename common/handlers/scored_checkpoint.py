"""Weights for an evaluation; refused where they saw what is scored."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checks import InputError, problem
from ..data.overlap import resolved, shared_scans
from .weights_loader import WeightsLoader

__all__ = ["ScoredCheckpointLoader"]

logger = logging.getLogger(__name__)


class ScoredCheckpointLoader(WeightsLoader):
    """A :class:`~common.handlers.weights_loader.WeightsLoader` that knows what the weights are about to be scored on.

    Its name is a part of what it does: ``monai.fl`` hands the global weights to an evaluator, and leaves out the
    handlers of ``validate::handlers`` that have ``CheckpointLoader`` in their target, which would put a file's weights
    in their place.

    Args:
        network: the network to fill.
        path: the weights.
        evaluated: what is scored, as :func:`common.data.provenance.provenance` tells it: weights that were trained on
            the same data set under another split would be scored on what they have seen, and are refused. Another
            data set may be split in any way, but scans in it that are known again by their content as trained on are
            called out as a phantom's weights are.
        settings: as of the parent.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str | os.PathLike[str],
        evaluated: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(network, path, settings)
        self.evaluated = evaluated

    def _compared(self, info: Mapping[str, Any]) -> list[str]:
        """
        Raises:
            InputError: when the weights were trained on the data that are scored, under another split.
        """
        _check_split(info, self.evaluated, Path(self.path).name)
        told = super()._compared(info)
        if contents := info.get("contents"):  # else the scans need not be read
            if shared := shared_scans(contents, resolved(self.evaluated).get("contents")):
                told.insert(0, shared)
        return told


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
