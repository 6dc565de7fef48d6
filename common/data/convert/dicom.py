"""A CT as a folder of DICOM slices: geometry and units from the headers, masks drawn on its slices.

What is wrong with a series is a `Dropped` with the reason; what is odd and bearable is a note.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.utils import optional_import

from .sources import Dropped

pydicom, has_pydicom = optional_import("pydicom")

__all__ = ["Files", "Series", "has_pydicom", "read_mask", "read_series"]

# the slices of a series: bytes by the name of the file
Files = Mapping[str, Callable[[], bytes]]

_NO_SLICES = ("dicomdir", "thumbs.db", "desktop.ini")
_SAME = 0.01  # mm; slices nearer than this lie at one place
_OFF = 0.25  # shares of the distance of slices by which one may lie off the regular grid: positions are rounded
_TILT = 0.5  # degrees; less is rounding
_TURN = 1e-3  # of direction cosines


@dataclass(frozen=True)
class Series:
    """A volume made of slices.

    Args:
        values: X Y Z, in HU; int16 where these are whole numbers, else float32.
        affine: 4 x 4, voxel to mm in RAS.
        places: Z x 3, where the slices begin, mm in LPS as in the headers.
        directions: 3 x 3, the rows unit vectors of x, y and the slices' normal in LPS.
        index: number of the slice by file name, copies of a slice included.
        notes: what was odd.
    """

    values: np.ndarray
    affine: np.ndarray
    places: np.ndarray
    directions: np.ndarray
    index: dict[str, int]
    notes: list[str]

    @property
    def step(self) -> float:
        """Distance of the slices in mm."""
        return float(np.linalg.norm(self.affine[:3, 2]))


def read_series(files: Files) -> Series:
    """The volume of a CT series, slices in the order of their positions along their common normal.

    Args:
        files: its slices; hidden files and what file managers leave behind are passed over.

    Raises:
        Dropped: a file that is no DICOM slice, slices of several sizes, directions or pixel spacings, without a
            position, missing, repeated with other content, unevenly spaced, or sheared by a tilted gantry.
    """
    slices = _parse(files)
    notes: list[str] = []
    _check_alike(slices)
    directions, known = _directions(slices)
    places = _places(slices, directions[2])
    if places is None:
        raise Dropped("its headers do not say where its slices lie")
    order = np.argsort(places @ directions[2], kind="stable")
    slices, places = [slices[number] for number in order], places[order]
    kept, index = _without_copies(slices, places @ directions[2])
    if copies := len(slices) - len(kept):
        notes.append(f"{copies} slices are there twice with the same content; one of each was taken")
    slices, places = [slices[number] for number in kept], places[kept]
    step = _check_steps(slices, places, directions)
    notes += _check_tilt(slices, places, directions, known)
    spacing = [float(value) for value in slices[0].header.PixelSpacing]
    affine = np.eye(4)
    affine[:3, :3] = (directions * np.array([[spacing[1]], [spacing[0]], [step]])).T
    affine[:3, 3] = places[0]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine + 0.0  # no -0
    values, unscaled = _hounsfield(slices)
    notes += ["its headers have no rescale slope and intercept: stored values were taken as HU"] if unscaled else []
    return Series(values, affine, places, directions, index, notes)


def read_mask(files: Files, series: Series, name: str) -> tuple[np.ndarray, bool]:
    """A mask on the slices of a series, paired by position; by file name where its headers have no positions.

    Args:
        files: its slices; every value but 0 belongs to the structure.
        series: the image.
        name: of the structure, for texts.

    Returns:
        the mask X Y Z bool, and whether it was paired by file names.

    Raises:
        Dropped: a slice that can not be read, of another size, or beside the image; slices missing.
    """
    slices = _parse(files)
    shape = series.values.shape
    mask, filled = np.zeros(shape, bool), np.zeros(shape[2], bool)
    numbers = _numbers_by_place(slices, series, name)
    by_name = numbers is None
    if by_name:
        numbers = [series.index.get(one.name, -1) for one in slices]
        if -1 in numbers:
            raise Dropped(
                f"its mask '{name}' has no positions, and '{slices[numbers.index(-1)].name}' is no slice of its image"
            )
    for one, number in zip(slices, numbers, strict=True):
        pixels = _pixels(one)
        if pixels.T.shape != shape[:2]:
            raise Dropped(f"its mask '{name}' has slices of {_size(pixels.shape)}, its image {_size(shape[1::-1])}")
        mask[..., number] |= pixels.T != 0
        filled[number] = True
    if missing := int(np.count_nonzero(~filled)):
        raise Dropped(f"its mask '{name}' lacks {missing} of {shape[2]} slices")
    return mask, by_name


@dataclass(frozen=True)
class _Slice:
    name: str
    header: Any


def _parse(files: Files) -> list[_Slice]:
    slices = []
    for name, read in files.items():
        if name.startswith(".") or name.lower() in _NO_SLICES:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd values that are not looked at
                header = pydicom.dcmread(io.BytesIO(read()), force=True)
                whole = "PixelData" in header and int(header.Rows) > 0 and int(header.Columns) > 0
        except Exception as error:  # a damaged file raises whatever the damage leads to
            raise Dropped(f"{name} can not be read as DICOM ({type(error).__name__})") from error
        if not whole:
            raise Dropped(f"{name} is no DICOM image")
        if int(header.get("SamplesPerPixel") or 1) != 1 or int(header.get("NumberOfFrames") or 1) != 1:
            raise Dropped(f"{name} holds colours or several frames, not one slice")
        slices.append(_Slice(name, header))
    if not slices:
        raise Dropped("there is no slice in it")
    return slices


def _pixels(one: _Slice) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return one.header.pixel_array
    except Exception as error:  # as above: truncated pixels, a compression that is not installed
        raise Dropped(f"the pixels of {one.name} can not be read ({type(error).__name__})") from error


def _check_alike(slices: list[_Slice]) -> None:
    sizes = sorted({(int(one.header.Rows), int(one.header.Columns)) for one in slices})
    if len(sizes) > 1:
        raise Dropped(f"its slices have several sizes ({', '.join(map(_size, sizes))})")
    spacings = [one.header.get("PixelSpacing") for one in slices]
    if not all(spacings):
        raise Dropped(f"{sum(not one for one in spacings)} of its {len(slices)} slices have no pixel spacing")
    spacings = np.array([[float(value) for value in one] for one in spacings])
    if not (np.isfinite(spacings).all() and spacings.min() > 0 and np.ptp(spacings, axis=0).max() < _SAME / 10):
        raise Dropped("its slices differ in pixel spacing, or it is not positive")


def _directions(slices: list[_Slice]) -> tuple[np.ndarray, bool]:
    """Unit vectors of x, y and the normal as rows, mm in LPS, and whether the headers have them."""
    given = [one.header.get("ImageOrientationPatient") for one in slices]
    if not any(given):
        return np.eye(3), False
    if not all(given):
        raise Dropped(f"{sum(not one for one in given)} of its {len(slices)} slices have no orientation")
    cosines = np.array([[float(value) for value in one] for one in given])
    if np.abs(cosines - cosines[0]).max() > _TURN:
        raise Dropped("its slices lie in several directions")
    x, y = cosines[0, :3], cosines[0, 3:]
    if not (abs(np.linalg.norm(x) - 1) < 0.01 and abs(np.linalg.norm(y) - 1) < 0.01 and abs(x @ y) < 0.01):
        raise Dropped("its orientation is no pair of perpendicular unit vectors")
    normal = np.cross(x, y)
    return np.stack([x, y, normal / np.linalg.norm(normal)]), True


def _places(slices: list[_Slice], normal: np.ndarray) -> np.ndarray | None:
    """Where slices begin, in mm LPS; from their location along the normal where they have no position, else None."""
    positions = [one.header.get("ImagePositionPatient") for one in slices]
    if all(positions):
        return np.array([[float(value) for value in one] for one in positions])
    locations = [one.header.get("SliceLocation") for one in slices]
    if any(positions) or any(location is None for location in locations):
        return None
    return np.array([float(location) for location in locations])[:, None] * normal


def _without_copies(slices: list[_Slice], along: np.ndarray) -> tuple[list[int], dict[str, int]]:
    """Which slices stay, in order, and the number of each by file name.

    Args:
        slices: in the order of `along`.
        along: mm along the normal, ascending.

    Raises:
        Dropped: where slices at one place differ.
    """
    kept: list[int] = []
    index = {}
    for number, one in enumerate(slices):
        if kept and along[number] - along[kept[-1]] < _SAME:
            if not np.array_equal(_pixels(one), _pixels(slices[kept[-1]])):
                raise Dropped(
                    f"different slices lie at one place ({along[number]:.2f} mm): several series, or repeated"
                )
        else:
            kept.append(number)
        index[one.name] = len(kept) - 1
    return kept, index


def _check_steps(slices: list[_Slice], places: np.ndarray, directions: np.ndarray) -> float:
    """The distance of the slices in mm, after it was found to be one."""
    along = places @ directions[2]
    if len(along) == 1:
        header = slices[0].header
        step = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
        if not step or not float(step) > 0:
            raise Dropped("it is one slice of unknown thickness")
        return float(step)
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > 1.5 * usual)
    if wide.size:
        lost = int(np.sum(np.round(gaps[wide] / usual) - 1))
        where = f"{along[wide[0]]:.2f} and {along[wide[0] + 1]:.2f} mm"
        raise Dropped(f"about {max(lost, 1)} of its slices are missing (the first between {where})")
    step = float(along[-1] - along[0]) / (len(along) - 1)
    if np.abs(along - along[0] - step * np.arange(len(along))).max() > _OFF * step:
        raise Dropped(f"its slices are unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm)")
    return step


def _check_tilt(slices: list[_Slice], places: np.ndarray, directions: np.ndarray, known: bool) -> list[str]:
    """Refuse slices that are shifted against each other; what the header says of a tilt all the same is a note."""
    stated = float(slices[0].header.get("GantryDetectorTilt") or 0.0)
    across = (places - places[0]) @ directions[:2].T
    along = (places - places[0]) @ directions[2]
    angle = math.degrees(math.atan2(float(np.linalg.norm(across[-1])), float(along[-1]))) if len(places) > 1 else 0.0
    positions = known and bool(slices[0].header.get("ImagePositionPatient"))
    if angle > _TILT or (not positions and abs(stated) > _TILT):
        angle = angle if angle > _TILT else abs(stated)
        raise Dropped(f"its gantry was tilted by {angle:.1f} degrees: its slices are sheared, which NIfTI readers drop")
    straight = along[:, None] / max(float(along[-1]), _SAME) * across[-1]
    pixel = min(float(value) for value in slices[0].header.PixelSpacing)
    if np.abs(across - straight).max() > max(pixel / 2, _SAME):
        raise Dropped("its slices are shifted sideways against each other")
    if abs(stated) > _TILT:
        return [f"its headers speak of a gantry tilted by {stated:g} degrees, its positions do not: taken as straight"]
    return []


def _hounsfield(slices: list[_Slice]) -> tuple[np.ndarray, bool]:
    """The volume X Y Z in HU, and whether the headers have no scale."""
    scales = [(one.header.get("RescaleSlope"), one.header.get("RescaleIntercept")) for one in slices]
    lacking = sum(None in scale for scale in scales)
    if 0 < lacking < len(slices):
        raise Dropped(f"{lacking} of its {len(slices)} slices have no rescale slope and intercept")
    rows, columns = int(slices[0].header.Rows), int(slices[0].header.Columns)
    volume = np.empty((columns, rows, len(slices)), np.int16, order="F")
    for number, (one, scale) in enumerate(zip(slices, scales, strict=True)):
        slope, intercept = (1.0, 0.0) if lacking else map(float, scale)
        values = _pixels(one).T * slope + intercept
        if volume.dtype == np.int16 and not _fits(values):
            volume = volume.astype(np.float32)
        volume[..., number] = values
    return volume, bool(lacking)


def _fits(values: np.ndarray) -> bool:
    bounds = np.iinfo(np.int16)
    return bool(values.min() >= bounds.min and values.max() <= bounds.max and np.array_equal(values, np.rint(values)))


def _numbers_by_place(slices: list[_Slice], series: Series, name: str) -> list[int] | None:
    """The slice of the image at each place; None where the headers of a mask have no places of their own."""
    if any(one.header.get("ImageOrientationPatient") for one in slices):
        if np.abs(_directions(slices)[0] - series.directions).max() > 10 * _TURN:
            raise Dropped(f"its mask '{name}' lies in another direction than its image")
    places = _places(slices, series.directions[2])
    if places is None or (len(slices) > 1 and np.ptp(places, axis=0).max() < _SAME):
        return None
    along = (places - series.places[0]) @ series.directions[2]
    numbers = np.rint(along / series.step).astype(int)
    inside = (numbers >= 0) & (numbers < len(series.places))
    across = (places - series.places[np.clip(numbers, 0, len(series.places) - 1)]) @ series.directions[:2].T
    pixel = float(np.linalg.norm(series.affine[:3, :2], axis=0).min())
    positions = all(one.header.get("ImagePositionPatient") for one in slices)
    aside = positions and np.abs(across).max() > pixel / 2
    if not inside.all() or np.abs(along - numbers * series.step).max() > 2 * _OFF * series.step or aside:
        raise Dropped(f"its mask '{name}' lies beside its image")
    return numbers.tolist()


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
