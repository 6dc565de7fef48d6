"""Maximum intensity projections of a case for pictures: what thin structures look like, of which slices show dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from .palette import class_colour
from .slices import outline, slice_frame, slice_panel
from .volumes import CaseVolumes

to_rgb, _ = optional_import("matplotlib.colors", name="to_rgb")

__all__ = ["FALSE", "FALSE_COLOUR", "MISSED", "MISSED_COLOUR", "draw_projections", "grey_projection", "ray_classes"]

NOTHING, MISSED, FALSE = -1, -2, -3
# yellow and red are no colours of classes
MISSED_COLOUR, FALSE_COLOUR = "#FFE119", "#FF1F3D"
_VIEWS = ((1, "front"), (0, "left"), (2, "feet"))


def grey_projection(channels: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Largest intensity on every ray, in 0..1: each channel between percentiles of its own, then their mean.

    Args:
        channels: intensities, X Y Z each.
        axis: the axis that rays run along.

    Returns:
        the other two axes in their order, float64.
    """
    planes = []
    for channel in channels:
        plane = channel.max(axis=axis).astype(np.float64)
        # few rays meet the brightest vessels: they must not be the only thing to be seen
        low, high = np.percentile(plane, (1, 99.8))
        planes.append(np.clip((plane - low) / max(high - low, 1e-6), 0, 1))
    return np.mean(planes, axis=0)


def ray_classes(
    found: np.ndarray, reference: np.ndarray | None, painted: Sequence[int], axis: int, known: int
) -> np.ndarray:
    """What a ray through the prediction meets, and with a reference whether that is right.

    Without a reference that is the class with the smallest volume among those that the ray meets. With one it is what
    most voxels on the ray are: right (then the class as before), missed or false; equals count as right.

    Args:
        found: class indices of the prediction, X Y Z.
        reference: class indices, X Y Z, or None; a prediction where it is negative or above `known` is not judged.
        painted: classes to show.
        axis: the axis that rays run along.
        known: number of classes.

    Returns:
        the class on every ray, :data:`MISSED` or :data:`FALSE`, -1 where it meets nothing.
    """
    judged = None if reference is None else (reference >= 0) & (reference < known)
    seen = np.full(np.delete(found.shape, axis), NOTHING, dtype=np.int16)
    right = np.zeros(seen.shape, dtype=np.int64)
    for k in sorted(painted, key=lambda k: np.count_nonzero(found == k), reverse=True):
        mask = found == k if judged is None else (found == k) & ((reference == k) | ~judged)
        count = np.count_nonzero(mask, axis=axis)
        seen[count > 0] = k
        right += count
    if judged is not None:
        solid, wanted = np.isin(found, painted), np.isin(reference, painted)
        missed = np.count_nonzero(wanted & ~solid, axis=axis)
        false = np.count_nonzero(solid & judged & (found != reference), axis=axis)
        seen[(missed > right) & (missed >= false)] = MISSED
        seen[(false > right) & (false > missed)] = FALSE
    return seen


def draw_projections(
    figure: Any, grid: Any, case: CaseVolumes, painted: Sequence[int], class_names: Sequence[str]
) -> None:
    """Projections from the front, the patient's left and the feet, above plain and below with what was found.

    Args:
        figure: where to.
        grid: 2 x 3 cells of it.
        case: the volumes.
        painted: classes to paint.
        class_names: names in class order.
    """
    colours = {k: class_colour(k) for k in painted} | {MISSED: MISSED_COLOUR, FALSE: FALSE_COLOUR}
    for column, (axis, side) in enumerate(_VIEWS):
        across, along = (other for other in range(3) if other != axis)
        extent = (0.0, float(case.size[across]), 0.0, float(case.size[along]))
        shared = {"origin": "lower", "extent": extent, "aspect": "equal"}
        plane = grey_projection(case.channels, axis)
        for row, (share, heading) in enumerate(((1.0, f"maximum, {side}"), (0.6, f"prediction, {side}"))):
            panel = slice_panel(figure, grid[row, column], heading)
            panel.imshow(share * plane.T, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", **shared)
            if row:
                seen = ray_classes(case.found, case.reference, painted, axis, len(class_names))
                paint = np.zeros((*seen.shape, 4))
                for k, colour in colours.items():
                    paint[seen == k] = (*to_rgb(colour), 0.85)
                panel.imshow(paint.transpose(1, 0, 2), interpolation="nearest", **shared)
                if case.region is not None:
                    outline(panel, (case.region != 0).any(axis=axis), extent, "white", "dashed")
            panel.set_xlim(extent[1], extent[0])
            slice_frame(panel, axis, extent[1], case.anatomical)
