"""The table of a comparison of recipes, in the layout of angermann2019random25d: scores, then what they cost."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import atomic_path, read_json
from ..metrics.stages import markdown_grid
from ..metrics.table import summarise
from ..visualize.comparison import comparison_figure

__all__ = ["Result", "read_result", "write_table"]

_MEAN = "all classes"
_SEVERAL = "Mean ± sample standard deviation over the runs. "
_ONE = "Scores of a run are means over the cases held out"
_APPLICATION = "application is the network's median time for one"


@dataclass(frozen=True)
class Measure:
    """A column of the table: a factor and a form for its numbers, and whether the picture has a panel of it."""

    title: str
    factor: float = 1.0
    form: str = ".1f"
    drawn: bool = False


# in the order of the paper's table, then what it has not
VESSELS = {
    "dice_loss": Measure("Dice loss", form=".3f"),
    "mean_accuracy": Measure("MA, %", 100.0, drawn=True),
    "mean_iou": Measure("IU, %", 100.0, drawn=True),
    "dice": Measure("DC, %", 100.0, drawn=True),
    "cldice": Measure("clDice, %", 100.0, drawn=True),
    "betti0_error": Measure("Betti-0 error", drawn=True),
}
SCORES = {
    "dice": Measure("Dice, %", 100.0, drawn=True),
    "iou": Measure("IoU, %", 100.0, drawn=True),
    "nsd": Measure("NSD, %", 100.0, drawn=True),
    "hd95_mm": Measure("HD95, mm"),
    "assd_mm": Measure("ASSD, mm", form=".2f"),
}
COSTS = {
    "training_minutes": Measure("training, min"),
    "memory_mib": Measure("memory, MiB", form=".0f"),
    "application_ms": Measure("application, ms", form=".0f"),
}


@dataclass(frozen=True)
class Result:
    """What one run of a recipe reached: the mean over its cases of each score, by class, and what it cost.

    Args:
        recipe: its name.
        run: the run's name, the same for every recipe that held out the same cases.
        measures: the columns that its scores are for.
        scores: by class and measure; NaN where undefined.
        costs: by the names of `COSTS`; NaN for what was not recorded.
        notes: what has to be known to read the costs.
        cases: names of the cases that were scored.
    """

    recipe: str
    run: str
    measures: dict[str, Measure]
    scores: dict[str, dict[str, float]]
    costs: dict[str, float]
    notes: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()


def read_result(folder: Path, recipe: str, run: str) -> Result:
    """Read what a training and an evaluation have left in a folder.

    Scores are those of ``vessels.json``, of ``metrics.json`` for bundles without it; costs are those of the
    training's records (all stages together, the memory of the most demanding one) and of ``vessels.json``.

    Args:
        folder: ``output_dir`` of both.
        recipe: its name.
        run: the run's name.

    Raises:
        InputError: when it was not evaluated.
    """
    vessels = folder / "vessels.json"
    measures, told = (
        (VESSELS, read_json(vessels)) if vessels.is_file() else (SCORES, read_json(folder / "metrics.json"))
    )
    classes = [name for name in told["summary"] if name != _MEAN]
    shown = classes if len(classes) == 1 else [*classes, *(name for name in told["summary"] if name == _MEAN)]
    scores = {
        name: {key: _number(told["summary"][name].get(key, {}).get("mean")) for key in measures} for name in shown
    }
    stages = [read_json(path) for path in sorted(folder.glob("training*.json"))]
    costs = {
        "training_minutes": sum(stage["seconds"] for stage in stages) / 60 if stages else math.nan,
        "memory_mib": max((_number(stage["peak_memory_mib"]) for stage in stages), default=math.nan),
        "application_ms": 1000 * _number(told.get("application", {}).get("seconds", {}).get("median")),
    }
    notes = tuple(dict.fromkeys(f"{stage['memory']}, on {stage['device']}" for stage in stages))
    cases = tuple(dict.fromkeys(case["case"] for case in told.get("cases", ())))
    return Result(recipe, run, measures, scores, costs, notes, cases)


def write_table(results: Sequence[Result], folder: Path, title: str, remarks: Sequence[str] = ()) -> str:
    """Write ``table.md``, ``table.csv`` (a row a run and class) and, of several runs, ``table.png``; each whole or not.

    Args:
        results: of all recipes, in the order in which they are shown.
        folder: where to.
        title: heading.
        remarks: further paragraphs.

    Returns:
        the Markdown.
    """
    parts = [f"# {title}"]
    if results:
        memory = list(dict.fromkeys(note for result in results for note in result.notes))
        several = _several(results)
        parts += [
            _legend(results),
            _markdown(results),
            *([f"Memory is that of training: {'; '.join(memory)}."] if memory else []),
        ]
        _write_csv(results, folder / "table.csv")
        if several:
            comparison_figure(_panels(results), folder / "table.png", spread=True)
    else:
        parts.append("Nothing was scored.")
    text = "\n\n".join(part for part in [*parts, *remarks] if part) + "\n"
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _several(results: Sequence[Result]) -> bool:
    return len({result.run for result in results}) > 1


def _legend(results: Sequence[Result]) -> str:
    """What the numbers are; of one run on one case there is no mean to speak of."""
    timed = any(math.isfinite(result.costs["application_ms"]) for result in results)
    one = not _several(results) and all(len(result.cases) <= 1 for result in results)
    parts = [*([] if one else [_ONE]), *([_APPLICATION] if timed else [])]
    told = ", ".join(parts)
    return f"{_SEVERAL if _several(results) else ''}{told[:1].upper()}{told[1:]}{'.' if told else ''}"


def _markdown(results: Sequence[Result]) -> str:
    recipes, classes = _recipes(results), _classes(results)
    measures = _measures(results)
    costs = {key: m for key, m in COSTS.items() if any(math.isfinite(result.costs[key]) for result in results)}
    several = len(classes) > 1
    titles = [*(measure.title for measure in measures.values()), *(measure.title for measure in costs.values())]
    lines = [["", *(["class"] if several else []), "runs", *titles]]
    for recipe in recipes:
        own = [result for result in results if result.recipe == recipe]
        for number, name in enumerate(classes):
            cells = [_spread([r.scores.get(name, {}).get(key) for r in own], m) for key, m in measures.items()]
            cells += [_spread([r.costs[key] for r in own], m) if number == 0 else "" for key, m in costs.items()]
            first = [recipe, *([name] if several else []), str(len(own))]
            lines.append([*(first if number == 0 else ["", name, ""]), *cells])
    return markdown_grid(lines, 2 if several else 1)


def _write_csv(results: Sequence[Result], path: Path) -> None:
    measures = _measures(results)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["recipe", "run", "class", *measures, *COSTS])
        writer.writeheader()
        for result in results:
            for name, scores in result.scores.items():
                row = {**{key: scores.get(key, math.nan) for key in measures}, **result.costs}
                defined = {key: value for key, value in row.items() if math.isfinite(value)}
                writer.writerow({"recipe": result.recipe, "run": result.run, "class": name, **defined})


def _panels(results: Sequence[Result]) -> dict[str, dict[str, dict[str, float]]]:
    """A panel a measure, of the mean over the classes where there are several."""
    name = _classes(results)[-1]
    return {
        measure.title.removesuffix(", %"): {
            recipe: {r.run: r.scores.get(name, {}).get(key, math.nan) for r in results if r.recipe == recipe}
            for recipe in _recipes(results)
        }
        for key, measure in _measures(results).items()
        if measure.drawn
    }


def _recipes(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.recipe for result in results))


def _classes(results: Sequence[Result]) -> list[str]:
    """The classes in order, their mean last."""
    found = dict.fromkeys(name for result in results for name in result.scores)
    return [name for name in found if name != _MEAN] + [name for name in found if name == _MEAN]


def _measures(results: Sequence[Result]) -> dict[str, Measure]:
    """The columns for which there is a number at least once."""
    every = {key: measure for result in results for key, measure in result.measures.items()}
    scores = [columns for result in results for columns in result.scores.values()]
    return {
        key: measure for key, measure in every.items() if any(math.isfinite(one.get(key, math.nan)) for one in scores)
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _spread(values: Sequence[float | None], measure: Measure) -> str:
    """Mean and standard deviation; how many runs have a value, where it is not all of them."""
    found = summarise(_number(value) * measure.factor for value in values)
    if not found["n"]:
        return "-"
    text = format(found["mean"], measure.form)
    if found["std"] is not None:
        text += f" ± {format(found['std'], measure.form)}"
    return text if found["n"] == len(values) else f"{text} (n = {found['n']})"
