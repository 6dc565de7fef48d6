"""The picture of a prediction: three slices and a surface view, or three maximum projections."""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import

from ..checks import InputError, problem
from ..files import atomic_path
from .mip import FALSE_COLOUR, MISSED_COLOUR, draw_projections
from .palette import background_classes, class_colour
from .projection import surface_view
from .slices import INK, close_up, draw_slice, fullest_slices, grey_ranges, slice_panel
from .volumes import CaseVolumes, ras_volumes

Figure, has_matplotlib = optional_import("matplotlib.figure", name="Figure")
FigureCanvasAgg, _ = optional_import("matplotlib.backends.backend_agg", name="FigureCanvasAgg")
Line2D, _ = optional_import("matplotlib.lines", name="Line2D")
Patch, _ = optional_import("matplotlib.patches", name="Patch")
to_rgb, _ = optional_import("matplotlib.colors", name="to_rgb")

__all__ = ["VIEWS", "check_view", "has_matplotlib", "prediction_figure"]

logger = logging.getLogger(__name__)

VIEWS = ("slices", "mip")

_PAPER, _WARN = "#FFFFFF", "#B00020"
_LARGEST = 256  # voxels a side of the surface view; finer detail is below a pixel of the picture


def check_view(view: str) -> str:
    """`view`, if there is a picture of that kind.

    Raises:
        InputError: when there is none.
    """
    if view not in VIEWS:
        raise InputError(
            problem(
                f"view is {view!r}",
                f"pictures are of one of the kinds {', '.join(VIEWS)}",
                "take mip for vessels and other thin structures, slices for the rest",
            )
        )
    return view


def prediction_figure(
    image: torch.Tensor | np.ndarray,
    pred: torch.Tensor | np.ndarray,
    path: str | os.PathLike[str],
    label: torch.Tensor | np.ndarray | None = None,
    affine: torch.Tensor | np.ndarray | None = None,
    class_names: Sequence[str] = ("background", "foreground"),
    title: str = "",
    warning: str | None = None,
    region: torch.Tensor | np.ndarray | None = None,
    view: str = "slices",
) -> bool:
    """Write a PNG: axial, coronal and sagittal slice through the largest part of what was found, and its surface.

    Of thin structures slices show only dots: with the view "mip" the picture has the largest intensities seen from the
    front, the patient's left and the feet, plain and with the prediction over them, where there is a reference with
    what is missed and what is false (:func:`~common.visualize.mip.ray_classes`).

    The prediction is a fill, the reference an outline, both in the class's own colour (:mod:`.palette`). Volumes are
    turned to RAS by their affine and drawn in mm, so anisotropic voxels keep their proportions, as a radiologist looks
    at them: the patient's right and front are on the left. Several channels are shown as the mean of their scaled
    intensities. Where the foreground of the axial slice is small, a close-up of it stands above the surface.

    Args:
        image: C D H W, any intensity.
        pred: class indices, 1 D H W or D H W, on the image's grid.
        path: where to write the PNG.
        label: reference as class indices on the same grid; negative or foreign values are unlabelled.
        affine: 4 x 4, voxel to RAS mm; identity when None.
        class_names: names in class order; a class named "background" is not painted.
        title: heading; keep it free of anything about the patient.
        warning: a line to print loudly across the top.
        region: where the method has looked more closely, not zero inside, 1 D H W or D H W on the same grid.
        view: "slices" or "mip".

    Returns:
        whether a picture was written: without matplotlib there is none, and a warning in the log.

    Raises:
        InputError: when the volumes are not on one grid, the file can not be written, or there is no such view.
    """
    check_view(view)
    if not has_matplotlib:
        logger.warning("matplotlib is not installed: no picture was written. Install it with: pip install matplotlib")
        return False
    case = ras_volumes(image, pred, label, region, affine)
    painted = [index for index in range(len(class_names)) if index not in background_classes(class_names)]
    banner = textwrap.wrap(f"WARNING: {warning}", 105) if warning else []
    head = 0.75 + (0.22 * len(banner) + 0.28 if banner else 0.0)
    # panels much longer than wide would squeeze the others to a strip
    wide, tall, high = np.clip(case.size / case.size.max(), 0.30, 1.0)
    if view == "mip":
        widths, heights, inches = (wide, tall, wide), (1, 1), min(2 * 10.5 * max(high, tall) / (2 * wide + tall), 16.0)
    else:
        widths, heights, inches = (wide, tall), (high, tall), 10.5 * (tall + high) / (wide + tall)
    figure = Figure(figsize=(10.5, inches + head + 0.75), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    inch = 1.0 / figure.get_figheight()
    grid = figure.add_gridspec(
        2,
        len(widths),
        width_ratios=widths,
        height_ratios=heights,
        left=0.03,
        right=0.97,
        bottom=0.62 * inch,
        top=1 - head * inch,
        wspace=0.04,
        hspace=0.08,
    )
    (draw_projections if view == "mip" else _draw_slices)(figure, grid, case, painted, class_names)
    figure.text(0.03, 1 - 0.15 * inch, title or "prediction", fontsize=15, weight="bold", color=INK, va="top")
    if banner:
        figure.text(
            0.5,
            1 - 0.60 * inch,
            "\n".join(banner),
            fontsize=11,
            weight="bold",
            color="white",
            ha="center",
            va="top",
            bbox={"facecolor": _WARN, "edgecolor": _WARN, "boxstyle": "square,pad=0.45"},
        )
    _legend(figure, painted, class_names, case, view)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor=_PAPER)
    return True


