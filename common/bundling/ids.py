"""The ids of a config, and overrides that answer to none of them (MONAI accepts those in silence).

Nothing here imports MONAI: a command line that refuses an override should not take seconds to do so.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..checks import InputError, nearest, problem
from ..files import read_json
from .targets import NOT_ARGUMENTS, is_component, locate, takes

__all__ = [
    "RUN_ARGUMENTS",
    "advice",
    "check_overrides",
    "children",
    "config_ids",
    "known_ids",
    "lay",
    "merge",
    "normal_id",
    "references",
    "strings",
    "unknown_id",
]

Config = Mapping[str, Any] | Sequence[str | os.PathLike[str]]

RUN_ARGUMENTS = frozenset(
    {"run_id", "init_id", "final_id", "config_file", "meta_file", "logging_file", "tracking", "args_file"}
    | {"workflow_type", "workflow_name", "properties_path"}  # of run_workflow
    | {"tracking_uri", "experiment_name", "run_name", "save_execute_config"}  # of --tracking
)
"""What ``python -m monai.bundle run`` reads beside the ids of a config."""


_REFERENCE = re.compile(r"@\w*(?:::\w*)*")  # as MONAI's ReferenceResolver reads them


def normal_id(name: str) -> str:
    """The id with ``::`` between its parts, also where the older ``#`` came."""
    return str(name).replace("#", "::")


def children(part: Any) -> Iterator[tuple[Any, Any]]:
    """Keys or positions of a dict or list, with what they hold."""
    if isinstance(part, Mapping):
        yield from part.items()
    elif isinstance(part, list):
        yield from enumerate(part)


def merge(config: Config) -> dict[str, Any]:
    """One config from a config or from files that are laid over each other, as ``--config_file "['a.json','b.json']"``.

    Args:
        config: a config as a dictionary, or the files in order.

    Raises:
        InputError: when a file is absent or no JSON object, or an id of a later one has no parent to be set in.
    """
    if isinstance(config, Mapping):
        return lay(config)
    made: dict[str, Any] = {}
    for path in config:
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(problem(f"'{path}' holds no JSON object", "a config is a {...} of ids", "mend the file"))
        made = lay(made, content)
    return made


def lay(base: Mapping[str, Any], *overlays: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `base` with overlays laid on it: nested ids are set in place, ``+id`` extends a list or dictionary.

    Raises:
        InputError: when an id has no parent to be set in.
    """
    made: dict[str, Any] = copy.deepcopy(dict(base)) if overlays else dict(base)
    for overlay in overlays:
        for key, value in overlay.items():
            _set(made, key, copy.deepcopy(value))
    return made


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = normal_id(key.removeprefix("+")).split("::")
    holder: Any = config
    try:
        for part in parents:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        place: Any = int(leaf) if isinstance(holder, list) else leaf
        there = holder[place] if isinstance(holder, list) else holder.get(place)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            problem(f"'{key}' can not be set", "the id above it must exist", advice(config_ids(config), key))
        ) from error
    if key.startswith("+") and isinstance(value, list) and isinstance(there, list):
        value = there + value
    elif key.startswith("+") and isinstance(value, dict) and isinstance(there, dict):
        value = {**there, **value}
    holder[place] = value


def config_ids(config: Config) -> dict[str, Any]:
    """Every id of a config with what it holds: ``train``, ``train::trainer``, ``train::handlers::0`` and so on.

    Args:
        config: a config, or the files to merge.
    """
    found: dict[str, Any] = {}

    def walk(part: Any, prefix: str) -> None:
        for key, value in children(part):
            found[f"{prefix}{key}"] = value
            walk(value, f"{prefix}{key}::")

    walk(merge(config), "")
    return found


def known_ids(config: Config) -> set[str]:
    """The ids of a config, without what they hold."""
    return set(config_ids(config))


def strings(config: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All strings in a part of a config, each with its id."""
    if isinstance(config, str):
        yield name, config
    for key, value in children(config):
        yield from strings(value, f"{name}::{key}" if name else f"{key}")


def references(text: str) -> list[str]:
    """The ids that a string of a config refers to: ``@id`` alone, or any number of them in a ``$`` expression."""
    text = normal_id(text)
    found = _REFERENCE.findall(text)
    return list(dict.fromkeys(item[1:] for item in found if text.startswith("$") or item == text))


def unknown_id(ids: Mapping[str, Any], name: str) -> str | None:
    """Why `name` can not be set in a config, or None where it can.

    An id that exists can be set, and a new argument of a component that takes it.

    Args:
        ids: from `config_ids`.
        name: the id to be set, with ``::`` or ``#``.

    Returns:
        what to do instead, as the remedy of an error.
    """
    name = normal_id(name)
    if name in ids:
        return None
    parent, _, leaf = name.rpartition("::")
    holder = ids.get(parent)
    if is_component(holder):
        target = holder["_target_"]
        made = locate(target) if isinstance(target, str) and not target.startswith(("$", "@", "%")) else None
        if leaf in NOT_ARGUMENTS or (made is not None and takes(made, leaf)):
            return None
        return f"{advice(ids, name)} ({target} takes no argument '{leaf}')"
    return advice(ids, name)


def advice(ids: Iterable[str], name: str) -> str:
    """What to write in place of an id that is none: the nearest, as the remedy of an error."""
    leaf = name.rpartition("::")[2]
    same = [known for known in ids if known.rpartition("::")[2] == leaf and not leaf.isdigit()]
    found = same[0] if len(same) == 1 else nearest(name, ids)
    return f"use '{found}'" if found else "choose an id that the config has"


def check_overrides(config: Config, overrides: Iterable[str]) -> None:
    """Refuse an override that answers to no id of the config.

    An id that exists may be set, a new argument of a component that takes it, and the arguments of the run itself.

    Args:
        config: a config, or all files of a run.
        overrides: ids as given on the command line, without their leading dashes, with ``::`` or ``#``.

    Raises:
        InputError: naming the nearest valid id.

    >>> check_overrides({"epochs": 3}, ["epochs"])
    """
    ids = config_ids(config)
    for name in overrides:
        if name in RUN_ARGUMENTS or normal_id(name).split("::")[0] == "_meta_":
            continue
        remedy = unknown_id(ids, name)
        if remedy is not None:
            rule = "an override must name an existing id"
            raise InputError(problem(f"--{name} answers to no id of the config", rule, remedy))
