"""Series with a full header, labels for them, and DICOM SEG read back slowly."""

from __future__ import annotations

from pathlib import Path

import dicom_series
import numpy as np
import pydicom
import SimpleITK
from pydicom.uid import generate_uid

from common.dicom.segmentation import Algorithm, write_segmentation
from common.dicom.series import find_series

STUDY, SERIES, PLACE = generate_uid(), generate_uid(), generate_uid()
LIVER = {
    "label": "Liver",
    "category": ["91723000", "SCT", "Anatomical Structure"],
    "type": ["10200004", "SCT", "Liver"],
    "color": [86, 180, 233],
}
TUMOUR = {
    "label": "Tumour",
    "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
    "type": ["108369006", "SCT", "Neoplasm"],
    "region": ["10200004", "SCT", "Liver"],
}
CODES = {"1": LIVER, "2": TUMOUR}
MADE_BY = Algorithm("ra_unet_liver", "0.1.0", "a1" * 32)
AXIAL, MIRRORED = dicom_series.AXIAL, (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL, CORONAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.48, -0.36, -0.6, 0.64, -0.48)


def headed(one, number):
    """What a scanner writes into every header."""
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = STUDY, SERIES, PLACE
    one.PatientID, one.PatientBirthDate, one.PatientSex = "77-1234", "19500203", "F"
    one.StudyID, one.AccessionNumber, one.StudyDate, one.StudyTime = "4711", "A-99", "20200101", "101500"
    one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", 3, number + 1
    one.SliceThickness = 2.5


def study(folder: Path, directions=AXIAL, names=None, change=None, **options):
    """A series on disk."""

    def all_of(one, number):
        headed(one, number)
        if change is not None:
            change(one, number)

    made = dicom_series.slices(dicom_series.stored_scan(), directions, change=all_of, **options)
    (found,) = find_series(dicom_series.write(folder, made, names))
    return found


def itk_grid(series):
    """Shape X Y Z and affine in RAS mm as SimpleITK sees the series, which is asked by the order of its own."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in series.files])
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return image.GetSize(), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def noise(shape, classes=3, seed=0):
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)


def reread(path, shape, affine):
    """Label X Y Z of a SEG, by the place of every frame and nothing else: a plain loop over the frames."""
    seg = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    shared = seg.SharedFunctionalGroupsSequence[0]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    inverse = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    found = np.zeros(shape, np.uint8)
    size = seg.Rows * seg.Columns
    for number, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        segment = (
            frame.SegmentIdentificationSequence[0]
            if "SegmentIdentificationSequence" in frame
            else shared.SegmentIdentificationSequence[0]
        ).ReferencedSegmentNumber
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        pixels = bits[number * size : (number + 1) * size].reshape(seg.Rows, seg.Columns)
        for row, column in zip(*np.nonzero(pixels), strict=True):
            world = corner + directions[:3] * between_columns * column + directions[3:] * between_rows * row
            place = inverse[:3, :3] @ world + inverse[:3, 3]
            assert np.abs(place - np.rint(place)).max() < 0.05
            found[tuple(np.rint(place).astype(int))] = segment
    return found


def written(tmp_path, label, affine, series, codes=CODES, made_by=MADE_BY):
    return write_segmentation(label, affine, series, codes, tmp_path / "case_seg.dcm", made_by)
