"""The table of a reproduced experiment, in the layout of the paper: each figure, and the paper's beside it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import atomic_path
from ..metrics.stages import markdown_grid
from ..visualize.reproduction import reproduction_figure
from .experiments import Experiment
from .recipe_table import COSTS, SCORES, VESSELS, Result

__all__ = ["write_reproduction"]

Cell = tuple[str, str, str]
_PAPER = "paper"


class _Scores:
    """Scores of an experiment, measured and published, by recipe, row and column."""

    def __init__(self, experiment: Experiment, recipes: Sequence[str], found: Mapping[Cell, Result]) -> None:
        self.experiment, self.recipes, self.found = experiment, list(recipes), found
        self.metric, self.average = experiment["metric"], experiment.told.get("average")

    def ours(self, recipe: str, row: str, column: str) -> float:
        """The mean over classes of what was measured; of the average's row, once all other rows are there."""
        if row == self.average:
            return float(np.mean([self.ours(recipe, one, column) for one in self.experiment.rows]))
        result = self.found.get((recipe, row, column))
        if result is None:
            return math.nan
        return list(result.scores.values())[-1].get(self.metric, math.nan)  # the mean over classes is the last

    def paper(self, recipe: str, row: str, column: str) -> float:
        """The paper's figure."""
        figure = self.experiment.paper(recipe, row, column)
        return math.nan if figure is None else float(figure)

    @property
    def rows(self) -> list[str]:
        """All rows, that of the average last."""
        return [*self.experiment.rows, *([self.average] if self.average else [])]

    @property
    def sides(self) -> list[tuple[Callable[[str, str, str], float], Experiment]]:
        """Both kinds of scores, each with the rows and columns that it is of."""
        return [(self.ours, self.experiment), (self.paper, self.experiment.published)]

    def published(self, recipe: str) -> bool:
        """Whether the paper has this recipe."""
        return recipe in self.experiment["paper"]


def write_reproduction(
    experiment: Experiment,
    recipes: Sequence[str],
    found: Mapping[Cell, Result],
    folder: Path,
    title: str,
    remarks: Sequence[str] = (),
) -> str:
    """Write ``table.md``, ``table.csv`` (a row a run and class) and ``table.png``; each whole or not.

    Args:
        experiment: what was to be run.
        recipes: names of the recipes that were, in order.
        found: what there is of it, by recipe, row and column.
        folder: where to.
        title: heading.
        remarks: further paragraphs, below what the experiment itself remarks.

    Returns:
        the Markdown.
    """
    scores = _Scores(experiment, recipes, found)
    measure = {**VESSELS, **SCORES}.get(scores.metric)
    metric = measure.title.removesuffix(", %") if measure else scores.metric
    parts = [f"# {title}", f"{metric}, and in the columns `{_PAPER}` what is published ({experiment['source']})."]
    if len(experiment.columns) > 1 or experiment.columns[0]:
        # the paper's table for each of the recipes
        for recipe in recipes:
            parts += [f"## {recipe}", _grid(scores, [(recipe, column, column) for column in experiment.columns])]
    else:
        parts.append(_grid(scores, [(recipe, "", recipe) for recipe in recipes]))
    parts += [_held_out(scores), _unlike(experiment), _differences(scores), _order(scores), _cost(found)]
    parts += ["\n".join(f"- {note}" for note in experiment["notes"]), *remarks]
    text = "\n\n".join(part for part in parts if part) + "\n"
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    if found:
        _write_csv(scores, folder / "table.csv")
        _draw(scores, folder / "table.png", metric)
    return text


def _grid(scores: _Scores, columns: Sequence[tuple[str, str, str]]) -> str:
    """Rows of the experiment, and two columns for each (recipe, column, heading) that the paper has, too."""
    told = scores.experiment.told
    beside = told.get("beside")
    titles = [told["rows"]["title"], *([beside["title"]] if beside else [])]
    heads = [name for recipe, _, head in columns for name in (head, *([_PAPER] if scores.published(recipe) else []))]
    lines = [[*titles, *heads]]
    for row in scores.rows:
        cells = [row, *([beside["cells"].get(row, "")] if beside else [])]
        for recipe, column, _ in columns:
            cells.append(_text(scores.ours(recipe, row, column)))
            if scores.published(recipe):
                cells.append(_text(scores.paper(recipe, row, column)))
        lines.append(cells)
    return markdown_grid(lines, len(titles))


