"""Slices of a case for pictures: which ones, in which grey values, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from .palette import class_colour
from .volumes import CaseVolumes

Rectangle, _ = optional_import("matplotlib.patches", name="Rectangle")
Stroke, _ = optional_import("matplotlib.patheffects", name="withStroke")
to_rgb, _ = optional_import("matplotlib.colors", name="to_rgb")

__all__ = ["close_up", "draw_slice", "fullest_slices", "grey_ranges", "outline", "slice_frame", "slice_panel"]

INK = "#222222"
_PANEL = "#000000"
_SMALL = 0.4  # of the slice's shorter side: what fits into a window of less gets a close-up


def grey_ranges(case: CaseVolumes, painted: Sequence[int]) -> list[tuple[float, float]]:
    """Lower and upper grey value of each channel, from a sparse sample around what was found, else of all.

    The sample spans half of every axis at least: the neighbourhood of something small need not hold all tissues.
    """
    solid = np.isin(case.found, painted)
    box = []
    for axis, size in enumerate(solid.shape):
        where = np.flatnonzero(solid.any(axis=tuple(other for other in range(3) if other != axis)))
        low, high = (where[0], where[-1] + 1) if where.size else (0, size)
        margin = max(size // 20, -(-(size // 2 - (high - low)) // 2))
        low, high = max(0, low - margin), min(size, high + margin)
        box.append(slice(low, high, max(1, (high - low) // 64)))
    ranges = []
    for channel in case.channels:
        low, high = np.percentile(channel[tuple(box)], (5, 99.5))
        ranges.append((float(low), float(max(high, low + 1e-6))))
    return ranges


def fullest_slices(case: CaseVolumes, painted: Sequence[int]) -> tuple[int, ...]:
    """Along each axis the slice that shows most: of the reference if it has any foreground, else of the prediction.

    Every class weighs the same, whatever its volume; among slices about as full as the fullest, the most central is
    taken.
    """
    for volume in (case.reference, case.found):
        masks = [] if volume is None else [volume == k for k in painted]
        masks = [mask for mask in masks if mask.any()]
        if masks:
            return tuple(_fullest_slice(masks, axis) for axis in range(3))
    return tuple(size // 2 for size in case.found.shape)


def _fullest_slice(masks: list[np.ndarray], axis: int) -> int:
    others = tuple(other for other in range(3) if other != axis)
    share = np.sum([mask.sum(axis=others) / mask.sum() for mask in masks], axis=0)
    full = np.flatnonzero(share >= 0.85 * share.max())
    return int(full[np.abs(full - (share.size - 1) / 2).argmin()])


def close_up(case: CaseVolumes, painted: Sequence[int], index: int) -> tuple[float, float, float, float] | None:
    """The window to magnify in an axial slice whose foreground is small.

    Args:
        case: the volumes.
        painted: classes that count: those of the reference where it has any in this slice, else of the prediction.
        index: number of the slice.

    Returns:
        left, right, bottom, top in mm, a square around the foreground and what surrounds it; None where there is no
        foreground, or where it takes up much of the slice anyway.
    """
    for volume in (case.reference, case.found):
        mask = np.zeros(1, dtype=bool) if volume is None else np.isin(volume[:, :, index], painted)
        if mask.any():
            break
    else:
        return None
    low, high = (np.array(ends) for ends in zip(*((at.min(), at.max() + 1) for at in np.nonzero(mask))))
    low, high = low * case.spacing[:2], high * case.spacing[:2]
    shorter = case.size[:2].min()
    side = max(1.8 * (high - low).max(), 0.15 * shorter)
    if side > _SMALL * shorter:
        return None
    start = np.clip((low + high - side) / 2, 0, case.size[:2] - side)
    return float(start[0]), float(start[0] + side), float(start[1]), float(start[1] + side)


def slice_panel(figure: Any, cell: Any, heading: str) -> Any:
    """An empty panel for a slice."""
    panel = figure.add_subplot(cell)
    panel.set_facecolor(_PANEL)
    panel.set_anchor("NW")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_title(heading, fontsize=9.5, color=INK, loc="left", pad=4)
    for side in panel.spines.values():
        side.set_visible(False)
    return panel


def draw_slice(
    panel: Any,
    case: CaseVolumes,
    painted: Sequence[int],
    grey: Sequence[tuple[float, float]],
    axis: int,
    centre: Sequence[int],
    window: tuple[float, float, float, float] | None = None,
    magnified: bool = False,
) -> None:
    """Grey slice, prediction filled, reference outlined, region dashed; thin lines say where the other slices run.

    Args:
        panel: where to.
        case: the volumes.
        painted: classes to paint.
        grey: lower and upper grey value of each channel.
        axis: the axis that the slice is across.
        centre: number of the slice along each axis.
        window: left, right, bottom, top in mm of a close-up.
        magnified: show that window alone; else its frame.
    """
    across, along = (other for other in range(3) if other != axis)
    extent = (0.0, float(case.size[across]), 0.0, float(case.size[along]))
    planes = [
        np.clip((channel.take(centre[axis], axis).astype(np.float64) - low) / (high - low), 0, 1)
        for channel, (low, high) in zip(case.channels, grey, strict=True)
    ]
    shared = {"origin": "lower", "extent": extent, "aspect": "equal"}
    panel.imshow(np.mean(planes, axis=0).T, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", **shared)
    plane = case.found.take(centre[axis], axis)
    fill = np.zeros((*plane.shape, 4))
    for k in painted:
        fill[plane == k] = (*to_rgb(class_colour(k)), 0.35 if magnified else 0.50)
    panel.imshow(fill.transpose(1, 0, 2), interpolation="nearest", **shared)
    if case.region is not None:
        outline(panel, case.region.take(centre[axis], axis) != 0, extent, "white", "dashed")
    if case.reference is not None:
        reference = case.reference.take(centre[axis], axis)
        for k in painted:
            outline(panel, reference == k, extent, class_colour(k))
    if not magnified:
        for other, line in ((across, panel.axvline), (along, panel.axhline)):
            line((centre[other] + 0.5) * case.spacing[other], color="white", lw=0.7, ls=(0, (4, 5)), alpha=0.6)
    left, right, bottom, top = extent if window is None or not magnified else window
    if window is not None and not magnified:
        width, height = window[1] - window[0], window[3] - window[2]
        panel.add_patch(Rectangle((window[0], window[2]), width, height, fill=False, ec="white", lw=0.8))
    panel.set_xlim(right, left)
    panel.set_ylim(bottom, top)
    slice_frame(panel, axis, right - left, case.anatomical)


def outline(panel: Any, plane: np.ndarray, extent: tuple[float, ...], colour: str, style: str = "solid") -> None:
    """Draw the border of a mask, closed where it meets the border of the volume.

    Args:
        panel: a slice, or a projection.
        plane: the mask, width x height.
        extent: left, right, bottom, top in mm; it begins at 0, 0.
        colour: of the line.
        style: of the line.
    """
    if not plane.any():
        return
    mask = np.pad(plane.astype(float), 1)  # a rim of zeros closes outlines at the border of the volume
    x = (np.arange(mask.shape[0]) - 0.5) * extent[1] / plane.shape[0]
    y = (np.arange(mask.shape[1]) - 0.5) * extent[3] / plane.shape[1]
    for ink, width in (("black", 2.4), (colour, 1.3)):
        panel.contour(x, y, mask.T, levels=[0.5], colors=[ink], linewidths=width, linestyles=style)


def slice_frame(panel: Any, axis: int, width: float, anatomical: bool) -> None:
    """Write the sides of the patient into a panel, and draw a bar of a round length.

    Args:
        panel: a slice, or a projection, of volumes in RAS.
        axis: the axis that one looks along.
        width: of the panel, in mm.
        anatomical: whether the axes are known to be those of the patient.
    """
    across, along = (other for other in range(3) if other != axis)
    dark = [Stroke(linewidth=2.5, foreground="black")]
    style = {"transform": panel.transAxes, "color": "white", "path_effects": dark, "fontsize": 10, "weight": "bold"}
    if anatomical:
        left, right, top = (("R", "A")[across], ("L", "P")[across], ("A", "S")[along - 1])
        panel.text(0.015, 0.5, left, ha="left", va="center", **style)
        panel.text(0.985, 0.5, right, ha="right", va="center", **style)
        panel.text(0.5, 0.985, top, ha="center", va="top", **style)
    target = width / 4
    length = max(base * 10.0**power for power in range(-6, 7) for base in (1, 2, 5) if base * 10.0**power <= target)
    bar = (0.03, 0.03 + length / width)
    panel.plot(
        bar, (0.04, 0.04), transform=panel.transAxes, color="white", lw=3, solid_capstyle="butt", path_effects=dark
    )
    panel.text(0.03, 0.06, f"{length:g} mm" if length > 0.05 else f"{length * 1e3:g} µm", va="bottom", **style)
