"""Weights of a bundle: one plain state dict, and beside it a JSON sidecar that says where it comes from."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from .checks import WeightsError, problem
from .files import atomic_path, read_json, sha256, write_json

__all__ = [
    "differing_settings",
    "info_path",
    "load_weights",
    "plain_settings",
    "read_info",
    "save_tensors",
    "save_weights",
    "set_aside",
    "versions",
]

logger = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "python": platform.python_version(),
        "monai": monai.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def info_path(path: str | os.PathLike[str]) -> Path:
    """The sidecar of a weights file: ``models/model.pt`` has ``models/model.json``."""
    return Path(path).with_suffix(".json")


def save_tensors(content: Any, path: str | os.PathLike[str]) -> str:
    """``torch.save`` that leaves the whole file or the one before, and names a full disk; returns the SHA-256."""
    # through memory: torch's own writer turns a full disk into an error about stream positions
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def save_weights(network: torch.nn.Module, path: str | os.PathLike[str], info: Mapping[str, Any]) -> None:
    """Write a network's state dict and its sidecar, each whole or not at all.

    The sidecar carries the weights' hash, so a pair torn apart by a crash between the two writes is noticed.

    Args:
        network: the composite of the method (or a network of its own).
        path: ``models/model.pt``.
        info: what to remember: data set and its licence, split, recipe, ``phantom``. Versions, date and hash are added.
    """
    path = Path(path)
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    digest = save_tensors(state, path)
    made = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    write_json(info_path(path), {**info, "versions": versions(), "made": made, "sha256": digest})


def set_aside(path: str | os.PathLike[str]) -> Path:
    """Rename weights and sidecar to the first free of ``model_previous.pt``, ``model_previous_2.pt``, and so on."""
    path = Path(path)
    kept = path.with_name(f"{path.stem}_previous{path.suffix}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.stem}_previous_{number}{path.suffix}")
    os.replace(path, kept)
    if info_path(path).is_file():
        os.replace(info_path(path), info_path(kept))
    logger.info("the weights of an earlier training are kept as %s.", kept.name)
    return kept


def read_info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of the weights at `path`; empty, with a warning, when there is none or it is of other weights."""
    sidecar = info_path(path)
    if not sidecar.is_file():
        logger.warning("%s has no sidecar %s: what it was trained on is unknown.", Path(path).name, sidecar.name)
        return {}
    info = read_json(sidecar)
    if info.get("sha256") != sha256(path):
        logger.warning(
            "%s describes other weights than %s holds: what these were trained on is unknown.",
            sidecar.name,
            Path(path).name,
        )
        return {}
    return info


def load_weights(network: torch.nn.Module, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a state dict strictly and return its sidecar.

    Args:
        network: the network to fill, on any device.
        path: a file written by :func:`save_weights`, or any plain state dict.

    Returns:
        the sidecar's content, or an empty dict when the weights have none.

    Raises:
        WeightsError: when the file is absent, unreadable, or of another network; the text names what differs.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            problem(
                f"there are no weights at '{path}'",
                "a network without trained weights predicts noise",
                "train the bundle first, or pass --model_path FILE",
            )
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a file that is cut short or no checkpoint
        raise WeightsError(
            problem(
                f"'{path}' can not be read as weights ({type(error).__name__})",
                "it must be a state dict as torch.save writes it, tensors only",
                "train again or fetch the file anew",
            )
        ) from error
    _check_fit(network, state, path)
    network.load_state_dict(state)
    return read_info(path)


def _check_fit(network: torch.nn.Module, state: Any, path: Path) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(
            problem(
                f"'{path}' holds no plain state dict",
                "it must map parameter names to tensors",
                "pass the models/model.pt of this bundle, not a resume checkpoint",
            )
        )
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    foreign = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if missing or foreign or shapes:
        parts = [
            f"{len(names)} {kind}, such as {names[0]}"
            for names, kind in ((missing, "missing"), (foreign, "foreign"), (shapes, "of another shape"))
            if names
        ]
        recipe = read_info(path).get("recipe")
        trained = f"; they were trained with the recipe '{recipe}'" if recipe else ""
        raise WeightsError(
            problem(
                f"the weights in '{path}' are of another network ({'; '.join(parts)}{trained})",
                "names and shapes must be those of network_def",
                "use the config, and the overlays such as small.json, that they were trained with",
            )
        )


def plain_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings as a sidecar holds them: what JSON makes of them."""
    return json.loads(json.dumps(dict(settings or {})))


def differing_settings(then: Mapping[str, Any], now: Mapping[str, Any] | None) -> str:
    """What was set otherwise then, in words; empty where nothing was, or nothing is known of one side.

    >>> differing_settings({"dilation": 3, "norm": "batch"}, {"dilation": 5, "norm": "batch"})
    'dilation 3 (now 5)'
    """
    now = plain_settings(now)
    other = [name for name in then if name in now and then[name] != now[name]]
    return ", ".join(f"{name} {json.dumps(then[name])} (now {json.dumps(now[name])})" for name in other)
