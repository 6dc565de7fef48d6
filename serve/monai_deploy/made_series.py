"""A DICOM series made from a volume, of nobody: what the checks of the application give it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

# whoever these are, nothing that the application tells may name them
PATIENT = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "P-4711-0815",
    "PatientBirthDate": "19640812",
    "PatientSex": "F",
    "StudyDescription": "Abdomen Mustermann",
    "SeriesDescription": "portal venous Mustermann",
    "AccessionNumber": "ACC90210",
    "StudyID": "S31337",
    "StudyDate": "20010203",
    "StudyTime": "101112",
    "ReferringPhysicianName": "Weiss^Egon",
}


def write_series(
    values: np.ndarray,
    affine: np.ndarray,
    folder: Path,
    modality: str = "CT",
    seed: str = "series",
    change: Callable[[pydicom.Dataset, int], None] | None = None,
) -> list[pydicom.Dataset]:
    """Write ``NUMBER.dcm`` for each slice of a volume; the last axis is that of the slices.

    CT is stored as whole numbers from -1024, anything else in 4096 steps between its extremes.

    Args:
        values: X Y Z.
        affine: 4 x 4, voxels to mm, RAS; its axes at right angles.
        folder: where to.
        modality: ``CT`` or ``MR``.
        seed: of all UIDs, so that the same call writes the same files.
        change: what is done to each data set before it is written, with its slice's number.

    Returns:
        the data sets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    placed = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    edges = np.linalg.norm(placed[:3, :3], axis=0)
    directions = (placed[:3, :2] / edges[:2]).T.ravel()
    slope, intercept = 1.0, -1024.0
    if modality != "CT":
        slope, intercept = float(np.ptp(values) or 1.0) / 4095, float(values.min())
    stored = np.rint((values - intercept) / slope).clip(0, 65535).astype(np.uint16)
    uids = {
        keyword: generate_uid(entropy_srcs=[seed, keyword])
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    }
    made = []
    for number in range(values.shape[2]):
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        one.SOPInstanceUID = generate_uid(entropy_srcs=[seed, str(number)])
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        for keyword, value in {**PATIENT, **uids}.items():
            setattr(one, keyword, value)
        one.Modality, one.SeriesNumber, one.InstanceNumber = modality, 3, number + 1
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImagePositionPatient = [f"{value:.10g}" for value in placed[:3, 3] + number * placed[:3, 2]]
        one.ImageOrientationPatient = [f"{value:.10f}" for value in directions]
        one.PixelSpacing = [f"{edges[1]:.10g}", f"{edges[0]:.10g}"]  # of rows, then of columns
        one.SliceThickness = f"{edges[2]:.10g}"
        one.Columns, one.Rows = values.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit = 15
        one.RescaleSlope, one.RescaleIntercept = f"{slope:.10g}", f"{intercept:.10g}"
        one.PixelData = np.ascontiguousarray(stored[..., number].T).tobytes()
        if change is not None:
            change(one, number)
        pydicom.dcmwrite(folder / f"{number:04d}.dcm", one, enforce_file_format=True)
        made.append(one)
    return made
