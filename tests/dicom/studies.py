"""Series as a scanner writes them, with a patient in every header, and files of several frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from dicom_series import AXIAL, ORIGIN, SPACING, Change, encoded, slices
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
MIRRORED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.8, 0.48, -0.36, -0.6, 0.64, -0.48)
SECRETS = ("Doe", "Jane", "77-1234", "19500203", "2.25.4711", "20200131", "for Dr Smith")  # what no text may hold


def headed(uid: str = "2.25.4711", modality: str = "CT", number: int = 3, change: Change | None = None) -> Change:
    """What a scanner writes into every header of a series, and then `change`."""

    def write(one: Dataset, at: int) -> None:
        one.PatientName, one.PatientID, one.PatientBirthDate = "Doe^Jane", "77-1234", "19500203"
        one.StudyDate, one.SeriesDescription = "20200131", "for Dr Smith"
        one.StudyInstanceUID, one.FrameOfReferenceUID = "2.25.47110", "2.25.47111"
        one.SeriesInstanceUID, one.Modality, one.SeriesNumber, one.InstanceNumber = uid, modality, number, at + 1
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[uid, str(at)])
        one.SliceThickness = 1.5  # of the 2.5 mm from slice to slice: there are gaps
        if change is not None:
            change(one, at)

    return write


def write_series(
    folder: Path,
    volume: np.ndarray,
    directions: Sequence[float] = AXIAL,
    names: Sequence[object] | None = None,
    change: Change | None = None,
    tags: dict[str, object] | None = None,
    **options: object,
) -> Path:
    """Write a series, slice by slice; `tags` as for `headed`, `options` as for `dicom_series.slices`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = slices(volume, directions, change=headed(**(tags or {}), change=change), **options)
    for at, one in made.items():
        (folder / f"jane_doe_{at if names is None else names[at]}").write_bytes(encoded(one))
    return folder


def write_frames(
    path: Path,
    volumes: Sequence[np.ndarray],
    directions: Sequence[float] = AXIAL,
    scales: Sequence[tuple[float, float]] | None = None,
    shuffle: int = 0,
) -> Path:
    """Write an Enhanced MR of one file: a frame for each slice of each echo, in an order drawn by `shuffle`.

    Args:
        path: the file.
        volumes: X Y Z of stored values (uint16) for each echo.
        directions: ``ImageOrientationPatient``.
        scales: slope and intercept of each slice.
        shuffle: seed.
    """
    x, y = np.array(directions[:3]), np.array(directions[3:])
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    headed("2.25.99", "MR", 5)(one, 0)
    one.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    one.Columns, one.Rows = volumes[0].shape[:2]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 0
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], 1.5
    measures.SpacingBetweenSlices = SPACING[2]
    orientation.ImageOrientationPatient = list(directions)
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    one.SharedFunctionalGroupsSequence = [shared]
    frames = [(echo, at) for echo in range(len(volumes)) for at in range(volumes[0].shape[2])]
    frames = [frames[number] for number in np.random.default_rng(shuffle).permutation(len(frames))]
    one.NumberOfFrames = len(frames)
    groups = []
    for echo, at in frames:
        group, place, content, timing, scale = (Dataset() for _ in range(5))
        position = np.array(ORIGIN) + at * SPACING[2] * np.cross(x, y)
        place.ImagePositionPatient = [f"{value:.8g}" for value in position]
        content.StackID, content.InStackPositionNumber = "1", at + 1
        timing.EffectiveEchoTime = 10.0 * (echo + 1)
        group.PlanePositionSequence, group.FrameContentSequence, group.MREchoSequence = [place], [content], [timing]
        if scales is not None:
            scale.RescaleSlope, scale.RescaleIntercept = scales[at]
            scale.RescaleType = "US"
            group.PixelValueTransformationSequence = [scale]
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = groups
    one.PixelData = b"".join(np.ascontiguousarray(volumes[echo][..., at].T).tobytes() for echo, at in frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, one, enforce_file_format=True)
    return path
