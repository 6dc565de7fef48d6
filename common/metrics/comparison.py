"""Several methods on the same cases: their scores side by side, and the differences case by case."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import InputError, problem
from ..files import atomic_path
from .stages import markdown_grid
from .table import summarise

__all__ = ["Comparison", "paired_difference"]

_ROUNDING = 1e-9  # scores that went through percent differ by less


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, Any]:
    """What `first` has more than `second`, case by case.

    Args:
        first, second: a score by case; cases that only one of them has, and those whose score is NaN in either, do
            not count.

    Returns:
        mean, sample standard deviation, 95 % interval and the rest of :func:`~common.metrics.table.summarise`, and in
        ``higher`` and ``lower`` the number of cases in which `first` is so.

    >>> found = paired_difference({"a": 0.75, "b": 0.5, "c": 1.0}, {"a": 0.5, "b": 0.625})
    >>> found["mean"], found["n"], found["higher"], found["lower"]
    (0.0625, 2, 1, 1)
    """
    both = [first[case] - second[case] for case in first if case in second]
    kept = [value for value in both if math.isfinite(value)]
    higher, lower = (sum(sign * value > _ROUNDING for value in kept) for sign in (1, -1))
    return {**summarise(kept), "higher": higher, "lower": lower}


class Comparison:
    """Collects the scores of methods by case, and writes them as CSV and Markdown.

    Args:
        metrics: for each metric its title and the form of its numbers, such as ``("ASSD, mm", ".2f")``.
    """

    def __init__(self, metrics: Mapping[str, tuple[str, str]]) -> None:
        self.metrics = dict(metrics)
        self.rows: list[dict[str, Any]] = []

    def add(self, method: str, case: str, scores: Mapping[str, float], **more: Any) -> None:
        """Add a case of a method.

        Args:
            method: its name; methods are shown in the order in which they come.
            case: the name of the case, the same for every method.
            scores: by metric; one that is undefined, or that the method does not have, is NaN or left out.
            more: further columns of the CSV file, such as the fold.

        Raises:
            InputError: when the method has this case already.
        """
        if any((row["method"], row["case"]) == (method, case) for row in self.rows):
            raise InputError(
                problem(
                    f"'{case}' was scored twice by {method}",
                    "every case is held out once",
                    "collect the folds of one split, of files with names of their own",
                )
            )
        values = {name: float(scores.get(name, math.nan)) for name in self.metrics}
        self.rows.append({"method": method, "case": case, **more, **values})

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in order."""
        return list(dict.fromkeys(row["method"] for row in self.rows))

    def scores(self, method: str, metric: str) -> dict[str, float]:
        """A metric of a method by case; NaN where undefined."""
        return {row["case"]: row[metric] for row in self.rows if row["method"] == method}

    def summary(self) -> dict[str, dict[str, dict[str, Any]]]:
        """For every method and metric: mean, spread and interval over the cases in which it is defined."""
        return {
            method: {name: summarise(self.scores(method, name).values()) for name in self.metrics}
            for method in self.methods
        }

    def means(self) -> str:
        """Markdown: a row a method, mean, standard deviation and 95 % interval of every metric."""
        lines = [["", "cases", *(title for title, _ in self.metrics.values())]]
        for method, columns in self.summary().items():
            cases = sum(row["method"] == method for row in self.rows)
            cells = [_spread(columns[name], form, cases) for name, (_, form) in self.metrics.items()]
            lines.append([method, str(cases), *cells])
        return markdown_grid(lines, 1)

    def differences(self, pairs: Sequence[tuple[str, str]]) -> str:
        """Markdown: a row a pair of methods, the first less the second, case by case.

        Args:
            pairs: two methods each.
        """
        lines = [["", *(title for title, _ in self.metrics.values())]]
        for first, second in pairs:
            cells = []
            for name, (_, form) in self.metrics.items():
                found = paired_difference(self.scores(first, name), self.scores(second, name))
                told = f"; higher in {found['higher']}, lower in {found['lower']}" if found["n"] else ""
                cells.append(_spread(found, f"+{form}") + told)
            lines.append([f"{first} - {second}", *cells])
        return markdown_grid(lines, 1)

    def cases(self) -> str:
        """Markdown: a row a case and method."""
        lines = [["case", "", *(title for title, _ in self.metrics.values())]]
        order = {method: number for number, method in enumerate(self.methods)}
        for row in sorted(self.rows, key=lambda row: (row["case"], order[row["method"]])):
            cells = [_number(row[name], form) for name, (_, form) in self.metrics.items()]
            first = not any(line[0] == row["case"] for line in lines)
            lines.append([row["case"] if first else "", row["method"], *cells])
        return markdown_grid(lines, 2)

    def write_csv(self, path: Path) -> None:
        """Write a row a case and method; undefined scores are empty cells."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            for row in self.rows:
                empty = {name for name in self.metrics if not math.isfinite(row[name])}
                writer.writerow({name: "" if name in empty else value for name, value in row.items()})


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def _spread(found: Mapping[str, Any], form: str, cases: int | None = None) -> str:
    """Mean, standard deviation, interval; the number of values where it is not that of the cases."""
    if not found["n"]:
        return "-"
    text = format(found["mean"], form)
    if found["std"] is not None:
        text += f" ± {format(found['std'], form.lstrip('+'))}"
    if found["ci95"] is not None:
        text += " [{}, {}]".format(*(format(end, form) for end in found["ci95"]))
    return text if cases in (None, found["n"]) else f"{text} (n = {found['n']})"
