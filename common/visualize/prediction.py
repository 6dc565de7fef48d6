"""The picture of a prediction: three slices and a surface view."""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_numpy, optional_import

from ..checks import InputError, problem
from ..files import atomic_path
from .palette import background_classes, class_colour
from .projection import surface_view

Figure, has_matplotlib = optional_import("matplotlib.figure", name="Figure")
FigureCanvasAgg, _ = optional_import("matplotlib.backends.backend_agg", name="FigureCanvasAgg")
Line2D, _ = optional_import("matplotlib.lines", name="Line2D")
Patch, _ = optional_import("matplotlib.patches", name="Patch")
Stroke, _ = optional_import("matplotlib.patheffects", name="withStroke")
to_rgb, _ = optional_import("matplotlib.colors", name="to_rgb")
nib, _ = optional_import("nibabel")

__all__ = ["has_matplotlib", "prediction_figure"]

logger = logging.getLogger(__name__)

_PAPER, _INK, _PANEL, _WARN = "#FFFFFF", "#222222", "#000000", "#B00020"
_LARGEST = 256  # voxels a side of the surface view; finer detail is below a pixel of the picture


def prediction_figure(
    image: torch.Tensor | np.ndarray,
    pred: torch.Tensor | np.ndarray,
    path: str | os.PathLike[str],
    label: torch.Tensor | np.ndarray | None = None,
    affine: torch.Tensor | np.ndarray | None = None,
    class_names: Sequence[str] = ("background", "foreground"),
    title: str = "",
    warning: str | None = None,
) -> bool:
    """Write a PNG: axial, coronal and sagittal slice through the largest part of what was found, and its surface.

    The prediction is a fill, the reference an outline, both in the class's own colour (:mod:`.palette`). Volumes are
    turned to RAS by their affine and drawn in mm, so anisotropic voxels keep their proportions, as a radiologist looks
    at them: the patient's right and front are on the left. Several channels are shown as the mean of their scaled
    intensities.

    Args:
        image: C D H W, any intensity.
        pred: class indices, 1 D H W or D H W, on the image's grid.
        path: where to write the PNG.
        label: reference as class indices on the same grid; negative or foreign values are unlabelled.
        affine: 4 x 4, voxel to RAS mm; identity when None.
        class_names: names in class order; a class named "background" is not painted.
        title: heading; keep it free of anything about the patient.
        warning: a line to print loudly across the top.

    Returns:
        whether a picture was written: without matplotlib there is none, and a warning in the log.

    Raises:
        InputError: when the volumes are not on one grid, or the file can not be written.
    """
    if not has_matplotlib:
        logger.warning("matplotlib is not installed: no picture was written. Install it with: pip install matplotlib")
        return False
    scan, found, reference, spacing, codes = _ras_volumes(image, pred, label, affine)
    painted = [index for index in range(len(class_names)) if index not in background_classes(class_names)]
    centre = _centre(found, reference, painted)

    size = np.array(found.shape) * spacing
    # panels much longer than wide would squeeze the others to a strip
    wide, tall, high = np.clip(size / size.max(), 0.30, 1.0)
    banner = textwrap.wrap(f"WARNING: {warning}", 105) if warning else []
    head = 0.75 + (0.22 * len(banner) + 0.28 if banner else 0.0)
    figure = Figure(figsize=(10.5, 10.5 * (tall + high) / (wide + tall) + head + 0.75), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    inch = 1.0 / figure.get_figheight()
    grid = figure.add_gridspec(
        2,
        2,
        width_ratios=(wide, tall),
        height_ratios=(high, tall),
        left=0.03,
        right=0.97,
        bottom=0.62 * inch,
        top=1 - head * inch,
        wspace=0.04,
        hspace=0.08,
    )
    grey = _grey_range(scan, found, painted)
    for cell, axis, name in ((grid[1, 0], 2, "axial"), (grid[0, 0], 1, "coronal"), (grid[0, 1], 0, "sagittal")):
        panel = _panel(figure, cell, f"{name}, slice {centre[axis]} of {found.shape[axis]}")
        _draw_slice(panel, scan, found, reference, axis, centre, spacing, painted, grey)
        _frame(panel, axis, size, codes)
    _draw_surface(
        _panel(figure, grid[1, 1], "prediction, surface seen from the front"), found, painted, class_names, spacing
    )

    figure.text(0.03, 1 - 0.15 * inch, title or "prediction", fontsize=15, weight="bold", color=_INK, va="top")
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
    _legend(figure, painted, class_names, found, spacing, reference is not None)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", facecolor=_PAPER)
    return True


def _ras_volumes(image: Any, pred: Any, label: Any, affine: Any) -> tuple[Any, ...]:
    """Channels, prediction and reference as X Y Z in RAS, the spacing, and whether axes are anatomical."""
    scan, found = convert_to_numpy(image), convert_to_numpy(pred)
    found = found[0] if found.ndim == 4 else found
    reference = None if label is None else convert_to_numpy(label)
    reference = reference[0] if reference is not None and reference.ndim == 4 else reference
    shapes = {scan.shape[1:], found.shape, found.shape if reference is None else reference.shape}
    if len(shapes) != 1 or found.ndim != 3:
        raise InputError(
            problem(
                f"image {scan.shape}, prediction {found.shape}, reference {None if label is None else reference.shape}",
                "a picture needs them on one grid, C D H W and D H W",
                "invert the preprocessing, or reload the image",
            )
        )
    matrix = np.eye(4) if affine is None else np.asarray(convert_to_numpy(affine), dtype=float)
    turn = nib.orientations.io_orientation(matrix)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    reference = None if reference is None else nib.orientations.apply_orientation(reference, turn)
    channels = [nib.orientations.apply_orientation(channel, turn) for channel in scan]
    return (
        channels,
        nib.orientations.apply_orientation(found, turn).astype(np.int16),
        reference,
        spacing,
        affine is not None,
    )


def _grey_range(channels: list[np.ndarray], found: np.ndarray, painted: list[int]) -> list[tuple[float, float]]:
    """Lower and upper grey value of each channel, from a sparse sample around what was found, else of all."""
    solid = np.isin(found, painted)
    box = []
    for axis, size in enumerate(found.shape):
        where = np.flatnonzero(solid.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = size // 20
        low, high = (max(0, where[0] - margin), min(size, where[-1] + margin + 1)) if where.size else (0, size)
        box.append(slice(low, high, max(1, (high - low) // 64)))
    ranges = []
    for channel in channels:
        low, high = np.percentile(channel[tuple(box)], (5, 99.5))
        ranges.append((float(low), float(max(high, low + 1e-6))))
    return ranges


def _centre(found: np.ndarray, reference: np.ndarray | None, painted: list[int]) -> tuple[int, ...]:
    """Along each axis the slice that shows most: of the reference if it has any foreground, else of the prediction.

    Every class weighs the same, whatever its volume; among slices about as full as the fullest, the most central is
    taken.
    """
    for volume in (reference, found):
        masks = [] if volume is None else [volume == k for k in painted]
        masks = [mask for mask in masks if mask.any()]
        if masks:
            return tuple(_fullest_slice(masks, axis) for axis in range(3))
    return tuple(size // 2 for size in found.shape)


def _fullest_slice(masks: list[np.ndarray], axis: int) -> int:
    others = tuple(other for other in range(3) if other != axis)
    share = np.sum([mask.sum(axis=others) / mask.sum() for mask in masks], axis=0)
    full = np.flatnonzero(share >= 0.85 * share.max())
    return int(full[np.abs(full - (share.size - 1) / 2).argmin()])


def _panel(figure: Any, cell: Any, heading: str) -> Any:
    panel = figure.add_subplot(cell)
    panel.set_facecolor(_PANEL)
    panel.set_anchor("NW")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_title(heading, fontsize=9.5, color=_INK, loc="left", pad=4)
    for side in panel.spines.values():
        side.set_visible(False)
    return panel


def _draw_slice(
    panel: Any, channels: Any, found: Any, reference: Any, axis: int, centre: Any, spacing: Any, painted: Any, grey: Any
) -> None:
    """Grey slice, prediction filled, reference outlined; the dashed lines say where the other two slices run."""
    index = centre[axis]
    across, along = (other for other in range(3) if other != axis)
    extent = (0, found.shape[across] * spacing[across], 0, found.shape[along] * spacing[along])
    planes = [
        np.clip((channel.take(index, axis).astype(np.float64) - low) / (high - low), 0, 1)
        for channel, (low, high) in zip(channels, grey, strict=True)
    ]
    shared = {"origin": "lower", "extent": extent, "aspect": "equal"}
    panel.imshow(np.mean(planes, axis=0).T, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", **shared)
    plane = found.take(index, axis)
    fill = np.zeros((*plane.shape, 4))
    for k in painted:
        fill[plane == k] = (*to_rgb(class_colour(k)), 0.50)
    panel.imshow(fill.transpose(1, 0, 2), interpolation="nearest", **shared)
    if reference is not None:
        _outline(panel, reference.take(index, axis), painted, extent)
    for other, line in ((across, panel.axvline), (along, panel.axhline)):
        line((centre[other] + 0.5) * spacing[other], color="white", lw=0.7, ls=(0, (4, 5)), alpha=0.6)
    panel.set_xlim(extent[1::-1])
    panel.set_ylim(extent[2:])


def _outline(panel: Any, plane: np.ndarray, painted: list[int], extent: tuple[float, ...]) -> None:
    for k in painted:
        # a rim of zeros closes outlines at the border of the volume
        mask = np.pad((plane == k).astype(float), 1)
        if not mask.any():
            continue
        x = (np.arange(mask.shape[0]) - 0.5) * extent[1] / plane.shape[0]
        y = (np.arange(mask.shape[1]) - 0.5) * extent[3] / plane.shape[1]
        for colour, width in (("black", 2.4), (class_colour(k), 1.3)):
            panel.contour(x, y, mask.T, levels=[0.5], colors=[colour], linewidths=width)


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
            0.5, 0.5, "nothing found", transform=panel.transAxes, ha="center", va="center", fontsize=14, color=_INK
        )
    panel.imshow(
        view.transpose(1, 0, 2), origin="lower", extent=(0, width, 0, height), aspect="equal", interpolation="bilinear"
    )
    panel.set_xlim(width, 0)


def _frame(panel: Any, axis: int, size: np.ndarray, anatomical: bool) -> None:
    """Sides of the patient, and a bar of a round length in mm."""
    across, along = (other for other in range(3) if other != axis)
    dark = [Stroke(linewidth=2.5, foreground="black")]
    style = {"transform": panel.transAxes, "color": "white", "path_effects": dark, "fontsize": 10, "weight": "bold"}
    if anatomical:
        left, right, top = (("R", "A")[across], ("L", "P")[across], ("A", "S")[along - 1])
        panel.text(0.015, 0.5, left, ha="left", va="center", **style)
        panel.text(0.985, 0.5, right, ha="right", va="center", **style)
        panel.text(0.5, 0.985, top, ha="center", va="top", **style)
    target = size[across] / 4
    length = max(base * 10.0**power for power in range(-6, 7) for base in (1, 2, 5) if base * 10.0**power <= target)
    bar = (0.03, 0.03 + length / size[across])
    panel.plot(
        bar, (0.04, 0.04), transform=panel.transAxes, color="white", lw=3, solid_capstyle="butt", path_effects=dark
    )
    panel.text(0.03, 0.06, f"{length:g} mm" if length > 0.05 else f"{length * 1e3:g} µm", va="bottom", **style)


def _volume_text(volume: float) -> str:
    """A volume in mm³, in the unit that a reader of such volumes uses."""
    if volume >= 100:
        return f"{volume / 1000:,.1f} ml"
    return f"{volume:,.3g} mm³" if volume >= 0.1 or volume == 0 else f"{volume * 1e9:,.0f} µm³"


def _legend(
    figure: Any, painted: list[int], class_names: Sequence[str], found: np.ndarray, spacing: np.ndarray, outlined: bool
) -> None:
    voxel = float(np.prod(spacing))
    entries = []
    for k in painted:
        volume = float((found == k).sum()) * voxel
        label = f"{class_names[k]}  {_volume_text(volume)}"
        entries.append(Patch(facecolor=class_colour(k), edgecolor=_INK, label=label))
    if outlined:
        entries.append(Line2D([], [], color=_INK, lw=1.6, label="outline: reference"))
    columns = min(len(entries), 5) or 1
    figure.legend(handles=entries, loc="lower center", ncols=columns, frameon=False, fontsize=10, handlelength=1.4)
