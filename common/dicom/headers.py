"""What the header of a DICOM file says of its images: no pixels, few tags, and nothing about the patient."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from ..checks import InputError, problem

pydicom, has_pydicom = optional_import("pydicom")

__all__ = ["APART", "Header", "Plane", "quiet", "read_header", "require_pydicom"]

# what tells images apart that lie at one place, the most telling first: by name, where it stands in the header of a
# file, and where in the functional groups of a frame
_APART = (
    ("echo", ("EchoNumbers",), ("MREchoSequence", "EffectiveEchoTime")),
    ("echo time", ("EchoTime",), ()),
    ("time point", ("TemporalPositionIdentifier",), ("FrameContentSequence", "TemporalPositionIndex")),
    ("diffusion", ("DiffusionBValue",), ("MRDiffusionSequence", "DiffusionBValue")),
    (
        "direction",
        ("DiffusionGradientOrientation",),
        ("MRDiffusionSequence", "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation"),
    ),
    ("kind", ("ImageType",), ("MRImageFrameTypeSequence", "FrameType")),
    ("kind of CT", (), ("CTImageFrameTypeSequence", "FrameType")),
    (
        "phase",
        ("NominalPercentageOfCardiacPhase",),
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ),
    ("trigger", ("TriggerTime",), ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")),
    ("stack", (), ("FrameContentSequence", "StackID")),
    ("acquisition", ("AcquisitionNumber",), ("FrameContentSequence", "FrameAcquisitionNumber")),
    ("time", ("AcquisitionTime",), ("FrameContentSequence", "FrameAcquisitionDateTime")),
)
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *(keyword for _, stated, _ in _APART for keyword in stated),
]
APART = tuple(name for name, *_ in _APART)
_NO_IMAGES = tuple("SEG RTSTRUCT RTPLAN RTDOSE RTRECORD RTIMAGE SR PR KO REG FID RWV DOC ANN M3D".split())
_PEEK = 4096  # bytes from which a foreign file is told
_DEFLATED = "1.2.840.10008.1.2.1.99"
_FRAMES_MOST = 1 << 16
_DEFLATED_MOST = 4 << 30  # bytes of one deflated file; a bomb is larger


@dataclass(frozen=True)
class Plane:
    """One image of a series: a file, or a frame of one.

    Args:
        file: where it lies; never to be shown, since people name files after patients.
        frame: its number in the file, from 0.
        instance: ``SOPInstanceUID`` of the file.
        order: ``InstanceNumber`` and frame, by which planes without positions are listed.
        size: columns and rows.
        position: ``ImagePositionPatient`` in mm, LPS; None where the header has none.
        orientation: ``ImageOrientationPatient``: unit vectors along the columns' and the rows' numbers; None likewise.
        edges: of a pixel along x and y, in mm (``PixelSpacing`` has them the other way round); None likewise.
        thickness: ``SpacingBetweenSlices`` or else ``SliceThickness`` in mm: for a single slice alone.
        apart: echo, time point and whatever else tells images at one place apart.
    """

    file: Path = field(repr=False)
    frame: int
    instance: str = field(repr=False)
    order: tuple[int, int]
    size: tuple[int, int]
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    edges: tuple[float, float] | None
    thickness: float | None
    apart: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Header:
    """The images of one file.

    Args:
        uid: ``SeriesInstanceUID``.
        modality: such as ``"CT"``.
        number: ``SeriesNumber``; None where there is none.
        description: ``SeriesDescription``, which people also write names into.
        planes: in the order of the file.
    """

    uid: str = field(repr=False)
    modality: str
    number: int | None
    description: str = field(repr=False)
    planes: tuple[Plane, ...]


def require_pydicom() -> None:
    """See that pydicom is there.

    Raises:
        InputError: when it is not.
    """
    if not has_pydicom:
        came, rule = "the package pydicom is not installed", "DICOM files are read with it"
        raise InputError(problem(came, rule, 'run: pip install "volseg[dicom]"'))


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of pydicom, shown or logged: they quote what a header holds, names of patients among it."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_header(path: Path) -> Header | None:
    """The header of a file with images of a patient.

    Args:
        path: any file.

    Returns:
        None for a foreign file, and for objects that are no images (SEG, RTSTRUCT, SR, PR, ...).

    Raises:
        InputError: a DICOM file that can not be read; without its path, and without what it holds.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(_PEEK)
        if not _is_dicom(start):
            return None
        if _is_deflated(path, start):
            _check_deflated(path)
        with quiet():
            return _header(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True), path)
    except Exception as error:  # a damaged file raises whatever the damage leads to
        came = f"a DICOM file can not be read ({type(error).__name__})"
        raise InputError(problem(came, "files must be whole", "fetch the series anew")) from None


