"""The picture of a simulated annotation: a score against the number of slices, a line a strategy."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..files import atomic_path
from .palette import class_colour

Figure, has_matplotlib = optional_import("matplotlib.figure", name="Figure")
FigureCanvasAgg, _ = optional_import("matplotlib.backends.backend_agg", name="FigureCanvasAgg")
MaxNLocator, _ = optional_import("matplotlib.ticker", name="MaxNLocator")

__all__ = ["annotation_curves"]

logger = logging.getLogger(__name__)

_MARKERS = "osD^vP"


def annotation_curves(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    path: str | os.PathLike[str],
    title: str = "",
    score: str = "mean IoU",
) -> bool:
    """Write a PNG: of each strategy every repeat as a thin line, and their mean as a thick one.

    Args:
        curves: by strategy, for each repeat the points (slices, score) of it in order. The mean is drawn where all
            repeats of a strategy have a point of the same place in order.
        path: where to write the PNG.
        title: heading.
        score: what the vertical axis has.

    Returns:
        whether a picture was written: without matplotlib, or without a point, there is none.

    Raises:
        InputError: when the file can not be written.
    """
    if not has_matplotlib:
        logger.warning("matplotlib is not installed: no curves were drawn. Install it with: pip install matplotlib")
        return False
    if not any(points for repeats in curves.values() for points in repeats):
        return False
    figure = Figure(figsize=(7.2, 4.8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for number, (name, repeats) in enumerate(curves.items()):
        _draw(panel, name, [np.array(points, dtype=float) for points in repeats if points], number)
    panel.set_xlabel("slices drawn")
    panel.set_ylabel(score)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title(title, fontsize=11, loc="left")
    panel.grid(color="#DDDDDD", lw=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.legend(frameon=False, fontsize=9, loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor="white")
    return True


def _draw(panel: Any, name: str, repeats: Sequence[np.ndarray], number: int) -> None:
    """A strategy, shifted a little to the side of the others, whose points lie at the same numbers of slices."""
    colour, aside = class_colour(number), np.array([0.06 * number, 0.0])
    for points in repeats:
        panel.plot(*(points + aside).T, color=colour, lw=0.7, alpha=0.5)
    shortest = min((len(points) for points in repeats), default=0)
    if not shortest:
        return
    stacked = np.stack([points[:shortest] for points in repeats])
    mean = stacked.mean(axis=0) + aside
    spread = stacked[..., 1].std(axis=0, ddof=1) if len(repeats) > 1 else None
    label = name if spread is None else f"{name}, mean of {len(repeats)} ± std"
    marker = _MARKERS[number % len(_MARKERS)]
    panel.errorbar(
        *mean.T, yerr=spread, color=colour, lw=2.2, marker=marker, ms=6, capsize=4, elinewidth=1, label=label
    )
