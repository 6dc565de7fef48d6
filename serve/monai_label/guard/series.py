"""Uploaded DICOM files, looked at before the server reads them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import DataElement
from pydicom.errors import InvalidDicomError

from .refused import Refused

# what the server's reader (GDCM) decodes
READABLE = {
    "1.2.840.10008.1.2" + end
    for end in ("", ".1", ".2", ".5", *(f".4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)))
}
_WITHOUT_VOLUME = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG")
_DEFLATED = "1.2.840.10008.1.2.1.99"  # read as a whole, however much it unpacks to
_PIXELS, _UNDEFINED = 0x7FE00010, 0xFFFFFFFF


def check(paths: Sequence[Path]) -> list[Path]:
    """Find the one series in files, and see that it makes a volume.

    Args:
        paths: files of any kind; those that are no DICOM images are left out.

    Returns:
        the files of the series, ordered along its slices.

    Raises:
        Refused: when there is no series or more than one, or it makes no volume. Nothing of the patient is told.
    """
    read = [(path, one) for path in paths if (one := _read(path)) is not None]
    images = [(path, one) for path, one in read if one.get("Modality") not in _WITHOUT_VOLUME and "Rows" in one]
    if not images:
        came = f"{len(paths)} files, {len(read)} of them DICOM, none an image"
        raise Refused(422, came, "there must be the slices of one series", "send a zip of the series' files")
    several = Counter(str(one.get("SeriesInstanceUID")) for _, one in images)
    if len(several) > 1:
        came = f"{len(several)} series of {', '.join(map(str, several.values()))} slices"
        raise Refused(422, came, "a session is one series", "send a zip of the wanted series alone")
    for _, one in images:
        _check_slice(one)
    _check_alike([one for _, one in images])
    if len(images) == 1:
        return [images[0][0]]
    return _ordered(images)


def _read(path: Path) -> pydicom.Dataset | None:
    try:
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
            raise _undecoded(_DEFLATED)
        one = pydicom.dcmread(path)
        if _PIXELS in one:
            element = one.get_item(_PIXELS)
            one.pixel_bytes = None if element.length == _UNDEFINED else len(element.value)
            one[_PIXELS] = DataElement(_PIXELS, "OW", b"")  # a whole series would fill the memory
        return one
    except InvalidDicomError:
        return None
    except Refused:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise Refused(
            422, f"a DICOM file can not be read ({type(error).__name__})", "it must be whole", "export it again"
        ) from None


def _undecoded(syntax: str) -> Refused:
    return Refused(
        422,
        f"the transfer syntax is {pydicom.uid.UID(syntax).name if syntax else 'none'}",
        "it must be one that the server decodes: uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000",
        "convert it, for example with gdcmconv --raw",
    )


def _check_slice(one: pydicom.Dataset) -> None:
    syntax = one.file_meta.get("TransferSyntaxUID", "")
    if syntax not in READABLE:
        raise _undecoded(syntax)
    if _PIXELS not in one:
        raise Refused(
            422, "a DICOM image without pixel data", "slices must have it", "export the series with its images"
        )
    if int(one.get("NumberOfFrames") or 1) > 1:
        raise Refused(422, "a multi-frame DICOM image", "a series has one slice a file", "send it as .nii.gz")
    if int(one.get("SamplesPerPixel") or 1) != 1:
        raise Refused(422, "a colour image", "slices must have one value a pixel", "send the original series")
    if one.get("Modality") == "CT" and ("RescaleSlope" not in one or "RescaleIntercept" not in one):
        raise Refused(422, "a CT slice without rescale slope and intercept", "CT is in HU", "send the original series")
    needed = math.ceil(int(one.Rows) * int(one.Columns) * int(one.get("BitsAllocated") or 16) / 8)
    if one.pixel_bytes is not None and one.pixel_bytes < needed:
        raise Refused(422, "pixel data cut short", f"a slice of this size has {needed} bytes", "export it again")


def _check_alike(images: Sequence[pydicom.Dataset]) -> None:
    sizes = Counter((int(one.Columns), int(one.Rows)) for one in images)
    if len(sizes) > 1:
        came = "slices of " + " and ".join(f"{x}x{y} ({count})" for (x, y), count in sizes.items()) + " pixels"
        raise Refused(422, came, "all slices of a series have one size", "leave out localisers and other sizes")
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if any(not one.get(tag) for one in images):
            raise Refused(422, f"a slice without {tag}", "its place must be told", "send the original series")
    turns = np.array([[float(value) for value in one.ImageOrientationPatient] for one in images])
    if np.abs(turns - turns[0]).max() > 1e-3:
        raise Refused(422, "slices of several orientations", "they must be parallel", "leave out localisers")


def _ordered(images: Sequence[tuple[Path, pydicom.Dataset]]) -> list[Path]:
    turn = np.array([float(value) for value in images[0][1].ImageOrientationPatient]).reshape(2, 3)
    normal = np.cross(*turn)
    places = np.array([[float(value) for value in one.ImagePositionPatient] for _, one in images])
    order = np.argsort(places @ normal, kind="stable")
    steps = np.diff(places[order], axis=0)
    along = steps @ normal
    usual = float(np.median(along))
    if along.min() < 0.01:
        raise Refused(422, "two slices in one place", "each place has one slice", "send one time point or echo alone")
    if np.abs(along - usual).max() > 0.1 * usual:
        came = f"slices {along.min():.2f} to {along.max():.2f} mm apart"
        raise Refused(422, came, "they must be evenly spaced", "send the missing slices, or resample to .nii.gz")
    if np.abs(steps @ turn.T).max() > 0.05 * usual:
        raise Refused(
            422,
            "slices that are sheared (gantry tilt)",
            "the server would lose the shear",
            "convert the series to .nrrd, which keeps it",
        )
    return [images[number][0] for number in order]
