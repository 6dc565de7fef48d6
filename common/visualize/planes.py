"""Planes of a volume as an annotator sees them: across array axes, numbered along these, the patient upright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..checks import InputError, problem
from .palette import background_classes, class_colour

nib, _ = optional_import("nibabel")
to_rgb, _ = optional_import("matplotlib.colors", name="to_rgb")
Stroke, _ = optional_import("matplotlib.patheffects", name="withStroke")

__all__ = ["FilledVolume", "draw_plane", "plane_name", "scale_bar", "show_plane", "unit_text"]

INK = "#222222"
ERROR_COLOUR = "#FF3B30"
_UNITS = {"micron": "µm", "meter": "m"}  # as files name them
_SAMPLE = 64  # voxels along each axis from which grey values are ranged
_REVERSED = {"R", "A"}  # of columns: the patient's right and front are on the left
_UPWARD = {"A", "S"}  # of rows: front and head are above


@dataclass(frozen=True)
class FilledVolume:
    """A volume, what was drawn in it, and what was made of that.

    Args:
        image: X Y Z, or X Y Z C with several channels, any intensity.
        drawn: classes that were drawn, X Y Z; `unlabelled` elsewhere.
        dense: classes everywhere, X Y Z.
        uncertainty: X Y Z, from 0 to 1.
        class_names: in class order; a class named "background" is not painted.
        unlabelled: label of voxels that were not drawn.
        affine: 4 x 4, voxel to RAS; None where axes are not those of a patient.
        spacing: size of a voxel along each array axis; that of the affine by default.
        unit: of affine and spacing, as it is written, or ``"micron"``, ``"meter"``, ``"unknown"``.

    Raises:
        InputError: when the volumes are not on one grid.
    """

    image: np.ndarray
    drawn: np.ndarray
    dense: np.ndarray
    uncertainty: np.ndarray
    class_names: Sequence[str]
    unlabelled: int
    affine: np.ndarray | None = None
    spacing: Sequence[float] | None = None
    unit: str = "mm"

    def __post_init__(self) -> None:
        shapes = [tuple(one.shape) for one in (self.image, self.drawn, self.dense, self.uncertainty)]
        if len({shapes[0][:3], *shapes[1:]}) != 1 or len(shapes[1]) != 3:
            came = f"image, drawn label, dense label and uncertainty have the shapes {', '.join(map(str, shapes))}"
            raise InputError(problem(came, "a picture needs them on one grid, X Y Z", "put them on the image's grid"))

    @property
    def size(self) -> tuple[float, ...]:
        """Length of each array axis."""
        spacing = self.spacing
        if spacing is None:
            spacing = (1.0,) * 3 if self.affine is None else np.linalg.norm(np.asarray(self.affine)[:3, :3], axis=0)
        return tuple(float(count * step) for count, step in zip(self.dense.shape, spacing, strict=True))

    @property
    def painted(self) -> list[int]:
        """The classes that are painted."""
        hidden = background_classes(self.class_names)
        return [k for k in range(len(self.class_names)) if k not in hidden]

    def frame(self, axis: int) -> tuple[int, int]:
        """The array axes that run along the columns and the rows of a picture of planes across `axis`."""
        across, along = (other for other in range(3) if other != axis)
        codes = self._codes()
        # the body's long axis stands upright; where there is none in the plane, its depth does
        upright = codes is not None and (codes[across] in "SI" or (codes[across] in "AP" and codes[along] in "LR"))
        return (along, across) if upright else (across, along)

    def turned(self, plane: np.ndarray, axis: int) -> np.ndarray:
        """A plane, of the two array axes that are left, as rows from above and columns from the left."""
        columns, rows = self.frame(axis)
        picture = plane if rows < columns else plane.swapaxes(0, 1)
        codes = self._codes()
        if codes is None:
            return picture
        picture = picture[:, ::-1] if codes[columns] in _REVERSED else picture
        return picture[::-1] if codes[rows] in _UPWARD else picture

    def grey(self, axis: int, index: int) -> np.ndarray:
        """Grey values of a plane, between 0 and 1, the mean over the channels."""
        channels = self.image if self.image.ndim == 4 else self.image[..., None]
        step = tuple(slice(None, None, max(1, size // _SAMPLE)) for size in self.dense.shape)
        planes = []
        for k in range(channels.shape[-1]):
            low, high = np.percentile(channels[(*step, k)], (0.5, 99.5))
            plane = channels[..., k].take(index, axis).astype(np.float64)
            planes.append(np.clip((plane - low) / max(high - low, 1e-12), 0, 1))
        return np.mean(planes, axis=0)

    def _codes(self) -> tuple[str, ...] | None:
        return None if self.affine is None else nib.aff2axcodes(np.asarray(self.affine))


def plane_name(axis: int, index: int) -> str:
    """A plane by its axis and its number from 1, as viewers count slices.

    >>> plane_name(2, 39)
    'z slice 40'
    """
    return f"{'xyz'[axis]} slice {index + 1}"


def unit_text(unit: str, placed: bool) -> str:
    """A file's unit of length as it is written; world coordinates of a file that states none are taken for mm.

    >>> unit_text("micron", True), unit_text("unknown", True), unit_text("unknown", False)
    ('µm', 'mm', 'units')
    """
    return ("mm" if placed else "units") if unit == "unknown" else _UNITS.get(unit, unit)


def draw_plane(
    panel: Any,
    case: FilledVolume,
    axis: int,
    index: int,
    label: np.ndarray | None = None,
    dimmed: np.ndarray | None = None,
    marked: np.ndarray | None = None,
) -> None:
    """Draw a plane in grey, classes of a label as fills.

    Args:
        panel: where to.
        case: the volume.
        axis: the array axis across which the plane lies.
        index: its number from 0.
        label: classes to paint, X Y Z.
        dimmed: X Y Z, true where the grey values are darkened.
        marked: X Y Z, true where the colour of errors is painted.
    """
    picture = np.repeat(case.grey(axis, index)[..., None], 3, axis=2)
    if dimmed is not None:
        picture[dimmed.take(index, axis)] *= 0.4
    if label is not None:
        plane = label.take(index, axis)
        for k in case.painted:
            inside = plane == k
            picture[inside] = 0.5 * picture[inside] + 0.5 * np.array(to_rgb(class_colour(k)))
    if marked is not None:
        picture[marked.take(index, axis)] = to_rgb(ERROR_COLOUR)
    show_plane(panel, case, axis, picture)


def show_plane(panel: Any, case: FilledVolume, axis: int, plane: np.ndarray, **style: Any) -> Any:
    """Show values or colours of a plane in its proportions, and what `imshow` returns of it.

    Args:
        panel: where to.
        case: the volume.
        axis: the array axis across which the plane lies.
        plane: of the two array axes that are left; colours behind them.
        style: arguments of `imshow`.
    """
    columns, rows = case.frame(axis)
    extent = (0.0, case.size[columns], case.size[rows], 0.0)
    style = {"interpolation": "nearest", **style}
    shown = panel.imshow(case.turned(plane, axis), extent=extent, aspect="equal", **style)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_anchor("NW")
    for side in panel.spines.values():
        side.set_visible(False)
    return shown


def scale_bar(panel: Any, case: FilledVolume, axis: int) -> None:
    """Draw a bar of a round length, about a quarter of the plane's width."""
    columns, _ = case.frame(axis)
    width = case.size[columns]
    length = max(base * 10.0**power for power in range(-6, 7) for base in (1, 2, 5) if base * 10.0**power <= width / 4)
    dark = [Stroke(linewidth=3, foreground="black")]
    style = {"transform": panel.transAxes, "color": "white", "path_effects": dark}
    panel.plot((0.03, 0.03 + length / width), (0.04, 0.04), lw=2, solid_capstyle="butt", **style)
    panel.text(
        0.03, 0.07, f"{length:g} {unit_text(case.unit, case.affine is not None)}", va="bottom", fontsize=8, **style
    )
