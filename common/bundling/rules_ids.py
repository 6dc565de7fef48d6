"""Rules about ids: what refers to nothing, what nothing refers to, overlays, and code that hides from packing."""

from __future__ import annotations

import ast
import contextlib
import re
from pathlib import Path
from typing import Any

from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundlePropertyConfig

from ..checks import InputError, nearest
from .bundle import Bundle, remark
from .ids import RUN_ARGUMENTS, children, config_ids, normal_id, references, strings, unknown_id

__all__ = ["dead_ids", "hidden_code", "initialize", "macros", "overlay_ids", "rivals", "run_ids", "unknown_references"]

_STRUCTURE = {"imports", "initialize", "run", "finalize"}
# read by --tracking (output_dir and RUN_ARGUMENTS), by MONAI Label (displayable_configs) and by volseg (rivals)
_CONSUMERS = {"output_dir", "displayable_configs", "rivals", *RUN_ARGUMENTS}
_STOCK = ("monai.", "torch.", "ignite.", "numpy.")


def chain_name(files: tuple[str, ...]) -> str:
    """Files of a run as a reader would write them."""
    return f"configs/{files[0]}" if len(files) == 1 else "configs/" + " + ".join(files)


def run_ids(config: dict[str, Any]) -> list[str]:
    """Ids that can be run: ``run``, what stands for it, and other top-level lists of expressions."""
    found = []
    for name, value in config.items():
        steps = value if isinstance(value, list) else [value]
        expressions = [step for step in steps if isinstance(step, str) and step.startswith("$")]
        if name in ("imports", "initialize", "finalize") or not steps:
            continue
        alias = isinstance(value, str) and value.startswith("@") and value[1:] in ("run", *found)
        if name == "run" or alias or (isinstance(value, list) and len(expressions) == len(steps)):
            found.append(name)
    return found


def unknown_references(bundle: Bundle) -> list[str]:
    """Every ``@id``, also inside ``$`` expressions, leads to an id of the merged config."""
    found: dict[str, None] = {}
    for files in bundle.chains:
        try:
            config = bundle.laid(*files)
        except InputError:
            continue  # the overlay rule says so
        ids = config_ids(config)
        for name, text in strings(config):
            for wanted in references(_absolute(name, text)):
                if wanted not in ids:
                    close = nearest(wanted, ids)
                    remedy = f"write '@{close}'" if close else "define it, or remove the reference"
                    found[
                        remark(_source(bundle, files, name), name, f"refers to '@{wanted}', which is no id", remedy)
                    ] = None
            if text.startswith("@") and not references(text):
                found[
                    remark(
                        _source(bundle, files, name),
                        name,
                        f"'{text}' is no reference: ids are made of letters, digits and '_', joined by '::'",
                        "rename the id, or write a $ expression",
                    )
                ] = None
    return list(found)


def _source(bundle: Bundle, files: tuple[str, ...], name: str) -> str:
    """The file of a chain that has an id: the last that sets it or something above it."""
    for file in reversed(files[1:]):
        for key in bundle.configs[file]:
            key = normal_id(key.removeprefix("+"))
            if name == key or name.startswith(f"{key}::"):
                return chain_name((file,))
    return chain_name(files[:1])


