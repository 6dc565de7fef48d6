"""A label as DICOM SEG, beside the series that it was made from."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..checks import InputError, problem
from ..files import atomic_path
from .headers import quiet
from .placing import on_images
from .series import Series

pydicom, _ = optional_import("pydicom")
hd, has_highdicom = optional_import("highdicom")

__all__ = ["Algorithm", "check_segments", "write_segmentation"]

_MAKER = "volseg"
# what an instance must have, empty where nobody has filled it in (type 2); of dates and times with their form
_EMPTY_IF_ABSENT = ("PatientID", "PatientName", "AccessionNumber", "StudyID")
_DATES = {"PatientBirthDate": "DA", "StudyDate": "DA", "StudyTime": "TM"}


@dataclass(frozen=True)
class Algorithm:
    """What made a label, as the object names it.

    Args:
        name: of the bundle.
        version: of the bundle.
        weights: SHA-256 of its weights; empty where unknown.
    """

    name: str
    version: str
    weights: str = ""


def check_segments(segments: Mapping[str, Mapping[str, Any]] | None, name: str) -> None:
    """See that DICOM SEG can be written of a bundle's labels, before any label is made.

    Args:
        segments: ``dicom_segments`` of its metadata.
        name: of the bundle.

    Raises:
        InputError: when it names no codes, or highdicom is not installed.
    """
    if not has_highdicom:
        came, rule = "the package highdicom is not installed", "DICOM SEG is written with it"
        raise InputError(problem(came, rule, 'run: pip install "volseg[dicom]"'))
    if not segments:
        raise InputError(
            problem(
                f"the metadata of {name} has no dicom_segments",
                "DICOM SEG names every class by a code, and the images of this bundle come from no DICOM series",
                "leave DICOM SEG out; the label is written as a volume in any case",
            )
        )


def write_segmentation(
    label: np.ndarray,
    affine: np.ndarray,
    series: Series,
    segments: Mapping[str, Mapping[str, Any]] | None,
    out: str | os.PathLike[str],
    algorithm: Algorithm,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write a label as a DICOM SEG object (binary segments) of the study of its series.

    Every image of the series gets the slice of the label that lies on it, by geometry: the label may be mirrored and
    permuted against the series, but not resampled. Images without any segment have no frame, as viewers expect; of a
    label without any segment the first image has frames of zeros, since an object without frames is none. All segments
    are described, so that one without frames says that it was looked for and not found.

    The object holds the patient and study of the series, as every object of a study does. Nothing of these is logged.

    Args:
        label: X Y Z, whole numbers, classes.
        affine: 4 x 4, voxel to RAS mm.
        series: the images.
        segments: codes by number of the class, as ``dicom_segments`` of a bundle's metadata: ``label``, ``category``,
            ``type`` and, where they are there, ``region`` (code, scheme, meaning) and ``color`` (RGB, 0 to 255).
        out: file to write, whole or not at all.
        algorithm: what made the label.
        class_names: under which the label was made, in the order of classes, which settings may have changed; None
            where they are the bundle's own.

    Returns:
        the path of the file.

    Raises:
        InputError: the bundle names no codes; a class without one, or of another name; the label does not lie on the
            series; the series' headers lack what the object needs; highdicom is not installed.
    """
    check_segments(segments, algorithm.name)
    _check_names(segments, class_names)
    numbered = _numbered(label, segments, series.name)
    frames = on_images(numbered, affine, series)
    with quiet(), _silent(), pydicom.config.disable_value_validation():
        made = _object(frames, series, list(segments.values()), algorithm)
        with atomic_path(out) as temporary:
            made.save_as(temporary)
    return Path(out)


def _check_names(segments: Mapping[str, Mapping[str, Any]], class_names: Sequence[str] | None) -> None:
    """A class of another name under the code of the bundle's own would call one organ another."""
    named = {str(number): name for number, name in enumerate(class_names or ())}
    for number, segment in segments.items():
        if class_names is not None and named.get(number, "").lower() != segment["label"].lower():
            raise InputError(
                problem(
                    f"class {number} is '{named.get(number, 'none')}', and dicom_segments has the codes of"
                    f" '{segment['label']}' for it",
                    "DICOM SEG names every class by its code",
                    "name the codes of these classes in the bundle's metadata.json, or leave DICOM SEG out",
                )
            )


