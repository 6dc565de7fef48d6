"""The picture of a reproduced experiment: a recipe's scores line by line, and the paper's beside them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from monai.utils import optional_import

from ..files import atomic_path
from .palette import class_colour

Figure, has_matplotlib = optional_import("matplotlib.figure", name="Figure")
FigureCanvasAgg, _ = optional_import("matplotlib.backends.backend_agg", name="FigureCanvasAgg")

__all__ = ["reproduction_figure"]

logger = logging.getLogger(__name__)

Panels = Mapping[str, Mapping[str, Sequence[float]]]


def reproduction_figure(
    ours: Panels, paper: Panels, rows: Sequence[str], path: str | os.PathLike[str], score: str, axis: str = ""
) -> bool:
    """Write a PNG: a panel a volume, a colour a recipe; what was measured is drawn full, the paper's dashed and hollow.

    Args:
        ours: by panel and recipe a score for each of the rows; NaN where there is none.
        paper: the same of the paper, for some of the recipes.
        rows: names of the rows, from left to right.
        path: where to write the PNG.
        score: what the scores are.
        axis: what the rows are.

    Returns:
        whether a picture was written: without matplotlib, or without a score, there is none.

    Raises:
        InputError: when the file can not be written.
    """
    if not has_matplotlib:
        logger.warning("matplotlib is not installed: no picture was drawn. Install it with: pip install matplotlib")
        return False
    if not any(math.isfinite(value) for panel in ours.values() for line in panel.values() for value in line):
        return False
    width = max(3.2, 1.0 + 0.8 * len(rows))
    figure = Figure(figsize=(1.9 + width * len(ours), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(ours), squeeze=False, sharey=True).ravel()
    recipes = list(dict.fromkeys(name for panel in ours.values() for name in panel))
    for axes, (title, lines) in zip(panels, ours.items()):
        _draw(axes, lines, paper.get(title, {}), recipes, rows)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(axis)
    panels[0].set_ylabel(score)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside right center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor="white")
    return True


def _draw(
    axes: Any,
    ours: Mapping[str, Sequence[float]],
    paper: Mapping[str, Sequence[float]],
    recipes: Sequence[str],
    rows: Sequence[str],
) -> None:
    places = range(len(rows))
    for number, recipe in enumerate(recipes):
        colour = class_colour(number)
        axes.plot(
            places, ours.get(recipe, [math.nan] * len(rows)), color=colour, lw=1.6, marker="o", ms=6, label=recipe
        )
        if recipe in paper:
            hollow = {"marker": "o", "ms": 6, "mfc": "white", "ls": (0, (3, 2)), "lw": 1.0}
            axes.plot(places, paper[recipe], color=colour, label=f"{recipe}, paper", zorder=1, **hollow)
    axes.set_xticks(places, rows)
    if max(map(len, rows)) * len(rows) > 44:
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_xlim(-0.3, len(rows) - 0.7)
    every = [value for line in (*ours.values(), *paper.values()) for value in line if math.isfinite(value)]
    if every and min(every) >= 0 and max(every) <= 1:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