def _is_dicom(start: bytes) -> bool:
    """Whether a file begins as DICOM: with the preamble, or, as old archives wrote it, at once with group 2 or 8."""
    if start[128:132] == b"DICM":
        return True
    return start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00" and len(start) > 132


def _is_deflated(path: Path, start: bytes) -> bool:
    """Whether the data set is deflated; file meta information may be of any length."""
    if start[128:132] == b"DICM":
        with quiet():
            return pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED
    return start[:2] == b"\x02\x00" and _DEFLATED.encode() in path.read_bytes()


def _check_deflated(path: Path) -> None:
    """See that a deflated data set stays below `_DEFLATED_MOST`, since pydicom inflates it whole."""
    with open(path, "rb") as stream:
        # read to where pydicom will begin: what the header says of its own length may lead elsewhere
        pydicom.filereader.read_preamble(stream, force=True)
        pydicom.filereader._read_file_meta_info(stream)
        inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while block := inflater.unconsumed_tail or stream.read(1 << 16):
            total += len(inflater.decompress(block, 1 << 24))
            if total > _DEFLATED_MOST:
                raise OverflowError


def _header(dataset: Any, path: Path) -> Header | None:
    modality = str(dataset.get("Modality") or "").upper()
    kind, uid = (str(dataset.get(keyword) or "") for keyword in ("SOPClassUID", "SeriesInstanceUID"))
    kind = kind or str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    size = (int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0))
    if modality in _NO_IMAGES:
        return None
    if min(size) <= 0 or not uid:
        if "Image Storage" in pydicom.uid.UID(kind).name or not kind:
            raise ValueError
        return None
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > _FRAMES_MOST:
        raise OverflowError
    planes = tuple(
        _plane(dataset, path, frame, size, (groups[frame] if frame < len(groups) else None, shared))
        for frame in range(frames)
    )
    number = dataset.get("SeriesNumber")
    return Header(
        uid=uid,
        modality=modality if modality.isalnum() and len(modality) <= 16 else "OT",
        number=None if number is None else int(number),
        description=str(dataset.get("SeriesDescription") or ""),
        planes=planes,
    )


def _plane(dataset: Any, path: Path, frame: int, size: tuple[int, int], groups: tuple[Any, Any]) -> Plane:
    several = int(dataset.get("NumberOfFrames") or 1) > 1
    # what the top of a file of several frames says of a position would be that of one frame
    top = None if several else dataset
    position = _floats(_find(groups, ("PlanePositionSequence", "ImagePositionPatient"), top), 3)
    orientation = _floats(_find(groups, ("PlaneOrientationSequence", "ImageOrientationPatient"), dataset), 6)
    spacing = _floats(_find(groups, ("PixelMeasuresSequence", "PixelSpacing"), dataset), 2)
    thickness = [
        _floats(_find(groups, ("PixelMeasuresSequence", keyword), dataset), 1)
        for keyword in ("SpacingBetweenSlices", "SliceThickness")
    ]
    apart = {}
    for name, stated, grouped in _APART:
        value = _find(groups, grouped, None) if grouped else None
        if value is None and stated:
            value = dataset.get(stated[0])
        if value is not None:
            apart[name] = str(value)
    return Plane(
        file=path,
        frame=frame,
        instance=str(dataset.get("SOPInstanceUID") or ""),
        order=(int(dataset.get("InstanceNumber") or 0), frame),
        size=size,
        position=position,
        orientation=orientation,
        edges=spacing and (spacing[1], spacing[0]),
        thickness=next((one[0] for one in thickness if one and one[0] > 0), None),
        apart=apart,
    )


def _find(groups: tuple[Any, Any], path: tuple[str, ...], top: Any) -> Any:
    """A value of a frame: from its own functional groups, those that all frames share, or else the top of the file."""
    for item in groups:
        for keyword in path[:-1]:
            item = _first(item, keyword) if item is not None else None
        if item is not None and item.get(path[-1]) is not None:
            return item.get(path[-1])
    return None if top is None else top.get(path[-1])


def _first(dataset: Any, keyword: str) -> Any:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def _floats(value: Any, count: int) -> tuple[float, ...] | None:
    """Finite numbers of that count; None for anything else."""
    if value is None or value == "":
        return None
    values = [value] if count == 1 else list(value)
    numbers = tuple(float(one) for one in values)
    return numbers if len(numbers) == count and all(abs(one) < float("inf") for one in numbers) else None
