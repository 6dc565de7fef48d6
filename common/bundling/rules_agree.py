"""The rule that training and inference mean the same network and the same preprocessing."""

from __future__ import annotations

import json
from typing import Any

from ..checks import InputError
from .bundle import Bundle, remark
from .ids import children, config_ids, normal_id, references
from .rules_ids import chain_name

__all__ = ["agreement", "deterministic_steps", "substituted"]

# arguments that speak of labels alone, beside all that have "label" in their name
_OF_LABELS = {"num_classes", "ignore_index"}
# arguments for which MONAI's dictionary transforms take one value per key
_PER_KEY = {"keys", "mode", "padding_mode", "align_corners", "dtype"}
_NETWORK = "$@network_def.to(@device)"


def agreement(bundle: Bundle) -> list[str]:
    """Training and inference have the same network and the same preprocessing, under every recipe.

    Compared are ``network_def`` and, of ``validate::preprocessing`` and ``preprocessing``, the steps that are not
    random and are not about labels, with every reference replaced by what it stands for. ``network`` is ``network_def``
    on the device and no more: MONAI Label, exports and federated clients build ``network_def`` and know nothing else.
    """
    if not {"train.json", "inference.json"} <= set(bundle.configs):
        return []
    found: list[str] = []
    for overlay in ["", *(name for name in bundle.overlays if not bundle.is_mode(name))]:
        if found and overlay:
            break  # a fault shows in every recipe above: say it once
        top = (overlay,) if overlay else ()
        try:
            train, inference = bundle.laid("train.json", *top), bundle.laid("inference.json", *top)
        except InputError:
            continue  # the overlay rule says so
        found += _compare(bundle, train, inference, chain_name(("inference.json", *top)))
    return found


def _compare(bundle: Bundle, train: dict[str, Any], inference: dict[str, Any], file: str) -> list[str]:
    ids = config_ids(train), config_ids(inference)
    found = []
    networks = [substituted(each, each.get("network_def")) for each in ids]
    difference = _difference(*networks)
    if difference:
        found.append(remark(file, "network_def", f"differs from train.json's ({difference})", "make both the same"))
    for name, each in zip(("train.json", "inference.json"), ids, strict=True):
        if each.get("network", _NETWORK) != _NETWORK:
            remedy = f'write "{_NETWORK}", and let arguments of network_def say the rest'
            found.append(remark(file, "network", f"is more than network_def on the device in {name}", remedy))
    if "validate::preprocessing" not in ids[0]:
        return [
            *found,
            remark(
                "configs/train.json",
                "validate::preprocessing",
                "is not there",
                "write the whole method's preprocessing there, so that inference's can be compared",
            ),
        ]
    steps = [
        deterministic_steps(each, name, bundle.inputs)
        for each, name in zip(ids, ("validate::preprocessing", "preprocessing"), strict=True)
    ]
    difference = _difference(*steps)
    if difference:
        came = f"differs from train.json's validate::preprocessing ({difference})"
        found.append(remark(file, "preprocessing", came, "make both the same, apart from labels and random steps"))
    return found


def substituted(ids: dict[str, Any], part: Any, depth: int = 20) -> Any:
    """A part of a config with every reference replaced by what it stands for; expressions carry theirs beside them."""
    if isinstance(part, str) and references(part) and depth:
        values = {name: substituted(ids, ids.get(name, f"@{name}"), depth - 1) for name in references(part)}
        text = normal_id(part)
        return {"expression": text, "of": values} if text.startswith("$") else values[text[1:]]
    if isinstance(part, dict):
        return {key: substituted(ids, value, depth) for key, value in children(part)}
    if isinstance(part, list):
        return [substituted(ids, value, depth) for _, value in children(part)]
    return part


def deterministic_steps(ids: dict[str, Any], name: str, inputs: set[str]) -> list[Any]:
    """What a chain of transforms does to the inputs, always: no random step, no label, scalars in place.

    Args:
        ids: of the whole config, from `config_ids`.
        name: id of the chain, a ``Compose`` or a list.
        inputs: keys of what the network is given; every other key is a label's.
    """
    chain = substituted(ids, ids.get(name))
    steps = chain.get("transforms", []) if isinstance(chain, dict) else chain
    kept = []
    for step in steps if isinstance(steps, list) else []:
        if not isinstance(step, dict) or str(step.get("_target_", "")).rpartition(".")[2].startswith("Rand"):
            continue
        keys = step.get("keys")
        places = [place for place, key in enumerate(keys) if key in inputs] if isinstance(keys, list) else None
        if keys is not None and not (places if isinstance(keys, list) else keys in inputs):
            continue
        said = {argument: value for argument, value in step.items() if _speaks(argument)}
        if places is not None:
            said = {
                name: _of_inputs(value, len(keys), places) if name in _PER_KEY else value
                for name, value in said.items()
            }
        kept.append(said)
    return kept


def _speaks(argument: str) -> bool:
    """Whether an argument says something about the inputs."""
    return "label" not in argument and argument not in _OF_LABELS and argument != "_desc_"


def _of_inputs(value: Any, keys: int, places: list[int]) -> Any:
    """Of a value per key, those of the inputs; one alone stands without its list."""
    if not isinstance(value, list) or len(value) != keys:
        return value
    chosen = [value[place] for place in places]
    return chosen[0] if len(chosen) == 1 else chosen


def _difference(one: Any, other: Any, place: str = "") -> str:
    """The first place where two values differ, training's first; empty when they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if found := _difference(one.get(key), other.get(key), f"{place}::{key}" if place else str(key)):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            if found := _difference(left, right, f"{place}::{number}" if place else str(number)):
                return found
        return ""
    if one == other:
        return ""
    return f"{place or 'it'}: {_short(one)} in training, {_short(other)} in inference"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 90 else f"{text[:87]}..."
