"""The table of an evaluation: one row a case and class, and what they come to."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..files import atomic_path, write_json
from .scores import METRICS, NOT_DENSE

bootstrap, _ = optional_import("scipy.stats", name="bootstrap")

__all__ = ["ScoreTable", "mean_interval", "summarise"]

_COUNTS = ("pred_voxels", "label_voxels")


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of a mean, by percentiles (``scipy.stats.bootstrap``), the same at every call.

    The percentile method needs no estimate of skewness or spread, so it is defined for two cases and for equal values
    too; with a handful of cases every bootstrap interval is too narrow, and it says nothing about patients of another
    kind.

    Args:
        values: finite scores, one a case.
        confidence: coverage aimed at.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        lower and upper end, or None for fewer than two values.
    """
    if len(values) < 2:
        return None
    result = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarise(values: Iterable[float]) -> dict[str, Any]:
    """Mean, sample standard deviation, median, range, 95 % interval of the mean and number of values.

    Args:
        values: scores, NaN where undefined; these are left out.

    Returns:
        ``mean, std, median, min, max, ci95, n``; None where there are too few values.
    """
    kept = np.array([value for value in values if not math.isnan(value)], dtype=float)
    if not kept.size:
        return {"mean": None, "std": None, "median": None, "min": None, "max": None, "ci95": None, "n": 0}
    interval = mean_interval(kept.tolist())
    return {
        "mean": float(kept.mean()),
        "std": float(kept.std(ddof=1)) if kept.size > 1 else None,
        "median": float(np.median(kept)),
        "min": float(kept.min()),
        "max": float(kept.max()),
        "ci95": list(interval) if interval else None,
        "n": int(kept.size),
    }


class ScoreTable:
    """Collects the scores of cases and writes them as CSV and JSON.

    Args:
        class_names: one name a class, in channel order.
        nsd_tolerance: tolerance of NSD in mm, for the record.
    """

    def __init__(self, class_names: Sequence[str], nsd_tolerance: float = 1.0) -> None:
        self.class_names = list(class_names)
        self.nsd_tolerance = nsd_tolerance
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def add(self, case: str, scores: Sequence[dict[str, Any]], dense: bool = True) -> None:
        """Add the scores of one case, as :func:`~common.metrics.scores.case_scores` returns them.

        Args:
            case: name of the case.
            scores: one dictionary a class.
            dense: whether its reference is labelled everywhere; if not, the table says once why surface scores are
            missing.
        """
        self.rows += [{"case": case, "class": name, **row} for name, row in zip(self.class_names, scores, strict=True)]
        if not dense and NOT_DENSE not in self.notes:
            self.notes.append(NOT_DENSE)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Every metric over cases: for each class, and for ``all classes`` (the mean over a case's classes)."""
        cases = list(dict.fromkeys(row["case"] for row in self.rows))
        groups = {name: [row for row in self.rows if row["class"] == name] for name in self.class_names}
        groups["all classes"] = [_mean_row([row for row in self.rows if row["case"] == case]) for case in cases]
        return {
            name: {metric: summarise(row[metric] for row in rows) for metric in METRICS}
            for name, rows in groups.items()
        }

    def means(self) -> dict[str, float]:
        """Every metric that is defined somewhere: the mean over cases of the means over their classes."""
        cases = list(dict.fromkeys(row["case"] for row in self.rows))
        means = _mean_row([_mean_row([row for row in self.rows if row["case"] == case]) for case in cases])
        return {metric: value for metric, value in means.items() if not math.isnan(value)}

    def statuses(self) -> dict[str, dict[str, int]]:
        """For each class, the number of cases that are scored, absent, missed or a false find."""
        return {
            name: dict(Counter(row["status"] for row in self.rows if row["class"] == name)) for name in self.class_names
        }

    def write(self, csv_path: str | os.PathLike[str], json_path: str | os.PathLike[str], **extra: Any) -> None:
        """Write both files, each whole or not at all.

        Args:
            csv_path: one row a case and class; undefined scores are empty cells.
            json_path: the same rows, their summary, and how empty classes were counted.
            extra: more entries for the JSON file.
        """
        columns = ["case", "class", *METRICS, "status", *_COUNTS]
        rows = [{name: _defined(row[name]) for name in columns} for row in self.rows]
        with atomic_path(csv_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        write_json(
            json_path,
            {
                "summary": self.summary(),
                "status": self.statuses(),
                "nsd_tolerance_mm": self.nsd_tolerance,
                "interval": "95 % of the mean over cases: bootstrap, percentile method, 9999 resamples, fixed seed",
                "notes": self.notes,
                **extra,
                "cases": rows,
            },
        )

    def __str__(self) -> str:
        """Plain text: one line a class, mean and interval of every metric that was scored at least once."""
        summary = self.summary()
        shown = [metric for metric in METRICS if any(groups[metric]["n"] for groups in summary.values())]
        lines = [["class", "cases", *shown]]
        for name, groups in summary.items():
            number = str(max((groups[metric]["n"] for metric in METRICS), default=0))
            lines.append([name, number, *(_cell(metric, groups[metric]) for metric in shown)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([*text, *self.notes])


def _mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    found = {metric: [row[metric] for row in rows if not math.isnan(row[metric])] for metric in METRICS}
    return {metric: float(np.mean(values)) if values else math.nan for metric, values in found.items()}


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(metric: str, group: dict[str, Any]) -> str:
    if not group["n"]:
        return "-"
    form = "{:.3g}" if metric.endswith("_mm") else "{:.3f}"  # under a microscope distances are thousandths of a mm
    interval = "" if group["ci95"] is None else f" [{form}, {form}]".format(*group["ci95"])
    return form.format(group["mean"]) + interval
