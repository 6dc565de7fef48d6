"""Whether parallel slices make a volume: checks on what headers say, in mm and LPS, and the affine that follows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = [
    "SAME_PLACE",
    "SliceFault",
    "TILT",
    "TURN",
    "check_directions",
    "check_edges",
    "check_sizes",
    "check_steps",
    "check_straight",
    "check_tilt",
    "fits_int16",
    "ras_affine",
    "size_text",
]

SAME_PLACE = 0.01  # mm; slices nearer than this lie at one place
TILT = 0.5  # degrees; less is rounding
TURN = 1e-3  # of direction cosines, by which slices of one direction may differ
_OFF = 0.25  # shares of the distance of slices by which one may lie off the regular grid: positions are rounded


class SliceFault(ValueError):
    """Why slices make no volume.

    Args:
        came: what was found, a clause that goes on from "because".
        rule: what is required.
        remedy: what a person can do about it.
    """

    def __init__(self, came: str, rule: str, remedy: str) -> None:
        super().__init__(came)
        self.came, self.rule, self.remedy = came, rule, remedy


def check_sizes(sizes: Sequence[tuple[int, int]]) -> None:
    """See that all slices have one size.

    Args:
        sizes: rows and columns of each.
    """
    if len(several := sorted(set(sizes))) > 1:
        raise SliceFault(
            f"its slices have several sizes ({', '.join(map(size_text, several))})",
            "slices of a volume have one size",
            "choose the slices of one image series alone",
        )


def check_edges(spacings: Sequence[Sequence[float] | None]) -> None:
    """See that all slices have the same pixel spacing.

    Args:
        spacings: two edges of a pixel in mm for each slice.
    """
    remedy = "export the series anew from where it was recorded"
    if lacking := sum(not one for one in spacings):
        raise SliceFault(
            f"{lacking} of its {len(spacings)} slices have no pixel spacing", "every slice must state its own", remedy
        )
    edges = np.array([[float(value) for value in one] for one in spacings])
    if not (np.isfinite(edges).all() and edges.min() > 0 and np.ptp(edges, axis=0).max() < SAME_PLACE / 10):
        raise SliceFault(
            "its slices differ in pixel spacing, or it is not positive", "slices of a volume share one spacing", remedy
        )


def check_directions(cosines: Sequence[Sequence[float]]) -> np.ndarray:
    """The directions of a volume by those of its slices.

    Args:
        cosines: ``ImageOrientationPatient`` of each slice.

    Returns:
        3 x 3: unit vectors of x, y and the slices' normal as rows, in LPS.
    """
    given = np.array([[float(value) for value in one] for one in cosines])
    if np.abs(given - given[0]).max() > TURN:
        raise SliceFault(
            "its slices lie in several directions", "slices of a volume are parallel", "choose one of these directions"
        )
    x, y = given[0, :3], given[0, 3:]
    if not (abs(np.linalg.norm(x) - 1) < 0.01 and abs(np.linalg.norm(y) - 1) < 0.01 and abs(x @ y) < 0.01):
        raise SliceFault(
            "its orientation is no pair of perpendicular unit vectors",
            "ImageOrientationPatient holds the directions of rows and columns",
            "export the series anew from where it was recorded",
        )
    normal = np.cross(x, y)
    return np.stack([x, y, normal / np.linalg.norm(normal)])


def check_steps(along: np.ndarray) -> float:
    """The distance of the slices in mm, after it was found to be one.

    Args:
        along: where two slices or more lie along their normal, in mm, ascending.
    """
    gaps = np.diff(along)
    if gaps.min() < SAME_PLACE:
        raise SliceFault(
            f"different slices lie at one place ({along[gaps.argmin()]:.2f} mm): several series, or repeated",
            "a volume has one slice at each place",
            "export one echo or time point of the series alone, each slice once",
        )
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > 1.5 * usual)
    if wide.size:
        lost = int(np.sum(np.round(gaps[wide] / usual) - 1))
        where = f"{along[wide[0]]:.2f} and {along[wide[0] + 1]:.2f} mm"
        raise SliceFault(
            f"about {max(lost, 1)} of its slices are missing (the first between {where})",
            "slices lie at equal distances, none left out",
            "fetch the whole series anew",
        )
    step = float(along[-1] - along[0]) / (len(along) - 1)
    if np.abs(along - along[0] - step * np.arange(len(along))).max() > _OFF * step:
        raise SliceFault(
            f"its slices are unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm)",
            "slices lie at equal distances",
            "resample the series to equal distances, or fetch the slices that are missing",
        )
    return step


def check_tilt(places: np.ndarray, directions: np.ndarray, stated: float = 0.0) -> None:
    """Refuse slices that are sheared: each lies a little further aside than the one before.

    Args:
        places: Z x 3, where the slices begin, in mm, in their order.
        directions: 3 x 3, by `check_directions`.
        stated: degrees of a tilt that is known from elsewhere.
    """
    across = (places - places[0]) @ directions[:2].T
    along = (places - places[0]) @ directions[2]
    angle = math.degrees(math.atan2(float(np.linalg.norm(across[-1])), float(along[-1]))) if len(places) > 1 else 0.0
    if max(angle, stated) > TILT:
        angle = angle if angle > TILT else stated
        raise SliceFault(
            f"its gantry was tilted by {angle:.1f} degrees: its slices are sheared, which NIfTI readers drop",
            "the slices' axis must stand upright on the slices",
            "resample it to slices at right angles; dcm2niix, for one, writes such a volume beside the tilted one",
        )


def check_straight(places: np.ndarray, directions: np.ndarray, pixel: float) -> None:
    """Refuse slices that are shifted sideways against each other.

    Args:
        places: Z x 3, where the slices begin, in mm, in their order.
        directions: 3 x 3, by `check_directions`.
        pixel: the shorter edge of a pixel, in mm.
    """
    across = (places - places[0]) @ directions[:2].T
    along = (places - places[0]) @ directions[2]
    straight = along[:, None] / max(float(along[-1]), SAME_PLACE) * across[-1]
    if np.abs(across - straight).max() > max(pixel / 2, SAME_PLACE):
        raise SliceFault(
            "its slices are shifted sideways against each other",
            "slices of a volume lie above each other",
            "resample the series to a common field of view",
        )


def ras_affine(place: np.ndarray, directions: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """The affine of a volume whose third axis follows the normal of its slices.

    Args:
        place: where the first slice begins, in mm, LPS.
        directions: 3 x 3, by `check_directions`.
        edges: of a voxel along x, y and the slices, in mm.

    Returns:
        4 x 4, voxels to mm in RAS.
    """
    affine = np.eye(4)
    affine[:3, :3] = (directions * np.array(edges, float)[:, None]).T
    affine[:3, 3] = place
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine + 0.0  # no -0


def fits_int16(values: np.ndarray) -> bool:
    """Whether all values are whole numbers that 16 bits with a sign can hold."""
    bounds = np.iinfo(np.int16)
    return bool(values.min() >= bounds.min and values.max() <= bounds.max and np.array_equal(values, np.rint(values)))


def size_text(shape: Sequence[int]) -> str:
    """A size for texts.

    >>> size_text((512, 256))
    '512x256'
    """
    return "x".join(str(size) for size in shape)
