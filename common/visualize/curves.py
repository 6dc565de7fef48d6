"""The picture of a training: loss, validation and learning rate over epochs, a column a stage."""

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
MaxNLocator, _ = optional_import("matplotlib.ticker", name="MaxNLocator")

__all__ = ["training_curves"]

logger = logging.getLogger(__name__)

_INK = "#222222"
_RATES = ("learning_rate", "lr")
_NOT_METRICS = ("epoch", "stage", "loss", *_RATES)


def training_curves(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str = "") -> bool:
    """Write a PNG of a training's history.

    Args:
        history: a dictionary an epoch with ``epoch`` and any of ``loss``, ``learning_rate`` (or ``lr``) and ``stage``
        (each
            stage gets a column); every other number is a validation score. An epoch may lack any of them.
        path: where to write the PNG.
        title: heading.

    Returns:
        whether a picture was written: without matplotlib, or without an epoch, there is none.

    Raises:
        InputError: when the file can not be written.
    """
    if not has_matplotlib:
        logger.warning("matplotlib is not installed: no curves were drawn. Install it with: pip install matplotlib")
        return False
    if not history:
        return False
    stages = list(dict.fromkeys(str(row.get("stage", "")) for row in history))
    metrics = list(dict.fromkeys(name for row in history for name in row if name not in _NOT_METRICS))
    rows = [("loss", ["loss"]), *([("validation", metrics)] if metrics else []), ("learning rate", list(_RATES))]

    figure = Figure(figsize=(1.4 + 5.6 * len(stages), 0.6 + 2.1 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=13, weight="bold", x=0.02, ha="left")
    panels = figure.subplots(len(rows), len(stages), squeeze=False, sharex="col")
    for column, stage in enumerate(stages):
        part = [row for row in history if str(row.get("stage", "")) == stage]
        for line, (heading, names) in enumerate(rows):
            _draw(panels[line][column], part, names, heading)
        panels[0][column].set_title(stage, fontsize=11, loc="left")
        panels[-1][column].set_xlabel("epoch")
        panels[-1][column].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor="white")
    return True


def _draw(panel: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str], heading: str) -> None:
    """One panel: a line a name, its highest point marked where it is a score, logarithmic where it spans decades."""
    panel.grid(True, color="#DDDDDD", lw=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.set_ylabel(heading)
    drawn: list[float] = []
    for index, name in enumerate(names):
        points = [(row["epoch"], float(row[name])) for row in rows if _finite(row.get(name))]
        if not points:
            continue
        colour = {"loss": class_colour(5), "learning rate": "#555555"}.get(heading, class_colour(index + 2))
        epochs, values = zip(*points, strict=True)
        best, score = max(points, key=_score)
        label = f"{name}, highest {score:.3f} in epoch {best}"
        panel.plot(epochs, values, color=colour, lw=1.6, marker="o" if len(points) < 30 else None, ms=3.5, label=label)
        if heading == "validation":
            panel.plot([best], [score], marker="*", ms=13, color=colour, mec=_INK, mew=0.6, ls="none")
        drawn += values
    if heading == "validation" and drawn:
        panel.legend(frameon=False, fontsize=9, loc="lower right")
        panel.margins(y=0.18)
    if drawn and min(drawn) > 0 and max(drawn) / min(drawn) > 100:
        panel.set_yscale("log")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _score(point: tuple[float, float]) -> float:
    return point[1]
