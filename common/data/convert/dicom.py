"""A CT as a folder of DICOM slices: geometry and units from the headers, masks drawn on its slices.

What is wrong with a series is a `Dropped` with the reason; what is odd and bearable is a note.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.utils import optional_import

from ...dicom.slices import (
    SAME_PLACE,
    TILT,
    TURN,
    SliceFault,
    check_directions,
    check_edges,
    check_sizes,
    check_steps,
    check_straight,
    check_tilt,
    fits_int16,
    ras_affine,
    size_text,
)
from .sources import Dropped

pydicom, has_pydicom = optional_import("pydicom")

__all__ = ["Files", "Series", "has_pydicom", "read_mask", "read_series"]

# the slices of a series: bytes by the name of the file
Files = Mapping[str, Callable[[], bytes]]

_NO_SLICES = ("dicomdir", "thumbs.db", "desktop.ini")
_OFF = 0.5  # shares of the distance of slices by which a mask's may lie off its image's


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


@contextmanager
def _dropping() -> Iterator[None]:
    """What makes no volume leaves its case out."""
    try:
        yield
    except SliceFault as fault:
        raise Dropped(fault.came) from fault


@_dropping()
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
    step = _step(slices, places @ directions[2])
    notes += _check_tilt(slices, places, directions, known)
    rows, columns = (float(value) for value in slices[0].header.PixelSpacing)
    affine = ras_affine(places[0], directions, (columns, rows, step))
    values, unscaled = _hounsfield(slices)
    notes += ["its headers have no rescale slope and intercept: stored values were taken as HU"] if unscaled else []
    return Series(values, affine, places, directions, index, notes)


@_dropping()
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
            raise Dropped(
                f"its mask '{name}' has slices of {size_text(pixels.shape)}, its image {size_text(shape[1::-1])}"
            )
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
    check_sizes([(int(one.header.Rows), int(one.header.Columns)) for one in slices])
    check_edges([one.header.get("PixelSpacing") for one in slices])


def _directions(slices: list[_Slice]) -> tuple[np.ndarray, bool]:
    """Unit vectors of x, y and the normal as rows, mm in LPS, and whether the headers have them."""
    given = [one.header.get("ImageOrientationPatient") for one in slices]
    if not any(given):
        return np.eye(3), False
    if not all(given):
        raise Dropped(f"{sum(not one for one in given)} of its {len(slices)} slices have no orientation")
    return check_directions(given), True


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
        if kept and along[number] - along[kept[-1]] < SAME_PLACE:
            if not np.array_equal(_pixels(one), _pixels(slices[kept[-1]])):
                raise Dropped(
                    f"different slices lie at one place ({along[number]:.2f} mm): several series, or repeated"
                )
        else:
            kept.append(number)
        index[one.name] = len(kept) - 1
    return kept, index


def _step(slices: list[_Slice], along: np.ndarray) -> float:
    """The distance of the slices in mm; the thickness of a single one."""
    if len(slices) > 1:
        return check_steps(along)
    header = slices[0].header
    step = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    if not step or not float(step) > 0:
        raise Dropped("it is one slice of unknown thickness")
    return float(step)


def _check_tilt(slices: list[_Slice], places: np.ndarray, directions: np.ndarray, known: bool) -> list[str]:
    """Refuse slices that are shifted against each other; what the header says of a tilt all the same is a note."""
    header = slices[0].header
    stated = float(header.get("GantryDetectorTilt") or 0.0)
    positions = known and bool(header.get("ImagePositionPatient"))
    check_tilt(places, directions, 0.0 if positions else abs(stated))
    check_straight(places, directions, min(float(value) for value in header.PixelSpacing))
    if abs(stated) > TILT:
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
        if volume.dtype == np.int16 and not fits_int16(values):
            volume = volume.astype(np.float32)
        volume[..., number] = values
    return volume, bool(lacking)


def _numbers_by_place(slices: list[_Slice], series: Series, name: str) -> list[int] | None:
    """The slice of the image at each place; None where the headers of a mask have no places of their own."""
    if any(one.header.get("ImageOrientationPatient") for one in slices):
        if np.abs(_directions(slices)[0] - series.directions).max() > 10 * TURN:
            raise Dropped(f"its mask '{name}' lies in another direction than its image")
    places = _places(slices, series.directions[2])
    if places is None or (len(slices) > 1 and np.ptp(places, axis=0).max() < SAME_PLACE):
        return None
    along = (places - series.places[0]) @ series.directions[2]
    numbers = np.rint(along / series.step).astype(int)
    inside = (numbers >= 0) & (numbers < len(series.places))
    across = (places - series.places[np.clip(numbers, 0, len(series.places) - 1)]) @ series.directions[:2].T
    pixel = float(np.linalg.norm(series.affine[:3, :2], axis=0).min())
    positions = all(one.header.get("ImagePositionPatient") for one in slices)
    aside = positions and np.abs(across).max() > pixel / 2
    if not inside.all() or np.abs(along - numbers * series.step).max() > _OFF * series.step or aside:
        raise Dropped(f"its mask '{name}' lies beside its image")
    return numbers.tolist()
