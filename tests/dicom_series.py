"""Small DICOM series of a CT and of masks drawn on it, written slice by slice."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHAPE = (9, 8, 6)  # X Y Z
SPACING = (0.7, 0.8, 2.5)  # mm along x, y and the slices
ORIGIN = (-11.0, 4.0, 100.0)  # mm, LPS
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Change = Callable[[pydicom.Dataset, int], None]


def slices(
    volume: np.ndarray,
    directions: Sequence[float] = AXIAL,
    shear: tuple[float, float] = (0.0, 0.0),
    rescale: tuple[float, float] | None = (1.0, -1024.0),
    change: Change | None = None,
) -> dict[int, pydicom.Dataset]:
    """A data set for each slice of a volume X Y Z of stored values, by its number along the normal.

    Args:
        volume: X Y Z.
        directions: ``ImageOrientationPatient``.
        shear: mm by which each slice lies further along x and y than the one before.
        rescale: slope and intercept; None writes none.
        change: what is done to each data set, with the number of its slice.
    """
    x, y = np.array(directions[:3]), np.array(directions[3:])
    normal = np.cross(x, y)
    made = {}
    for number in range(volume.shape[2]):
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        one.PatientName = "Nobody^Knows"
        place = np.array(ORIGIN) + number * (SPACING[2] * normal + shear[0] * x + shear[1] * y)
        one.ImagePositionPatient = [f"{value:.6g}" for value in place]
        one.ImageOrientationPatient = [f"{value:.8g}" for value in directions]
        one.PixelSpacing = [SPACING[1], SPACING[0]]  # between rows, between columns
        one.SliceLocation = f"{float(place @ normal):.6g}"
        one.Columns, one.Rows = volume.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 8 * volume.dtype.itemsize
        one.HighBit = one.BitsStored - 1
        one.PixelRepresentation = int(volume.dtype.kind == "i")
        if rescale is not None:
            one.RescaleSlope, one.RescaleIntercept = rescale
        one.PixelData = np.ascontiguousarray(volume[..., number].T).tobytes()
        if change is not None:
            change(one, number)
        made[number] = one
    return made


def encoded(one: pydicom.Dataset) -> bytes:
    """The file of a slice."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, one, enforce_file_format=True)
    return stream.getvalue()


def write(folder: Path, made: Mapping[int, pydicom.Dataset], names: Sequence[int] | None = None) -> Path:
    """Write slices as ``image_K``; K by the number of the slice where `names` does not say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in made.items():
        (folder / f"image_{number if names is None else names[number]}").write_bytes(encoded(one))
    return folder


def files(made: Mapping[int, pydicom.Dataset]) -> dict[str, Callable[[], bytes]]:
    """Slices as `common.data.convert.dicom` reads them."""
    return {f"image_{number}": (lambda one=one: encoded(one)) for number, one in made.items()}


def stored_scan(seed: int = 0) -> np.ndarray:
    """Air with a block of tissue of 40 to 80 HU, as stored with an intercept of -1024."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 30, SHAPE).astype(np.uint16)
    values[2:7, 2:7, 1:5] = rng.integers(1064, 1104, (5, 5, 4))
    return values


def block(*edges: slice) -> np.ndarray:
    """A mask of 0 and 255."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[edges] = 255
    return mask
