"""Configs as they are written into a packed bundle: overlays baked in, targets pointing at the carried code."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..checks import InputError, nearest, problem
from ..files import read_json

__all__ = ["bake", "format_json", "read_configs", "refuse_hidden_code", "resolved", "shape_metadata", "stage_names"]

STANDALONE = ("train.json", "inference.json")  # every other config is a difference over one of these
_WIDTH = 120


def read_configs(folder: Path) -> dict[str, Any]:
    """Every JSON config of a bundle by file name, metadata included.

    Raises:
        InputError: when a file is not JSON.
    """
    return {path.name: read_json(path) for path in sorted(folder.glob("*.json"))}


def refuse_hidden_code(folder: Path, package: str) -> None:
    """Refuse packed configs that still reach the package: other than by a ``_target_`` in JSON, it can not be renamed.

    Raises:
        InputError: naming the file and the text.
    """
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        found = re.search(rf"\b{package}\.\w[^\"]*", path.read_text(encoding="utf-8", errors="replace"))
        if found:
            raise InputError(
                problem(
                    f"configs/{path.name} reaches the package in '{found[0].strip()}'",
                    f'code of {package}/ is reached only by a "_target_" in JSON, which packing rewrites',
                    "write it as a component with a _target_",
                )
            )


def bake(configs: dict[str, Any], overlays: Sequence[str]) -> dict[str, Any]:
    """Write overlays into ``train.json`` and ``inference.json``, each key where that file has it.

    Consumers such as MONAI Label read ``inference.json`` alone, and weights trained under an overlay would not fit it.

    Args:
        configs: contents by file name.
        overlays: names of overlay files, with or without ``.json``; later ones win.

    Raises:
        InputError: for an overlay that is not there, or one of its ids that neither file has.
    """
    baked = copy.deepcopy(configs)
    for overlay in overlays:
        name = overlay if overlay.endswith(".json") else f"{overlay}.json"
        known = sorted(set(configs) - {*STANDALONE, "metadata.json"})
        if name not in known:
            raise InputError(
                problem(
                    f"there is no overlay configs/{name}",
                    f"the bundle has {', '.join(known) or 'none'}",
                    f"pass --overlays {nearest(name, known).removesuffix('.json') or 'one of these'}",
                )
            )
        for key, value in configs[name].items():
            if not any([_merge(baked, file, key, value) for file in STANDALONE]):
                raise InputError(
                    problem(
                        f"configs/{name} sets '{key}'",
                        "an overlay sets ids that train.json or inference.json has",
                        "correct its spelling, or leave the overlay out",
                    )
                )
    return baked


def _merge(configs: dict[str, Any], file: str, key: str, value: Any) -> bool:
    """Set one id of one config; False when the config has no such id."""
    if file not in configs:
        return False
    parser = ConfigParser(config=configs[file])
    if key.lstrip("+") not in parser:
        return False
    merge_kv(parser, key, copy.deepcopy(value))
    configs[file] = parser.get()
    return True


def resolved(config: Any, name: str, overrides: Mapping[str, Any] | None = None) -> Any:
    """What an id of a config stands for, instantiated."""
    parser = ConfigParser(config=copy.deepcopy(config))
    for key, value in (overrides or {}).items():
        if key in parser:
            parser[key] = value
    return parser.get_parsed_content(name)


def shape_metadata(metadata: Any, network: torch.nn.Module, patch_size: Sequence[int]) -> None:
    """Let ``network_data_format`` state the sizes that an overlay made of the network's input and output, in place.

    Args:
        metadata: content of ``metadata.json``.
        network: the network under the overlay, B C D H W to B K D H W.
        patch_size: voxels of its input, D H W.
    """
    form = metadata["network_data_format"]
    image, pred = form["inputs"]["image"], form["outputs"]["pred"]
    with torch.no_grad():
        output = network.eval()(torch.zeros(1, image["num_channels"], *patch_size))
    image["spatial_shape"], pred["spatial_shape"] = list(patch_size), list(output.shape[2:])


def stage_names(train: Any) -> list[str]:
    """Names of the composite's children that ``train.json`` trains: the ``stage`` of each StageTrainer, in order."""
    found: list[str] = []

    def look(config: Any) -> None:
        if isinstance(config, dict):
            if str(config.get("_target_", "")).endswith("StageTrainer"):
                stage = config.get("stage")
                if isinstance(stage, str) and stage.startswith(("@", "$")):
                    stage = resolved(train, stage[1:]) if stage.startswith("@") else None
                if stage and stage not in found:
                    found.append(stage)
            config = list(config.values())
        if isinstance(config, list):
            for item in config:
                look(item)

    look(train)
    return found


def format_json(content: Any) -> str:
    """JSON indented by four, in which whatever fits on a line of 120 characters stays on one."""
    return _format(content, 0, 0) + "\n"


def _format(content: Any, indent: int, before: int) -> str:
    """`content` as text that starts after `before` characters on a line indented by `indent`."""
    flat = json.dumps(content, ensure_ascii=False)
    nested = isinstance(content, (dict, list)) and bool(content)
    if not nested or (indent and before + len(flat) < _WIDTH and not _is_deep(content)):
        return flat
    pad = " " * (indent + 4)
    if isinstance(content, list):
        items = [_format(value, indent + 4, indent + 4) for value in content]
        brackets = "[]"
    else:
        keys = [json.dumps(key, ensure_ascii=False) + ": " for key in content]
        pairs = zip(keys, content.values(), strict=True)
        items = [key + _format(value, indent + 4, indent + 4 + len(key)) for key, value in pairs]
        brackets = "{}"
    return brackets[0] + "\n" + ",\n".join(pad + item for item in items) + "\n" + " " * indent + brackets[1]


def _is_deep(content: Any) -> bool:
    """Whether something lies in a list or dictionary inside another one."""
    values = content.values() if isinstance(content, dict) else content
    return any(isinstance(value, dict) and value for value in values)
