"""The table of an evaluation of vessels, in the layout of the paper's."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_path, write_json
from .stages import markdown_grid
from .table import summarise
from .vessels import VESSEL_METRICS

__all__ = ["VesselTable"]

# title, factor and form of the numbers in the table for people; in the files all scores are shares
_TITLES = {
    "dice_loss": ("Dice loss", 1, ".3f"),
    "mean_accuracy": ("MA, %", 100, ".1f"),
    "mean_iou": ("IU, %", 100, ".1f"),
    "dice": ("DC, %", 100, ".1f"),
    "cldice": ("clDice, %", 100, ".1f"),
    "topology_precision": ("topology precision, %", 100, ".1f"),
    "topology_sensitivity": ("topology sensitivity, %", 100, ".1f"),
    "betti0_error": ("Betti-0 error", 1, ".1f"),
}
_COUNTS = ("pred_components", "label_components", "status", "pred_voxels", "label_voxels")
_ALL = "all classes"
_RULES = (
    "Mean ± standard deviation of the sample [95 % interval of the mean], over cases. MA and IU are means of the "
    "vessels' part and the background's: a prediction of nothing has 50 % of MA. Dice loss is that of the "
    "probabilities.",
    "clDice: harmonic mean of the share of the prediction's centre line that lies in the reference (topology "
    "precision), and of the reference's in the prediction (topology sensitivity). Betti-0 error: by how many the "
    "connected components (26 neighbours) differ.",
    "A class that is neither in the reference nor in the prediction of a case is left out; one that is missed, or "
    "found where there is none, counts, with DC and clDice of 0.",
)


class VesselTable:
    """Collects the scores of :func:`~common.metrics.vessels.vessel_scores`, and writes CSV, JSON and Markdown.

    Args:
        class_names: one name a scored class, in order.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self.rows: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}

    def add(self, case: str, scores: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """Add a case.

        Args:
            case: its name.
            scores: one dictionary a class.
            seconds: that the network took for it.
        """
        self.rows += [{"case": case, "class": name, **row} for name, row in zip(self.class_names, scores, strict=True)]
        self.seconds[case] = seconds

    def summary(self) -> dict[str, dict[str, dict[str, Any]]]:
        """For each class, and for ``all classes`` (means over a case's classes): every score over cases."""
        groups = {name: [row for row in self.rows if row["class"] == name] for name in self.class_names}
        groups[_ALL] = [_mean_row([row for row in self.rows if row["case"] == case]) for case in self.seconds]
        return {
            name: {metric: summarise(row[metric] for row in rows) for metric in VESSEL_METRICS}
            for name, rows in groups.items()
        }

    def statuses(self) -> dict[str, dict[str, int]]:
        """For each class, the number of cases that are scored, absent, missed or a false find."""
        return {
            name: dict(Counter(row["status"] for row in self.rows if row["class"] == name)) for name in self.class_names
        }

    def markdown(self) -> str:
        """The table as Markdown whose columns are aligned, to be read as it is, too."""
        summary, statuses, total = self.summary(), self.statuses(), len(self.seconds)
        shown = [*self.class_names, *([_ALL] if len(self.class_names) > 1 else [])]
        lines = [["", *shown]]
        for metric, form in _TITLES.items():
            if any(summary[name][metric]["n"] for name in shown):
                lines.append([form[0], *(_cell(summary[name][metric], total, *form[1:]) for name in shown)])
        for status in ("absent", "missed", "false find"):
            counts = [statuses.get(name, {}).get(status, 0) for name in shown]
            if any(counts):
                lines.append([f"cases, {status}", *("" if name == _ALL else str(n) for name, n in zip(shown, counts))])
        lines.append(["cases", *[str(total)] * len(shown)])
        return "\n\n".join(["# Vessels", markdown_grid(lines, 1), *_RULES]) + "\n"

    def write(self, folder: Path, application: Mapping[str, Any], notes: Sequence[str] = (), **extra: Any) -> str:
        """Write ``vessels.csv`` (a row a case and class), ``vessels.json`` and ``vessels.md``, each whole or not.

        Args:
            folder: where to.
            application: what is known of the network's runs: ``what`` the seconds are of, and more.
            notes: paragraphs at the end.
            extra: more entries for the JSON file.

        Returns:
            the Markdown.
        """
        columns = ["case", "class", *VESSEL_METRICS, *_COUNTS]
        rows = [
            {**{name: _defined(row[name]) for name in columns}, "seconds": self.seconds[row["case"]]}
            for row in self.rows
        ]
        with (
            atomic_path(folder / "vessels.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, [*columns, "seconds"])
            writer.writeheader()
            writer.writerows(rows)
        seconds = summarise(self.seconds.values())
        write_json(
            folder / "vessels.json",
            {
                "summary": self.summary(),
                "status": self.statuses(),
                "application": {"seconds": seconds, **application},
                "rules": list(_RULES),
                "notes": list(notes),
                **extra,
                "cases": rows,
            },
        )
        text = "\n".join([self.markdown(), *(f"{note}\n" for note in [_time_text(seconds, application), *notes])])
        with atomic_path(folder / "vessels.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        return text


def _time_text(seconds: Mapping[str, Any], application: Mapping[str, Any]) -> str:
    spread = "" if seconds["std"] is None else f" ± {seconds['std']:.3g}"
    memory = application.get("peak_memory_mib")
    used = "" if memory is None else f"; peak memory {memory:.0f} MiB ({application['memory']})"
    return (
        f"Application: {seconds['mean']:.3g}{spread} s a case, median {seconds['median']:.3g} s, on "
        f"{application['device']}{used}. {application['what']}"
    )


def _mean_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {metric: [row[metric] for row in rows if not math.isnan(row[metric])] for metric in VESSEL_METRICS}
    return {metric: float(np.mean(values)) if values else math.nan for metric, values in found.items()}


def _cell(group: Mapping[str, Any], total: int, factor: int, form: str) -> str:
    if not group["n"]:
        return "-"
    text = format(factor * group["mean"], form)
    if group["ci95"] is not None:
        low, high = (format(factor * end, form) for end in group["ci95"])
        text += f" ± {format(factor * group['std'], form)} [{low}, {high}]"
    return text + (f" ({group['n']} of {total})" if group["n"] < total else "")


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
