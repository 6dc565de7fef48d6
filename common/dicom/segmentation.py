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
from .headers import Plane, quiet
from .series import Series

pydicom, _ = optional_import("pydicom")
hd, has_highdicom = optional_import("highdicom")

__all__ = ["Algorithm", "write_segmentation"]

_MAKER = "volseg"
_PLACE = 0.3  # of a voxel: by how much a pixel of the series may miss the voxel of the label that is meant
_TURN = 2e-3  # of an edge of a voxel, from one pixel to the next
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS mm to DICOM's mm and back
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


def write_segmentation(
    label: np.ndarray,
    affine: np.ndarray,
    series: Series,
    segments: Mapping[str, Mapping[str, Any]] | None,
    out: str | os.PathLike[str],
    algorithm: Algorithm,
) -> Path:
    """Write a label as a DICOM SEG object (binary segments) of the study of its series.

    Every image of the series gets the slice of the label that lies on it, by geometry: the label may be mirrored and
    permuted against the series, but not resampled. Images without any segment have no frame, as viewers expect; a
    label without any segment gets a frame of zeros for every image and segment, since an object without frames is
    none. All segments are described, so that one without frames says that it was looked for and not found.

    The object holds the patient and study of the series, as every object of a study does. Nothing of these is logged.

    Args:
        label: X Y Z, whole numbers, classes.
        affine: 4 x 4, voxel to RAS mm.
        series: the images.
        segments: codes by number of the class, as ``dicom_segments`` of a bundle's metadata: ``label``, ``category``,
            ``type`` and, where they are there, ``region`` (code, scheme, meaning) and ``color`` (RGB, 0 to 255).
        out: file to write, whole or not at all.
        algorithm: what made the label.

    Returns:
        the path of the file.

    Raises:
        InputError: the bundle names no codes; a class without one; the label does not lie on the series; the series'
            headers lack what the object needs; highdicom is not installed.
    """
    if not has_highdicom:
        came, rule = "the package highdicom is not installed", "DICOM SEG is written with it"
        raise InputError(problem(came, rule, 'run: pip install "volseg[dicom]"'))
    if not segments:
        raise InputError(
            problem(
                f"the metadata of {algorithm.name} has no dicom_segments",
                "DICOM SEG names every class by a code, and the images of this bundle come from no DICOM series",
                "leave DICOM SEG out; the label is written as a volume in any case",
            )
        )
    numbered = _numbered(label, segments, series.name)
    frames = np.stack([_frame(numbered, step) for step in _steps(numbered.shape, affine, series)])
    with quiet(), _silent(), pydicom.config.disable_value_validation():
        made = _object(frames, series, list(segments.values()), algorithm)
        with atomic_path(out) as temporary:
            made.save_as(temporary)
    return Path(out)


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


@dataclass(frozen=True)
class _Step:
    """How to walk through a label to see what an image of the series shows.

    Args:
        axis: of the label, across the image.
        index: of the slice along it.
        columns: axis along which the image's columns are counted, and its direction, 1 or -1.
        rows: likewise for its rows.
    """

    axis: int
    index: int
    columns: tuple[int, int]
    rows: tuple[int, int]


def _frame(label: np.ndarray, step: _Step) -> np.ndarray:
    """Rows x columns of what an image of the series shows of the label."""
    (column_axis, column_way), (row_axis, row_way) = step.columns, step.rows
    plane = np.take(label, step.index, axis=step.axis)
    plane = plane if row_axis < column_axis else plane.T
    return plane[::row_way, ::column_way]


def _steps(shape: Sequence[int], affine: np.ndarray, series: Series) -> list[_Step]:
    """The way through the label for every image of a series; every slice of the label belongs to one of them."""
    inverse = np.linalg.inv(_LPS @ np.asarray(affine, np.float64))
    steps = [_step(shape, inverse, plane) for plane in series.planes]
    apart = {(step.axis, step.index) for step in steps if step is not None}
    if None in steps or len(apart) < len(steps) or len(steps) != shape[steps[0].axis]:
        raise InputError(
            problem(
                f"the label of {series.name}, {'x'.join(map(str, shape))} voxels, does not lie on the"
                f" {series.images} images of its series",
                "DICOM SEG is written on the images' own pixels, one slice for each",
                "give the label on the grid of the series, as predict writes it",
            )
        )
    return steps


def _step(shape: Sequence[int], inverse: np.ndarray, plane: Plane) -> _Step | None:
    """The way through a label for one image; None where its pixels lie on no voxels of the label."""
    if plane.position is None or plane.orientation is None or plane.edges is None:
        return None
    start = inverse[:3, :3] @ plane.position + inverse[:3, 3]
    ways = []
    for direction, edge in zip((plane.orientation[:3], plane.orientation[3:]), plane.edges, strict=True):
        move = inverse[:3, :3] @ (np.asarray(direction) * edge)
        axis = int(np.abs(move).argmax())
        way = 1 if move[axis] > 0 else -1
        if np.abs(move - way * np.eye(3)[axis]).max() > _TURN:
            return None
        ways.append((axis, way))
    (first, _), (second, _) = ways
    if first == second:
        return None
    across = 3 - first - second
    for (axis, way), size in zip(ways, plane.size, strict=True):
        if size != shape[axis] or abs(start[axis] - (0 if way > 0 else size - 1)) > _PLACE:
            return None
    index = round(float(start[across]))
    if abs(start[across] - index) > _PLACE or not 0 <= index < shape[across]:
        return None
    return _Step(across, index, *ways)


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
    positions = None
    if sources[0].get("NumberOfFrames"):  # of which the series may be a part, in an order of its own
        patient = hd.CoordinateSystemNames.PATIENT
        positions = [hd.PlanePositionSequence(patient, plane.position) for plane in series.planes]
    try:
        return hd.seg.Segmentation(
            source_images=sources if positions is None else sources[:1],
            further_source_images=None if positions is None else sources[1:],
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