def _draw_slices(figure: Any, grid: Any, case: CaseVolumes, painted: list[int], class_names: Sequence[str]) -> None:
    """Coronal and sagittal slice above the axial one and the surface; a close-up takes most of the surface's place."""
    centre, grey = fullest_slices(case, painted), grey_ranges(case, painted)
    window = close_up(case, painted, centre[2])
    for cell, axis, name in ((grid[1, 0], 2, "axial"), (grid[0, 0], 1, "coronal"), (grid[0, 1], 0, "sagittal")):
        panel = slice_panel(figure, cell, f"{name}, slice {centre[axis]} of {case.found.shape[axis]}")
        draw_slice(panel, case, painted, grey, axis, centre, window if axis == 2 else None)
    last = grid[1, 1]
    if window is not None:
        first, last = last.subgridspec(2, 1, height_ratios=(2.2, 1), hspace=0.16)
        panel = slice_panel(figure, first, "close-up, the frame in the axial slice")
        draw_slice(panel, case, painted, grey, 2, centre, window, magnified=True)
    panel = slice_panel(figure, last, "prediction, surface seen from the front")
    _draw_surface(panel, case.found, painted, class_names, case.spacing)


def _draw_surface(
    panel: Any, found: np.ndarray, painted: list[int], class_names: Sequence[str], spacing: np.ndarray
) -> None:
    step = [max(1, -(-size // _LARGEST)) for size in found.shape]
    colours = np.array([to_rgb(class_colour(k)) for k in range(len(class_names))])
    thinned = found[:: step[0], :: step[1], :: step[2]]
    view = surface_view(thinned, painted, colours, tuple(spacing * step))
    width, height = found.shape[0] * spacing[0], found.shape[2] * spacing[2]
    panel.set_facecolor("#F2F2F2")
    if not view[..., 3].any():
        panel.text(
            0.5, 0.5, "nothing found", transform=panel.transAxes, ha="center", va="center", fontsize=14, color=INK
        )
    panel.imshow(
        view.transpose(1, 0, 2), origin="lower", extent=(0, width, 0, height), aspect="equal", interpolation="bilinear"
    )
    panel.set_xlim(width, 0)


def _volume_text(volume: float) -> str:
    """A volume in mm³, in the unit that a reader of such volumes uses."""
    if volume >= 100:
        return f"{volume / 1000:,.1f} ml"
    return f"{volume:,.3g} mm³" if volume >= 0.1 or volume == 0 else f"{volume * 1e9:,.0f} µm³"


def _legend(figure: Any, painted: list[int], class_names: Sequence[str], case: CaseVolumes, view: str) -> None:
    voxel = float(np.prod(case.spacing))
    entries = []
    for k in painted:
        volume = float((case.found == k).sum()) * voxel
        label = f"{class_names[k]}  {_volume_text(volume)}"
        entries.append(Patch(facecolor=class_colour(k), edgecolor=INK, label=label))
    if case.reference is not None:
        empty = "" if np.isin(case.reference, painted).any() else " (nothing labelled)"
        if view == "mip":
            errors = ((f"missed{empty}", MISSED_COLOUR), ("false", FALSE_COLOUR))
            entries += [Patch(facecolor=colour, edgecolor=INK, label=label) for label, colour in errors]
        else:
            entries.append(Line2D([], [], color=INK, lw=1.6, label=f"outline: reference{empty}"))
    if case.region is not None:
        empty = "" if case.region.any() else " (empty)"
        entries.append(Line2D([], [], color=INK, lw=1.6, ls="dashed", label=f"dashed: candidate region{empty}"))
    columns = min(len(entries), 5) or 1
    figure.legend(handles=entries, loc="lower center", ncols=columns, frameon=False, fontsize=10, handlelength=1.4)
