"""The picture of a comparison: a column a method, a line a case that all of them were scored on."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..files import atomic_path
from .palette import class_colour

Figure, has_matplotlib = optional_import("matplotlib.figure", name="Figure")
FigureCanvasAgg, _ = optional_import("matplotlib.backends.backend_agg", name="FigureCanvasAgg")

__all__ = ["comparison_figure"]

logger = logging.getLogger(__name__)

Panel = Mapping[str, Mapping[str, float]]

_MOST_NAMED = 14  # lines in a legend, and colours
_IN_A_ROW = 3
_LONGEST_LEVEL = 10  # characters of a method's name that fit into its column


def comparison_figure(panels: Mapping[str, Panel], path: str | os.PathLike[str], spread: bool = False) -> bool:
    """Write a PNG of scores: a panel a metric, a column a method, a line a case, a bar at the mean.

    Args:
        panels: by the metric's title a score by method and case; NaN, or left out, where undefined. Panels whose
            scores all lie between 0 and 1 show that whole range.
        path: where to write the PNG.
        spread: draw the sample standard deviation about the mean, too.

    Returns:
        whether a picture was written: without matplotlib, or without a score, there is none.

    Raises:
        InputError: when the file can not be written.
    """
    if not has_matplotlib:
        logger.warning("matplotlib is not installed: no picture was drawn. Install it with: pip install matplotlib")
        return False
    methods = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    cases = sorted({case for panel in panels.values() for scores in panel.values() for case in scores})
    if not cases:
        return False
    columns = min(_IN_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    size = (0.5 + columns * (1.3 + max(1.5, 0.75 * len(methods))), 0.4 + 4.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, scores) in zip(grid, panels.items()):
        _draw(axes, title, scores, methods, cases, spread)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if len(cases) <= _MOST_NAMED:
        figure.legend(*grid[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside right center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor="white")
    return True


def _draw(axes: Any, title: str, scores: Panel, methods: Sequence[str], cases: Sequence[str], spread: bool) -> None:
    for number, case in enumerate(cases):
        line = [scores.get(method, {}).get(case, math.nan) for method in methods]
        axes.plot(range(len(methods)), line, color=class_colour(number), lw=0.8, marker="o", ms=5, label=case)
    values = [np.array([v for v in scores.get(method, {}).values() if math.isfinite(v)]) for method in methods]
    for at, column in enumerate(values):
        if not column.size:
            continue
        mean = column.mean()
        axes.plot([at - 0.25, at + 0.25], [mean, mean], color="#222222", lw=2.5)
        if spread and column.size > 1:
            axes.errorbar(at, mean, column.std(ddof=1), color="#222222", lw=1.2, capsize=5)
    axes.set_xticks(range(len(methods)), methods)
    if len(methods) > 4 or max(map(len, methods)) > _LONGEST_LEVEL:
        axes.tick_params(axis="x", labelrotation=90)
    every = np.concatenate(values)
    if every.size and every.min() >= 0 and every.max() <= 1:
        axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(f"{title}; bars: mean{' ± std' if spread else ''}")
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