def _numbered(label: np.ndarray, segments: Mapping[str, Any], name: str) -> np.ndarray:
    """The label with numbers of segments, from 1 in the order of `segments`, in place of classes; 0 where none is."""
    label = np.asarray(label)
    if label.ndim != 3 or label.dtype.kind not in "ui":
        raise InputError(
            problem(
                f"the label of {name} has the shape {label.shape} and the type {label.dtype}",
                "DICOM SEG is written from X Y Z whole numbers",
                "give the classes, one number a voxel",
            )
        )
    classes = {int(key): number for number, key in enumerate(segments, start=1)}
    strange = sorted({int(value) for value in np.unique(label)} - {0, *classes})
    if strange:
        raise InputError(
            problem(
                f"the label of {name} holds the classes {', '.join(map(str, strange))}",
                f"DICOM SEG needs a code for every class, and dicom_segments has those of {', '.join(segments)}",
                "name their codes in the bundle's metadata.json, or leave DICOM SEG out",
            )
        )
    numbers = np.zeros(max(*classes, int(label.max(initial=0))) + 1, np.uint8)
    numbers[list(classes)] = list(classes.values())
    return numbers[label]


def _object(frames: np.ndarray, series: Series, segments: Sequence[Mapping[str, Any]], algorithm: Algorithm) -> Any:
    """The SEG object of frames x rows x columns of numbers of segments, in the order of the series' images."""
    sources = _sources(series)
    made_by = hd.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=_concept(("123110", "DCM", "Artificial Intelligence")),
        version=algorithm.version,
        parameters={"weights_sha256": algorithm.weights} if algorithm.weights else None,
    )
    described = [_description(number, one, made_by) for number, one in enumerate(segments, start=1)]
    several = bool(sources[0].get("NumberOfFrames"))  # of which the series may be a part, in an order of its own
    positions, patient = None, hd.CoordinateSystemNames.PATIENT
    if several or not frames.any():
        positions = [hd.PlanePositionSequence(patient, plane.position) for plane in series.planes]
    if not frames.any():
        frames, positions = frames[:1], positions[:1]
    try:
        return hd.seg.Segmentation(
            source_images=sources[:1] if several else sources,
            further_source_images=sources[1:] if several else None,
            pixel_array=frames,
            plane_positions=positions,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            series_instance_uid=hd.UID(),
            series_number=(series.number or 0) % 100_000 + 1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=_MAKER,
            manufacturer_model_name=algorithm.name[:64],
            software_versions=algorithm.version[:64],
            device_serial_number=algorithm.weights[:16] or "unknown",
            series_description=f"{algorithm.name} {algorithm.version}"[:64],
            content_qualification=hd.ContentQualificationValues.RESEARCH,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # without its text, which may quote the header
        came = f"the headers of {series.name} can not be made a DICOM SEG of ({type(error).__name__})"
        rule = "it takes patient, study, frame of reference and geometry from the images' headers"
        raise InputError(problem(came, rule, "mend the headers, or leave DICOM SEG out")) from None


def _description(number: int, segment: Mapping[str, Any], made_by: Any) -> Any:
    colour = segment.get("color")
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment["label"],
        segmented_property_category=_concept(segment["category"]),
        segmented_property_type=_concept(segment["type"]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=made_by,
        anatomic_regions=[_concept(segment["region"])] if "region" in segment else None,
        display_color=hd.color.CIELabColor.from_rgb(*colour) if colour else None,
    )


def _concept(code: Sequence[str]) -> Any:
    value, scheme, meaning = code
    return hd.sr.CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)


def _sources(series: Series) -> list[Any]:
    """Headers of the files of a series in the order of its images, in the form that the standard asks of them."""
    frame_of_reference = None
    sources = []
    for path in series.files:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if not header.get("FrameOfReferenceUID"):
            frame_of_reference = frame_of_reference or hd.UID()
            header.FrameOfReferenceUID = frame_of_reference
        _fill(header)
        sources.append(header)
    for header in sources[1:]:  # which may differ in the last digit
        if "ImageOrientationPatient" in header:
            header.ImageOrientationPatient = sources[0].ImageOrientationPatient
    return sources


def _fill(header: Any) -> None:
    """Empty values for what is absent or none of its kind, no distance of slices but that between their positions."""
    for keyword in _EMPTY_IF_ABSENT:
        if header.get(keyword) is None:
            setattr(header, keyword, "")
    for keyword, kind in _DATES.items():
        try:
            getattr(pydicom.valuerep, kind)(header.get(keyword) or "")
        except ValueError:
            setattr(header, keyword, "")
        else:
            setattr(header, keyword, header.get(keyword) or "")
    if header.get("PatientSex") not in ("M", "F", "O"):
        header.PatientSex = ""
    if "SpacingBetweenSlices" in header:
        del header.SpacingBetweenSlices
    if "PixelSpacing" in header and not header.get("SliceThickness"):
        header.SliceThickness = ""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing in the log from highdicom, which quotes names of patients that are written in an unusual way."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
