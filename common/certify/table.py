"""What was certified, as a table for readers and as JSON."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import atomic_path, write_json
from ..metrics.stages import markdown_grid
from .environments import Built
from .steps import Step

__all__ = ["machine", "write_tables"]

_WORDS = {True: "passed", False: "**failed**", None: "impossible"}
_INTRODUCTION = """# What is certified

Each bundle was packed with the overlay `{overlays}` and weights of one short epoch on its phantom, and run where this
repository is not: in clean environments, by the tools that read packed bundles. `volseg certify --all true` makes this
page anew. A step is impossible where the tool itself says so; its words are given. Times are wall time, on the machine
named below.{dash}"""


def machine() -> dict[str, Any]:
    """What the machine is: system, processor, cores, memory and GPU; no names of it."""
    told: dict[str, Any] = {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        told["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    told["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return told


def write_tables(
    folder: Path, results: Mapping[str, Mapping[str, Any]], built: Mapping[str, Built], steps: Sequence[Step]
) -> list[Path]:
    """Write ``certified.json`` and ``certified.md``.

    Args:
        folder: where they go.
        results: by bundle, from :meth:`~common.certify.certification.Certification.results`.
        built: the environments by name.
        steps: all steps, in their order.

    Returns:
        both files.
    """
    kinds = {
        name: {
            "python": one.told["python"],
            "hash": one.hash,
            "asked": one.told["asked"],
            "packages": one.told["packages"],
        }
        for name, one in built.items()
    }
    content = {"machine": machine(), "environments": kinds, "bundles": dict(results)}
    paths = [folder / "certified.md", folder / "certified.json"]
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(_page(content, steps), encoding="utf-8")
    write_json(paths[1], content)
    return paths


def _page(content: Mapping[str, Any], steps: Sequence[Step]) -> str:
    bundles = content["bundles"]
    overlays = sorted({name for one in bundles.values() for name in one["overlays"]})
    overview, absent = _overview(bundles, steps)
    dash = " A dash: not run yet." if absent else ""
    parts = [_INTRODUCTION.format(overlays=", ".join(overlays), dash=dash), overview]
    parts += [_of_bundle(name, one, steps) for name, one in bundles.items()]
    parts += ["## Machine and versions", _machine(content["machine"]), *map(_versions, content["environments"].items())]
    return "\n\n".join(parts) + "\n"


def _overview(bundles: Mapping[str, Any], steps: Sequence[Step]) -> tuple[str, bool]:
    """The outcomes of all bundles, and whether any of them is still to come."""
    lines, absent = [["", *bundles]], False
    for step in steps:
        found = [one["steps"].get(step.name) for one in bundles.values()]
        if any(found):
            lines.append([step.title, *("-" if one is None else _WORDS[one["passed"]] for one in found)])
            absent |= None in found
    return markdown_grid(lines, len(lines[0])), absent


def _of_bundle(name: str, one: Mapping[str, Any], steps: Sequence[Step]) -> str:
    lines = [["step", "outcome", "told", "s"]]
    for step in (step for step in steps if step.name in one["steps"]):
        found = one["steps"][step.name]
        lines.append([step.title, _WORDS[found["passed"]], _cell(found["told"]), f"{found['seconds']:.0f}"])
    return f"## {name} {one['version']}\n\n{markdown_grid(lines, 3)}"


def _cell(text: str) -> str:
    """A text in one line of a table; what looks like markup is shown as it is."""
    return re.sub(r"([*_<>`\[\]])", r"\\\1", " ".join(text.split()))


def _machine(told: Mapping[str, Any]) -> str:
    memory = f", {told['memory_gib']} GiB of memory" if "memory_gib" in told else ""
    gpu = told["gpu"] or "no GPU"
    return f"{told['system']}, {told['architecture']}, {told['cores']} cores{memory}, {gpu}."


def _versions(item: tuple[str, Mapping[str, Any]]) -> str:
    name, told = item
    packages = {_normal(package): (package, version) for package, version in told["packages"].items()}
    named = [packages[_normal(one)] for one in told["asked"] if _normal(one) in packages]
    listed = ", ".join(f"{package} {version}" for package, version in named)
    return f"- `{name}`: Python {told['python']}, {listed}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
