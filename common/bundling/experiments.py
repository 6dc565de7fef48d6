"""The experiments of a bundle's paper, ``docs/experiments.json``: their form, what is wrong with one, their runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from ..checks import InputError, nearest
from .bundle import Bundle, remark
from .ids import config_ids, unknown_id

__all__ = ["EXPERIMENTS", "SCHEMA", "experiments", "faults", "run_settings"]

jsonschema, _ = optional_import("jsonschema", descriptor="experiments need jsonschema: pip install jsonschema")

EXPERIMENTS = "docs/experiments.json"
SCHEMA = Path(__file__).parent / "schema" / "experiments.json"


def run_settings(axis: Mapping[str, Any], count: int | None = None) -> dict[str, dict[str, Any]]:
    """The lines (or columns) of an experiment's table, each with the config entries that it is made with.

    Args:
        axis: ``rows`` or ``columns`` of an experiment: each one listed (``each``), or a series of `count`. In name and
            settings of a series ``{index}`` stands for 0, 1, ..., ``{number}`` for 1, 2, ... and ``{count}`` for their
            number.
        count: length of a series; None takes its own.

    >>> run_settings({"title": "", "name": "S{number}", "count": 2, "settings": {"fold": "{index}", "of": "[{count}]"}})
    {'S1': {'fold': 0, 'of': '[2]'}, 'S2': {'fold': 1, 'of': '[2]'}}
    """
    if "each" in axis:
        return {name: dict(settings) for name, settings in axis["each"].items()}
    total = axis["count"] if count is None else count
    made = {}
    for index in range(total):
        known = {"index": index, "number": index + 1, "count": total}
        made[_filled(axis["name"], known)] = {key: _filled(value, known) for key, value in axis["settings"].items()}
    return made


def _filled(value: Any, known: Mapping[str, int]) -> Any:
    if not isinstance(value, str):
        return value
    for word, number in known.items():
        if value == f"{{{word}}}":
            return number
        value = value.replace(f"{{{word}}}", str(number))
    return value


def faults(content: Any) -> list[tuple[str, str, str]]:
    """What is wrong with the experiments of a bundle, as far as they tell themselves.

    Args:
        content: of ``docs/experiments.json``.

    Returns:
        for each fault the id, what came, and what to do.
    """
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    found = [
        ("::".join(map(str, error.absolute_path)), error.message, f"follow common/bundling/schema/{SCHEMA.name}")
        for error in jsonschema.Draft201909Validator(schema).iter_errors(content)
    ]
    if not found:
        for name, experiment in content.items():
            found += _cross_faults(name, experiment)
    return found


def _cross_faults(name: str, experiment: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Figures of rows, columns and recipes that are not there, and settings that two of them make."""
    rows, recipes = list(run_settings(experiment["rows"])), list(experiment["recipes"])
    columns = list(run_settings(experiment["columns"])) if "columns" in experiment else []
    averages = [experiment["average"]] if "average" in experiment else []
    for recipe, figures in experiment["paper"].items():
        yield from _unnamed(f"{name}::paper", recipe, recipes)
        for row, figure in figures.items():
            yield from _unnamed(f"{name}::paper::{recipe}", row, [*rows, *averages])
            if isinstance(figure, Mapping) != bool(columns):
                rule = "give a figure for each of the columns" if columns else "give one figure"
                yield f"{name}::paper::{recipe}::{row}", f"is {figure}", rule
            for column in figure if columns and isinstance(figure, Mapping) else ():
                yield from _unnamed(f"{name}::paper::{recipe}::{row}", column, columns)
    for recipe in (one for pair in experiment.get("differences", ()) for one in pair):
        yield from _unnamed(f"{name}::differences", recipe, recipes)
    for row in experiment.get("beside", {}).get("cells", ()):
        yield from _unnamed(f"{name}::beside", row, rows)
    for recipe, own in experiment["recipes"].items():
        both = set(own.get("settings", {})) & set(_made_settings(experiment))
        for key in sorted(both):
            yield f"{name}::recipes::{recipe}", f"sets '{key}', as the runs do", "leave it to one of them"


def _unnamed(place: str, name: str, known: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    if name not in known:
        yield place, f"'{name}' is not among {', '.join(known)}", f"write '{nearest(name, known) or known[0]}'"


def _made_settings(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Entries that the experiment sets for runs, with one value of each."""
    made = {**experiment.get("settings", {}), **experiment.get("phantom", {})}
    for axis in (experiment["rows"], experiment.get("columns")):
        for settings in run_settings(axis).values() if axis else ():
            made |= settings
    return made


def experiments(bundle: Bundle) -> list[str]:
    """docs/experiments.json, where there is one, has its form, and what it sets are ids of the configs it names."""
    path = bundle.root / EXPERIMENTS
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [remark(EXPERIMENTS, "", f"is not JSON ({error})", "correct its syntax")]
    found = [remark(EXPERIMENTS, *fault) for fault in faults(content)]
    for name, experiment in content.items() if not found else ():
        for recipe, own in experiment["recipes"].items():
            place = f"{name}::recipes::{recipe}"
            overlays = [*experiment.get("overlays", ()), *own.get("overlays", ())]
            for absent in (one for one in overlays if f"{one}.json" not in bundle.configs):
                near = nearest(absent, [Path(file).stem for file in bundle.overlays])
                remedy = f"write '{near}', or add the overlay" if near else "add the overlay"
                found.append(remark(EXPERIMENTS, place, f"'{absent}' is no overlay", remedy))
                break
            else:
                try:
                    ids = config_ids(bundle.laid("train.json", *(f"{one}.json" for one in overlays)))
                except InputError as error:
                    found.append(remark(EXPERIMENTS, place, str(error), "lay overlays that fit over train.json"))
                    continue
                for key in {**_made_settings(experiment), **own.get("settings", {})}:
                    if remedy := unknown_id(ids, key):
                        found.append(remark(EXPERIMENTS, place, f"'{key}' is set, which is no id", remedy))
    return found
