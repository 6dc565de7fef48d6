"""A labelled volume as DICOM SEG, with the codes that a bundle's metadata names, or as NIfTI."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
from found_series import Frame, quiet
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, TM
from refused import Refused
from volume import Volume

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# empty where a source does not know them, or in another form, which the standard allows
_MAY_BE_EMPTY = ("PatientID", "PatientName", "StudyID", "AccessionNumber", "ReferringPhysicianName", "SliceThickness")
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}


def write_segmentation(label: np.ndarray, volume: Volume, metadata: Mapping[str, Any], folder: Path) -> Path:
    """Write ``NAME_seg.dcm``, one segment a class of ``dicom_segments``; a label without any gives empty segments.

    Args:
        label: X Y Z on the volume's grid, uint8: classes of the bundle.
        volume: of a series.
        metadata: of the bundle.
        folder: where the file goes; it appears there whole.

    Raises:
        Refused: for a source whose header lacks what a DICOM SEG refers to.
    """
    named = {int(key): entry for key, entry in metadata["dicom_segments"].items()}
    segments = np.zeros(256, np.uint8)
    for number, value in enumerate(sorted(named), start=1):
        segments[value] = number
    frames = segments[label].transpose(2, 1, 0)  # slices, rows, columns
    algorithm = hd.AlgorithmIdentificationSequence(
        name=str(metadata["name"]), family=codes.DCM.ArtificialIntelligence, version=str(metadata["version"])
    )
    described = [_described(number, named[value], algorithm) for number, value in enumerate(sorted(named), start=1)]
    path = folder / f"{volume.name}_seg.dcm"
    with quiet(), pydicom.config.disable_value_validation():
        sources = _sources(volume.frames)
        if len(sources) < len(volume.frames):  # frames of one file, which are to be in its order
            frames = frames[np.argsort([frame.index for frame in volume.frames])]
        try:
            made = hd.seg.Segmentation(
                source_images=sources,
                pixel_array=np.ascontiguousarray(frames),
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=described,
                series_instance_uid=hd.UID(),
                series_number=1000 + int(sources[0].get("SeriesNumber") or 0) % 100_000,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="volseg",
                manufacturer_model_name=str(metadata["name"])[:64],
                software_versions=str(metadata["version"])[:64],
                device_serial_number="unknown",
                series_description=f"{metadata['name']} {metadata['version']}"[:64],
                content_qualification=hd.ContentQualificationValues.RESEARCH,
                omit_empty_frames=bool(frames.any()),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # whose text may quote the header
            raise Refused(
                f"no DICOM SEG can be made from the headers of {volume.name} ({type(error).__name__})",
                "patient, study, frame of reference and geometry are taken from them",
                "export the series again, as original images",
            ) from None
        with _whole(path) as temporary:
            made.save_as(temporary)
    return path


def write_nifti(label: np.ndarray, volume: Volume, folder: Path) -> Path:
    """Write ``NAME_seg.nii.gz``, classes as the bundle numbers them, on the volume's grid."""
    image = nib.Nifti1Image(label, volume.affine)
    image.set_data_dtype(np.uint8)
    with _whole(folder / f"{volume.name}_seg.nii.gz") as temporary:
        nib.save(image, temporary)
    return folder / f"{volume.name}_seg.nii.gz"


def volumes_ml(label: np.ndarray, volume: Volume, metadata: Mapping[str, Any]) -> dict[str, float]:
    """Millilitres of each class that `dicom_segments` names, or of every class but 0."""
    voxel = abs(np.linalg.det(volume.affine[:3, :3])) / 1000
    counted = np.bincount(label.ravel(), minlength=256)
    named = metadata.get("dicom_segments") or {}
    names = {int(key): entry["label"] for key, entry in named.items()} or {
        int(value): f"class {value}" for value in np.flatnonzero(counted) if value
    }
    return {name: round(float(counted[value] * voxel), 3) for value, name in names.items()}


def _sources(frames: Sequence[Frame]) -> list[pydicom.Dataset]:
    """The headers of a series, in the order of the slices."""
    sources = [pydicom.dcmread(path, stop_before_pixels=True) for path in dict.fromkeys(frame.file for frame in frames)]
    place = hd.UID()  # where the source names no frame of reference
    for header in sources:
        lacking = [keyword for keyword in _NEEDED if not header.get(keyword)]
        if lacking:
            raise Refused(
                f"the headers of the series lack {', '.join(lacking)}",
                "a DICOM SEG refers to its source by them",
                "export the series again, as original images",
            )
        header.FrameOfReferenceUID = header.get("FrameOfReferenceUID") or place
        for keyword in _MAY_BE_EMPTY:
            setattr(header, keyword, header.get(keyword) or "")
        for keyword, kind in _DATES.items():
            try:
                kind(header.get(keyword) or "")
                setattr(header, keyword, header.get(keyword) or "")
            except ValueError:
                setattr(header, keyword, "")
        header.PatientSex = header.get("PatientSex") if header.get("PatientSex") in ("M", "F", "O") else ""
        header.pop("SpacingBetweenSlices", None)  # positions say it, and more truly
        if "ImageOrientationPatient" in header:  # which may differ in the last digit
            header.ImageOrientationPatient = sources[0].ImageOrientationPatient
    return sources


def _described(number: int, entry: Mapping[str, Any], algorithm: Any) -> hd.seg.SegmentDescription:
    color = entry.get("color")
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=entry["label"],
        segmented_property_category=_code(entry["category"]),
        segmented_property_type=_code(entry["type"]),
        anatomic_regions=[_code(entry["region"])] if entry.get("region") else None,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=hd.color.CIELabColor.from_rgb(*color) if color else None,
    )


def _code(triple: Sequence[str]) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(*triple)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when it is written, and is gone otherwise."""
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
