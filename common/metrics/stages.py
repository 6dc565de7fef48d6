"""The table of a method of several answers: Dice of each one and organ, and what its regions hold and cost."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_path, write_json
from .table import summarise

__all__ = ["StageTable", "markdown_grid"]

_STATISTICS = ("mean", "std", "median", "min", "max")
_KEPT = ("status", "pred_voxels", "label_voxels")
_DISTANCES = ("hd95_mm", "assd_mm")
_AVERAGE = "Average: over the columns of the organs. "
_RULES = (
    "Std: of the sample. A class that is neither in the reference nor in the prediction of a case is left out of its "
    "column; one that is missed, or found where there is none, counts as 0."
)


class StageTable:
    """Collects Dice by case, stage and class, and writes the table of roth2017hierarchical

    For every stage and organ: mean, standard deviation, median, minimum and maximum over cases. The paper's column of
    averages is the mean of the organs' columns, line by line (its 39.5 is the mean of seven minima), and so is this; a
    single class has none.

    Args:
        class_names: names of the scored classes.
        stages: titles of the stages, in order.
        kind: what the stages are: the name of their column, such as "network" for the members of an ensemble.
        legend: sentences below the regions and times; each is shown where its key is part of a figure's name.
        distances: keep HD95 and ASSD of each row, too, for the CSV and JSON files.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        stages: Sequence[str],
        kind: str = "stage",
        legend: Mapping[str, str] | None = None,
        distances: bool = False,
    ) -> None:
        self.class_names = list(class_names)
        self.stages = list(stages)
        self.kind, self.legend = kind, dict(legend or {})
        self.kept = (*_DISTANCES, *_KEPT) if distances else _KEPT
        self.rules = _AVERAGE * (len(self.class_names) > 1) + _RULES
        self.rows: list[dict[str, Any]] = []
        self.cases: list[dict[str, Any]] = []

    def add(self, case: str, scores: Mapping[str, Sequence[Mapping[str, Any]]], figures: Mapping[str, float]) -> None:
        """Add a case.

        Args:
            case: its name.
            scores: for every stage, a dictionary a class, as :func:`~common.metrics.scores.case_scores` returns them.
            figures: further numbers of the case by name, such as shares (between 0 and 1) and seconds; NaN where
                undefined.
        """
        for stage in self.stages:
            for name, row in zip(self.class_names, scores[stage], strict=True):
                counts = {key: row[key] for key in self.kept}
                self.rows.append(
                    {"case": case, self.kind: stage, "class": name, "dice_percent": 100 * row["dice"], **counts}
                )
        self.cases.append({"case": case, **figures})

    def statistics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """For every stage and class, and for ``average``: the statistics of Dice in percent.

        A class has ``n``, the number of cases scored, and ``status``, how many are scored, absent, missed or a false
        find; the average has ``classes``, the number of columns that it is over.
        """
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for stage in self.stages:
            columns = {}
            for name in self.class_names:
                rows = [row for row in self.rows if (row[self.kind], row["class"]) == (stage, name)]
                columns[name] = {
                    **summarise(row["dice_percent"] for row in rows),
                    "status": dict(Counter(row["status"] for row in rows)),
                }
            found[stage] = {**columns, "average": _average(list(columns.values()))}
        return found

    def markdown(self) -> str:
        """The table as Markdown whose columns are aligned, to be read as it is, too."""
        found = self.statistics()
        shown = [*self.class_names, *(["average"] if len(self.class_names) > 1 else [])]
        lines = [[self.kind, "", *shown]]
        for stage, columns in found.items():
            for statistic in _STATISTICS:
                title = stage if statistic == "mean" else ""
                lines.append([title, statistic, *(_text(columns[name][statistic], ".1f") for name in shown)])
            lines.append(["", "cases", *(str(columns[name].get("n", "")) for name in shown)])
        empty = [
            f"{stage}, {name}: " + ", ".join(f"{status} in {count}" for status, count in counts.items())
            for stage, columns in found.items()
            for name in self.class_names
            if (counts := {key: n for key, n in columns[name]["status"].items() if key != "scored"})
        ]
        parts = [f"# Dice in percent, by {self.kind}", markdown_grid(lines, 2), self.rules]
        parts += ["\n".join(f"- {line}" for line in empty)] if empty else []
        if figures := self._figures():
            parts += ["# Regions and time, by case", markdown_grid(figures, 1)]
            names = {name for case in self.cases for name in case}
            parts += [text for word, text in self.legend.items() if any(word in name for name in names)]
        return "\n\n".join(parts) + "\n"

    def _figures(self) -> list[list[str]]:
        """A line a case with its further numbers, and their mean; shares and recalls in percent."""
        names = list(dict.fromkeys(name for case in self.cases for name in case if name != "case"))
        if not names:
            return []
        scale = {name: 100.0 if "share" in name or "recall" in name else 1.0 for name in names}
        form = {name: ".1f" if scale[name] > 1 else ".3g" for name in names}
        lines = [["case", *(f"{name.replace('_', ' ')}{', %' if scale[name] > 1 else ''}" for name in names)]]
        columns = {name: [scale[name] * case.get(name, math.nan) for case in self.cases] for name in names}
        for number, case in enumerate(self.cases):
            lines.append([case["case"], *(_text(columns[name][number], form[name]) for name in names)])
        if len(self.cases) > 1:
            kept = {name: [value for value in column if math.isfinite(value)] for name, column in columns.items()}
            means = [_text(float(np.mean(kept[name])) if kept[name] else None, form[name]) for name in names]
            lines.append(["mean", *means])
        return lines

    def write(self, folder: Path, notes: Sequence[str] = (), **extra: Any) -> str:
        """Write ``stages.csv`` (a row a case, stage and class), ``stages.json`` and ``stages.md``, each whole or not.

        Args:
            folder: where to.
            notes: paragraphs to put below the table.
            extra: more entries for the JSON file.

        Returns:
            the Markdown.
        """
        columns = ["case", self.kind, "class", "dice_percent", *self.kept]
        rows = [{name: _defined(row[name]) for name in columns} for row in self.rows]
        with atomic_path(folder / "stages.csv") as temporary:
            with open(temporary, "w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, columns)
                writer.writeheader()
                writer.writerows(rows)
        write_json(
            folder / "stages.json",
            {
                "dice_percent": self.statistics(),
                "rules": self.rules,
                "notes": list(notes),
                **extra,
                "cases": [{name: _defined(value) for name, value in case.items()} for case in self.cases],
                "scores": rows,
            },
        )
        text = "\n".join([self.markdown(), *(f"{note}\n" for note in notes)])
        with atomic_path(folder / "stages.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        return text


def _average(columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each statistic's mean over the columns that have it."""
    values = {name: [column[name] for column in columns if column[name] is not None] for name in _STATISTICS}
    means = {name: float(np.mean(values[name])) if values[name] else None for name in _STATISTICS}
    return {**means, "classes": len(values["mean"])}


def markdown_grid(lines: Sequence[Sequence[str]], titles: int) -> str:
    """Lines of cells as a Markdown table, the first line its head, all but the first `titles` columns to the right."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    rule = ["-" * width if i < titles else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    aligned = [
        [cell.ljust(width) if i < titles else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def _text(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