def _absolute(name: str, text: str) -> str:
    """References such as ``@::sibling`` seen from the root."""
    text = normal_id(text)
    parts = name.split("::")

    def outward(match: re.Match[str]) -> str:
        kept = parts[: max(len(parts) - len(match[1]) // 2, 0)]
        return "@" + "".join(f"{part}::" for part in kept)

    return re.sub(r"@((?:::)+)", outward, text)


def dead_ids(bundle: Bundle) -> list[str]:
    """Every id of a config that stands alone is used: by a run, by a MONAI property, or by an id that is."""
    found = []
    for base in bundle.bases:
        config = bundle.configs[base]
        ids = config_ids(config)
        used = _used(config, ids)
        for files in bundle.chains:  # what only an overlay uses is used
            with contextlib.suppress(InputError):
                laid = bundle.laid(*files) if files[0] == base else {}
                used |= _used(laid, config_ids(laid))
        for name in ids:
            above = name.rpartition("::")[0]
            if (
                name.startswith("_")
                or "::_" in name
                or name in used
                or any(other.startswith(f"{name}::") for other in used)
            ):
                continue
            if above and not any(other.startswith(f"{above}::") for other in used):
                continue  # said of the id above
            remedy = "use it or remove it"
            close = nearest(
                name, [text for _, value in strings(config) for text in references(value) if text not in ids]
            )
            if close:
                remedy = f"correct the reference '@{close}', or remove it"
            found.append(remark(f"configs/{base}", name, "is used by nothing", remedy))
    return found


def _used(config: dict[str, Any], ids: dict[str, Any]) -> set[str]:
    """Ids in reach of the runs, of what MONAI runs around them, and of the properties."""
    properties = [entry[BundlePropertyConfig.ID] for entry in (*TrainProperties.values(), *InferProperties.values())]
    return reach(config, ids, [*_STRUCTURE, *_CONSUMERS, *properties, *run_ids(config)])


def reach(config: dict[str, Any], ids: dict[str, Any], roots: list[str]) -> set[str]:
    """Ids that some ids lead to: what they hold, and what that refers to."""
    used: set[str] = set()
    waiting = [root for root in roots if root in ids]
    while waiting:
        name = waiting.pop()
        if name in used or name not in ids:
            continue
        used.add(name)
        value = ids[name]
        waiting += [f"{name}::{key}" for key, _ in children(value)]
        if isinstance(value, str):
            text = _absolute(name, value)
            waiting += references(text)
            if text.startswith("%"):
                waiting.append(text[1:])
    return used


def overlay_ids(bundle: Bundle) -> list[str]:
    """An overlay sets ids that what it is laid on has, never a position of a list."""
    found = []
    for overlay in bundle.overlays:
        file = f"configs/{overlay}"
        for key in bundle.configs[overlay]:
            if any(part.isdigit() for part in normal_id(key).split("::")):
                remedy = 'give the value an id of its own in train.json, or switch the item by "_disabled_": "@flag"'
                found.append(remark(file, key, "names a position of a list, which moves", remedy))
        if bundle.below(overlay) is None and "train.json" in bundle.configs:
            bases = [(base,) for base in bundle.bases]
            wrong = min((bundle.strange(base, overlay) for base in bases), key=len)
            for key, remedy in wrong.items():
                found.append(remark(file, key, "is no id of what it is laid on", remedy))
        if ("inference.json", overlay) in bundle.chains:
            below = ("inference.json", *(bundle.below(overlay) or ())[1:])
            remedy = "give the value an id of its own at the top of train.json"
            found += [
                remark(file, key, f"is laid on inference.json, too, which has no '{above}'", remedy)
                for key, above in _without_parent([bundle.configs[one] for one in below], bundle.configs[overlay])
            ]
    return found


def _without_parent(below: list[dict[str, Any]], overlay: dict[str, Any]) -> list[tuple[str, str]]:
    """Ids of an overlay in what the configs below do not have, and that; MONAI stops at them with a ``KeyError``."""
    ids = {name for config in below for name in config_ids(config)}
    parents = {key: normal_id(key.removeprefix("+")).rpartition("::")[0] for key in overlay}
    return [(key, above) for key, above in parents.items() if above and above not in ids]


def rivals(bundle: Bundle) -> list[str]:
    """Every recipe under ``rivals`` is ``paper`` or an overlay, and what follows its colon sets ids that are there."""
    found = []
    overlays = [Path(file).stem for file in bundle.overlays]
    for file in ("train.json", *bundle.overlays):
        listed = bundle.configs.get(file, {}).get("rivals", [])
        for place, text in enumerate(listed):
            recipe, _, settings = str(text).partition(":")
            name = f"rivals::{place}"
            if recipe not in ("paper", *overlays):
                remedy = f"write '{nearest(recipe, overlays) or 'paper'}', or add the overlay"
                found.append(remark(f"configs/{file}", name, f"'{recipe}' is no overlay", remedy))
                continue
            files = ("train.json",) if recipe == "paper" else ("train.json", f"{recipe}.json")
            with contextlib.suppress(InputError):  # an overlay that does not fit is found by another rule
                ids = config_ids(bundle.laid(*files))
                for key in (setting.partition("=")[0].strip() for setting in settings.split(";") if setting):
                    if remedy := unknown_id(ids, key):
                        found.append(remark(f"configs/{file}", name, f"sets '{key}', which is no id", remedy))
    return found


def macros(bundle: Bundle) -> list[str]:
    """inference.json has no ``%`` macro, which stays unresolved in exports; no config has one of another file."""
    found = []
    for file, config in bundle.configs.items():
        for name, text in strings(config):
            if text.startswith("%") and (file == "inference.json" or re.search(r"\.(json|ya?ml)\b", text)):
                remedy = "write the content out, or refer to an id by '@'"
                found.append(remark(f"configs/{file}", name, f"'{text}' is a macro", remedy))
    return found


def hidden_code(bundle: Bundle) -> list[str]:
    """Configs reach the package by ``"_target_": "common..."`` alone, which packing can rename."""
    found = []
    remedy = 'make it a component with "_target_": "common...." and refer to that by \'@\''
    for file, config in bundle.configs.items():
        for name, text in strings(config):
            if name.rpartition("::")[2] == "_target_" and text.split(".")[0] == "scripts":
                came = f"'{text}' names a packed bundle's own code"
                found.append(remark(f"configs/{file}", name, came, "write common...., packing renames it"))
            elif text.startswith("$") and (code := _package_in(text)):
                found.append(remark(f"configs/{file}", name, f"reaches '{code}' in an expression", remedy))
    return found


def _package_in(expression: str) -> str:
    """``common`` or ``scripts`` where an expression names it as a module, else nothing."""
    source = re.sub(r"@[\w:]+", "_reference_", normal_id(expression)[1:]).strip()
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""  # resolving the config says so
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"(common|scripts)(\.\w+)*", node.value)
        ):
            names = [node.value] if "import" in source else []
        for name in names:
            if name.split(".")[0] in ("common", "scripts"):
                return name
    return ""


def initialize(bundle: Bundle) -> list[str]:
    """``initialize`` leads to stock MONAI and torch only: MONAI runs it before the bundle is on the path."""
    found: dict[str, None] = {}
    for files in bundle.chains:
        try:
            config = bundle.laid(*files)
        except InputError:
            continue
        ids = config_ids(config)
        for name in sorted(reach(config, ids, ["initialize"])):
            value = ids[name]
            if not (name.rpartition("::")[2] == "_target_" and isinstance(value, str) and "." in value):
                continue
            if not f"{value}.".startswith(_STOCK):
                came = f"'{value}' is in reach of initialize"
                remedy = "use it in run, or in a handler: initialize comes before the bundle's code can be imported"
                found[remark(_source(bundle, files, name), name, came, remedy)] = None
    return list(found)
