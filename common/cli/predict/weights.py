"""Weights that no run could use, found before anything is staged."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from ...bundling.ids import children, references
from ...weights import load_weights

__all__ = ["check_weights"]


def check_weights(parser: ConfigParser, weights: Path) -> None:
    """Refuse weights that the line would refuse, which it finds only when all inputs are staged.

    A config in which nothing reads ``model_path`` needs none. A network that can not be built here is left to the line.

    Args:
        parser: config of the line.
        weights: the file at its ``model_path``.

    Raises:
        WeightsError: when there are none, or they are unreadable or of another network.
    """
    if not _reads_weights(parser.get()):
        return
    if not weights.is_file():
        load_weights(torch.nn.Identity(), weights)  # raises what is said of weights that are not there
    network = None
    with contextlib.suppress(Exception):
        network = parser.get_parsed_content("network_def")
    if isinstance(network, torch.nn.Module) and not _fit(network, weights):
        load_weights(network, weights)  # the judge: raises what is said of such weights


def _reads_weights(part: Any) -> bool:
    """Whether something in a part of a config, which is not disabled, refers to ``model_path``."""
    if isinstance(part, str):
        return "model_path" in references(part)
    if isinstance(part, Mapping) and str(part.get("_disabled_", "")).lower() == "true":
        return False
    return any(_reads_weights(value) for _, value in children(part))


def _fit(network: torch.nn.Module, weights: Path) -> bool:
    """Whether a file holds tensors of a network's names and shapes; their values stay on the disk."""
    try:
        state = torch.load(weights, map_location="cpu", mmap=True, weights_only=True)
        held = {name: tensor.shape for name, tensor in state.items()}
    except Exception:  # of many types: no checkpoint, another form of one, cut short
        return False
    return held == {name: tensor.shape for name, tensor in network.state_dict().items()}
