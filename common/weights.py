"""Weights of a bundle: one plain state dict, and beside it a JSON sidecar that says where it comes from."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
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
    "join_members",
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
    state = _read_state(path, network.state_dict())
    network.load_state_dict(state)
    return read_info(path)


def _read_state(path: Path, wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with names and shapes of `wanted`; errors as of `load_weights`."""
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
    _check_fit(wanted, state, path)
    return state


def _check_fit(wanted: Mapping[str, torch.Tensor], state: Any, path: Path) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(
            problem(
                f"'{path}' holds no plain state dict",
                "it must map parameter names to tensors",
                "pass the models/model.pt of this bundle, not a resume checkpoint",
            )
        )
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


def join_members(
    network: torch.nn.Module, paths: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> None:
    """Write the weights of an ensemble, put together from those of as many runs.

    Children of the network that are lists of members take member n from run n; all else is that of the first run.

    The sidecar says of the data what those of the runs say, and as ``split`` that of every run, as ``joined``: together
    they have seen what each held out, so that an evaluation on their data set is refused whatever its split.

    Args:
        network: the ensemble: it has `members`, and as many in each of its lists; it is left with the joined weights.
        paths: the weights of the runs, each of the network with one member, with their sidecars.
        path: where the joined weights go; earlier ones are set aside.

    Raises:
        WeightsError: for another number of runs than members, for weights that `load_weights` would refuse, for a run
            without its sidecar or given twice, and for runs that differ in recipe, settings or data set.
    """
    paths = [Path(each) for each in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    members = int(getattr(network, "members", 1))
    if members < 2 or len(paths) != members:
        came = f"there are {len(paths)} weights for a network of {members} members"
        rule = "an ensemble has two or more, and is joined from the weights of one run each"
        raise WeightsError(problem(came, rule, "give member_paths and members the same number, such as --members 5"))
    wanted, state = network.state_dict(), {}
    lists = tuple(f"{name}." for name, child in network.named_children() if isinstance(child, torch.nn.ModuleList))
    for index, each in enumerate(paths):
        names = {name: _of_member(name, lists, index) for name in wanted}
        run = _read_state(each, {single: wanted[name] for name, single in names.items() if single})
        state |= {name: run[single] for name, single in names.items() if single and name not in state}
    infos = [read_info(each) for each in paths]
    _check_same_training(paths, infos)
    network.load_state_dict(state)
    told = ("name", "licence", "reference", "phantom", "cases", "fingerprint", "recipe", "settings", "contents")
    info = {name: infos[0][name] for name in told if name in infos[0]}
    if "contents" in info:
        info["contents"] = _union([each.get("contents", {}) for each in infos])
    info["split"] = {"joined": [each.get("split") for each in infos]}
    info["members"] = [each["sha256"] for each in infos]
    if Path(path).is_file():
        set_aside(path)
    save_weights(network, path, info)
    logger.info("the weights of %d runs are joined in %s.", members, Path(path).name)


def _of_member(name: str, lists: tuple[str, ...], index: int) -> str | None:
    """The name that a parameter of the ensemble has in run `index`; None where it is another member's."""
    for start in lists:
        if name.startswith(start):
            member, _, rest = name[len(start) :].partition(".")
            return start + rest if int(member) == index else None
    return name


def _check_same_training(paths: Sequence[Path], infos: Sequence[Mapping[str, Any]]) -> None:
    first = infos[0]
    for path, info in zip(paths, infos):
        if "fingerprint" not in info:
            came, rule = f"nothing tells what '{path}' was trained on", "members are runs on folds of one data set"
            raise WeightsError(problem(came, rule, f"put its sidecar {info_path(path).name} beside it"))
        differing = [differing_settings(first.get("settings", {}), info.get("settings"))]
        for key, word in (("recipe", "recipe"), ("fingerprint", "data set")):
            if info.get(key) != first.get(key):
                differing.append(f"{word} '{first.get(key)}' (now '{info.get(key)}')")
        if list(info.get("stages", {})) != list(first.get("stages", {})):
            differing.append(f"stages {', '.join(first.get('stages', {}))} (now {', '.join(info.get('stages', {}))})")
        if any(differing):
            came = f"'{paths[0]}' and '{path}' were trained differently, with {', '.join(filter(None, differing))}"
            rule = "members are runs of one recipe on folds of one data set"
            raise WeightsError(problem(came, rule, "train every fold with the same config, to its end"))
    hashes = [info.get("sha256") for info in infos]
    twice = [str(path) for path, digest in zip(paths, hashes) if digest and hashes.count(digest) > 1]
    if twice:
        came = f"{' and '.join(repr(each) for each in twice)} are the same weights"
        raise WeightsError(problem(came, "each member is a run of its own", "give the weights of each fold once"))


def _union(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Records of one form as one: lists together, sorted, each value once; of the rest the first."""
    joined: dict[str, Any] = {}
    for record in records:
        for name, value in record.items():
            if isinstance(value, list):
                joined[name] = sorted({*joined.get(name, ()), *value})
            else:
                joined.setdefault(name, value)
    return joined


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
