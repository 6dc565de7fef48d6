"""Pictures of a volume that was filled up from slices: what was drawn, what came of it, what to draw next."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..files import atomic_path
from ..geometry.labels import labelled_slices
from .palette import class_colour
from .planes import ERROR_COLOUR, INK, FilledVolume, draw_plane, plane_name, scale_bar, show_plane

Figure, has_matplotlib = optional_import("matplotlib.figure", name="Figure")
FigureCanvasAgg, _ = optional_import("matplotlib.backends.backend_agg", name="FigureCanvasAgg")
Patch, _ = optional_import("matplotlib.patches", name="Patch")

__all__ = ["densify_figure", "next_figure"]

logger = logging.getLogger(__name__)

_COLUMN, _LOW, _HIGH = 2.9, 0.9, 4.5  # inches: width of a column, least and most height of a row
_MOST = 6  # planes in a picture of what to draw next


def densify_figure(
    case: FilledVolume,
    path: str | os.PathLike[str],
    title: str = "",
    held_out: Sequence[Sequence[int]] | None = None,
    tested: np.ndarray | None = None,
) -> bool:
    """Write a PNG: across each axis image, drawn slice, dense label and uncertainty; then held-out slices with errors.

    Across each axis the plane with most of every class is shown, of those that were not drawn, beside the drawn plane
    that is nearest to it. Of the held-out planes of each axis the one with the largest share of errors is shown.

    Args:
        case: the volume.
        path: where to write the PNG.
        title: heading.
        held_out: planes per array axis that `tested` was made without; None where none were held out.
        tested: classes everywhere, X Y Z, by what has not seen the planes held out.

    Returns:
        whether a picture was written: without matplotlib there is none, and a warning in the log.

    Raises:
        InputError: when the file can not be written.
    """
    if not _drawable():
        return False
    drawn = [labelled_slices(case.drawn, case.unlabelled, axis) for axis in range(3)]
    filled = [_fullest(case, axis, drawn[axis]) for axis in range(3)]
    worst = [] if tested is None or held_out is None else _worst(case, tested, held_out)
    figure, panels = _figure(case, [[axis] for axis in (0, 1, 2, *(axis for axis, _, _ in worst))], 4, title)
    undrawn = case.drawn == case.unlabelled
    for row, axis in zip(panels, range(3)):
        index = filled[axis]
        near = min(drawn[axis], key=lambda other: abs(other - index), default=index)
        draw_plane(row[0], case, axis, index)
        scale_bar(row[0], case, axis)
        draw_plane(row[1], case, axis, near, case.drawn, dimmed=undrawn)
        draw_plane(row[2], case, axis, index, case.dense)
        shown = _uncertainty(row[3], case, axis, index)
        filled_up = f"filled up: {plane_name(axis, index)}"
        _headings(row, [plane_name(axis, index), f"nearest drawn: {plane_name(axis, near)}", filled_up, "uncertainty"])
    for row, (axis, index, share) in zip(panels[3:-1], worst):
        wrong = (tested != case.drawn) & ~undrawn
        draw_plane(row[0], case, axis, index)
        draw_plane(row[1], case, axis, index, case.drawn, dimmed=undrawn)
        draw_plane(row[2], case, axis, index, tested)
        draw_plane(row[3], case, axis, index, marked=wrong, dimmed=undrawn)
        name = f"held out: {plane_name(axis, index)}"
        _headings(row, [name, "drawn", "predicted without it", f"{100 * share:.1f} % wrong"])
    _legend(figure, panels[-1], case, shown, {"wrong": ERROR_COLOUR} if worst else {}, ["dimmed: not drawn"])
    return _save(figure, path)


def next_figure(
    case: FilledVolume, ranked: Sequence[tuple[int, int, float]], path: str | os.PathLike[str], title: str = ""
) -> bool:
    """Write a PNG of the planes that are to be drawn next: what the method thinks is there, and how unsure it is.

    Args:
        case: the volume.
        ranked: axis, index and gain of each plane, best first, as :func:`~common.geometry.next_slice.rank_planes`
            returns them; the first six are shown.
        path: where to write the PNG.
        title: heading.

    Returns:
        whether a picture was written: without matplotlib, or without a plane, there is none.

    Raises:
        InputError: when the file can not be written.
    """
    shown = list(ranked)[:_MOST]
    if not shown or not _drawable():
        return False
    pairs = [shown[start : start + 2] for start in range(0, len(shown), 2)]
    figure, panels = _figure(case, [[axis for axis, _, _ in pair] for pair in pairs], 4 if len(shown) > 1 else 2, title)
    spare = list(panels[:-1].ravel())
    for number, (axis, index, gain) in enumerate(shown, start=1):
        left, right, *spare = spare
        draw_plane(left, case, axis, index, case.dense)
        scale_bar(left, case, axis)
        map_shown = _uncertainty(right, case, axis, index)
        _headings([left, right], [f"{number}. {plane_name(axis, index)}", f"uncertainty; gain {100 * gain:.1f} %"])
    for panel in spare:
        panel.set_axis_off()
    _legend(figure, panels[-1], case, map_shown, {}, [])
    return _save(figure, path)


def _drawable() -> bool:
    if not has_matplotlib:
        logger.warning("matplotlib is not installed: no picture was drawn. Install it with: pip install matplotlib")
    return has_matplotlib


def _fullest(case: FilledVolume, axis: int, drawn: Sequence[int]) -> int:
    """The plane that shows most of every painted class, of those that were not drawn where there are any."""
    others = tuple(other for other in range(3) if other != axis)
    counts = [(case.dense == k).sum(axis=others) for k in case.painted]
    share = sum(count / count.sum() for count in counts if count.any())
    share = np.broadcast_to(np.asarray(share, dtype=float), case.dense.shape[axis]).copy()
    undrawn = np.setdiff1d(np.arange(len(share)), drawn)
    offered = undrawn if undrawn.size else np.arange(len(share))
    full = offered[share[offered] >= 0.85 * share[offered].max()]
    return int(full[np.abs(full - (len(share) - 1) / 2).argmin()])


def _worst(case: FilledVolume, tested: np.ndarray, held_out: Sequence[Sequence[int]]) -> list[tuple[int, int, float]]:
    """Of each axis the held-out plane with the largest share of errors, and that share."""
    found = []
    for axis, indices in enumerate(held_out):
        shares = []
        for index in indices:
            drawn = case.drawn.take(index, axis)
            labelled = drawn != case.unlabelled
            if labelled.any():
                shares.append((float((tested.take(index, axis) != drawn)[labelled].mean()), -index))
        if shares:
            share, index = max(shares)
            found.append((axis, -index, share))
    return found


def _figure(case: FilledVolume, rows: Sequence[Sequence[int]], columns: int, title: str) -> tuple[Any, np.ndarray]:
    """A figure with a row of panels for planes across the axes given, all on one scale, and a low one for a scale."""
    frames = [[case.frame(axis) for axis in row] for row in rows]
    scale = _COLUMN / max(case.size[wide] for row in frames for wide, _ in row)
    heights = [float(np.clip(max(case.size[high] for _, high in row) * scale, _LOW, _HIGH)) for row in frames]
    inches = (columns * _COLUMN + 0.4, sum(heights) + 0.35 * len(heights) + (0.5 if title else 0) + 1.0)
    figure = Figure(figsize=inches, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(f"{title}  (slices counted from 1)", fontsize=13, weight="bold", color=INK, x=0.01, ha="left")
    ratios = [*heights, 0.1]
    return figure, figure.subplots(len(ratios), columns, squeeze=False, gridspec_kw={"height_ratios": ratios})


def _uncertainty(panel: Any, case: FilledVolume, axis: int, index: int) -> Any:
    """Draw a plane of the uncertainty on the scale of the whole, and return what was drawn."""
    largest = max(0.05, float(np.percentile(case.uncertainty, 99.9)))
    plane = case.uncertainty.take(index, axis)
    return show_plane(panel, case, axis, plane, cmap="magma", vmin=0, vmax=largest)


def _headings(row: Sequence[Any], texts: Sequence[str]) -> None:
    for panel, text in zip(row, texts, strict=True):
        panel.set_title(text, fontsize=9.5, color=INK, loc="left", pad=4)


def _legend(
    figure: Any, row: Sequence[Any], case: FilledVolume, shown: Any, colours: Mapping[str, str], notes: Sequence[str]
) -> None:
    """Fill the last row of panels with the scale of the uncertainty, and write the legend below."""
    for panel in row[:-1]:
        panel.set_axis_off()
    bar = figure.colorbar(shown, cax=row[-1], orientation="horizontal")
    bar.ax.tick_params(labelsize=8)
    bar.set_label("uncertainty", fontsize=8, color=INK)
    entries = [Patch(facecolor=class_colour(k), edgecolor=INK, label=case.class_names[k]) for k in case.painted]
    told = {**colours, **dict.fromkeys(notes, "#666666")}
    entries += [Patch(facecolor=colour, edgecolor=INK, label=name) for name, colour in told.items()]
    figure.legend(handles=entries, loc="outside lower left", ncols=6, frameon=False, fontsize=9)


def _save(figure: Any, path: str | os.PathLike[str]) -> bool:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor="white")
    return True