def _held_out(scores: _Scores) -> str:
    """Which cases were scored in each row or column, where these differ by their cases."""
    for place in (1, 2):
        cases: dict[str, set[tuple[str, ...]]] = {}
        for cell, result in scores.found.items():
            cases.setdefault(cell[place], set()).add(result.cases)
        if all(len(one) == 1 for one in cases.values()) and len(set().union(*cases.values())) > 1:
            return "Scored: " + "; ".join(f"{name}: {', '.join(*one)}" for name, one in cases.items()) + "."
    return ""


def _unlike(experiment: Experiment) -> str:
    """Where there are more or fewer rows or columns than in the paper."""
    other = [
        axis
        for axis in experiment.axes
        if experiment.counts.get(axis.get("option"), axis.get("count")) != axis.get("count")
    ]
    told = [f"{axis['option']} {experiment.counts[axis['option']]}, in the paper {axis['count']}" for axis in other]
    # parts of another number of parts are other parts, a volume less leaves the others as they are
    parts = any("{count}" in str(axis["settings"]) for axis in other)
    return f"Here: {'; '.join(told)}" + (", so that no line is the paper's." if parts else ".") if told else ""


def _differences(scores: _Scores) -> str:
    """How far recipes are apart, here and in the paper: what data of another kind can show, too."""
    lines = []
    for first, second in scores.experiment.told.get("differences", ()):
        if first in scores.recipes and second in scores.recipes:
            texts = [
                _difference([value(first, *cell) - value(second, *cell) for cell in experiment.cells()])
                for value, experiment in scores.sides
            ]
            lines.append(f"- {first} less {second}: {texts[0] or 'not measured'}; paper {texts[1] or '-'}")
    return "Differences, their mean and how often the first is higher:\n\n" + "\n".join(lines) if lines else ""


def _difference(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"{np.mean(known):+.3f} ({sum(v > 0 for v in known)} of {len(known)})" if known else ""


def _order(scores: _Scores) -> str:
    """Of rows that are in an order: at how many of the steps from one to the next the score rises."""
    if not scores.experiment.told.get("ordered"):
        return ""
    lines = []
    for recipe in scores.recipes:
        texts = []
        for value, experiment in scores.sides:
            steps = [
                value(recipe, later, column) - value(recipe, row, column)
                for row, later in zip(experiment.rows, experiment.rows[1:], strict=False)
                for column in experiment.columns
            ]
            known = [step for step in steps if math.isfinite(step)]
            texts.append(f"{sum(step > 0 for step in known)} of {len(known)}" if known else "-")
        lines.append(f"- {recipe}: {texts[0]}; paper {texts[1]}")
    return "Steps from line to line at which the score rises:\n\n" + "\n".join(lines)


def _cost(found: Mapping[Cell, Result]) -> str:
    minutes = [result.costs["training_minutes"] for result in found.values()]
    trained = [one for one in minutes if math.isfinite(one)]
    return f"Training took {sum(trained):.1f} minutes, {len(trained)} runs together." if trained else ""


def _write_csv(scores: _Scores, path: Path) -> None:
    measures = list(dict.fromkeys(key for result in scores.found.values() for key in result.measures))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        names = ["recipe", "row", "column", "class", *measures, f"{_PAPER}_{scores.metric}", *COSTS]
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        for (recipe, row, column), result in scores.found.items():
            last = list(result.scores)[-1]
            for name, own in result.scores.items():
                paper = scores.paper(recipe, row, column) if name == last else math.nan
                numbers = {**own, f"{_PAPER}_{scores.metric}": paper, **result.costs}
                defined = {key: value for key, value in numbers.items() if math.isfinite(value)}
                writer.writerow({"recipe": recipe, "row": row, "column": column, "class": name, **defined})


def _draw(scores: _Scores, path: Path, metric: str) -> None:
    def panels(value, recipes):
        return {
            column: {recipe: [value(recipe, row, column) for row in scores.rows] for recipe in recipes}
            for column in scores.experiment.columns
        }

    published = [recipe for recipe in scores.recipes if scores.published(recipe)]
    ours, paper = panels(scores.ours, scores.recipes), panels(scores.paper, published)
    reproduction_figure(ours, paper, scores.rows, path, metric, scores.experiment["rows"]["title"])


def _text(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.3f}"
