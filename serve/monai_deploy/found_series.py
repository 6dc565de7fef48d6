"""The image series of a folder, from headers alone, and the choice of the one that a bundle expects."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from refused import Refused

_TAGS = [
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "Modality",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SeriesInstanceUID",
    "SharedFunctionalGroupsSequence",
    "SliceThickness",
    "SOPInstanceUID",
    "SpacingBetweenSlices",
]
_WITHOUT_IMAGES = {"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTIMAGE", "SR", "PR", "KO", "REG", "FID", "RWV", "DOC"}
_DEFLATED = pydicom.uid.DeflatedExplicitVRLittleEndian
_TURN = 1e-3  # of direction cosines; beyond it images do not lie in one direction


@dataclass(frozen=True)
class Frame:
    """One slice: a file, or a frame of one.

    Args:
        file: where it lies; never to be shown, since people name files after patients.
        index: its number in the file, from 0.
        position: of the first voxel's centre in mm, LPS; None where the header has none.
        orientation: unit vectors along the columns' and the rows' numbers; None likewise.
        edges: of a voxel along x and y in mm; None likewise.
        thickness: distance of slices or else their thickness in mm, for a single slice alone.
        rescale: slope and intercept of its own functional groups; None where the file's top has them, or nothing.
    """

    file: Path = field(repr=False)
    index: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    edges: tuple[float, float] | None
    thickness: float | None
    rescale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Series:
    """Images of one series that agree in direction and matrix.

    Args:
        uid: ``SeriesInstanceUID``; never to be shown.
        name: ``series_`` and 8 hexadecimal digits of the SHA-256 of `uid`, with ``_1``, ``_2`` where the images of one
            series make several volumes: what logs and files call it.
        modality: such as ``CT``.
        size: columns and rows.
        localiser: whether it is a scanner's overview.
        frames: in no order that means something.
    """

    uid: str = field(repr=False)
    name: str
    modality: str
    size: tuple[int, int]
    localiser: bool
    frames: tuple[Frame, ...] = field(repr=False)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of pydicom, which quote what a header holds, names of patients among it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def find_series(folder: Path) -> list[Series]:
    """The image series in a folder and below; other files, damaged ones among them, are passed over.

    Raises:
        Refused: when there is none.
    """
    groups: dict[tuple, list[tuple[Any, Path]]] = defaultdict(list)
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if name.upper() != "DICOMDIR" and (header := _header(path)) is not None:
                groups[_kind(header)].append((header, path))
    by_uid: dict[str, list[list[tuple[Any, Path]]]] = defaultdict(list)
    for (uid, *_), members in groups.items():
        by_uid[uid].append(members)
    found = []
    for uid, parts in by_uid.items():
        parts.sort(key=lambda members: min(int(header.get("InstanceNumber") or 0) for header, _ in members))
        found += [_series(uid, members, f"_{n}" if len(parts) > 1 else "") for n, members in enumerate(parts, 1)]
    if not found:
        raise Refused(
            "no DICOM image series was found in the input folder",
            "it must hold the files of a CT, MR or other series with pixels, and SEG, RTSTRUCT, SR and PR are none",
            "put the files of a series into the folder, or name another with --input",
        )
    return sorted(found, key=lambda one: one.name)


def choose_series(found: Sequence[Series], modalities: Sequence[str], wanted: str = "") -> Series:
    """The series that the bundle is to see.

    Args:
        found: by `find_series`.
        modalities: that the bundle expects; empty for any.
        wanted: name of one of `found`; empty to take the only one that fits, overviews apart.

    Raises:
        Refused: for an unknown name, and where none or several fit.
    """
    if wanted and wanted not in {one.name for one in found}:
        raise Refused(
            f"the series that was asked for is not among those found:\n{_table(found)}\n",
            "it is named as in this list",
            f"pass --series NAME, such as {found[0].name}",
        )
    asked = [one for one in found if wanted in ("", one.name)]
    fitting = [one for one in asked if not modalities or one.modality in modalities]
    if not fitting:
        raise Refused(
            f"no series fits the bundle among those found:\n{_table(asked)}\n",
            f"it expects {' or '.join(modalities)}",
            "give it such a series, or use the bundle that is made for this one",
        )
    if len(fitting) > 1:
        fitting = [one for one in fitting if not one.localiser] or fitting
    if len(fitting) > 1:
        raise Refused(
            f"{len(fitting)} series fit the bundle:\n{_table(fitting)}\n",
            "one answer is given, for one series",
            f"pass --series NAME, such as {fitting[0].name}",
        )
    return fitting[0]


def _table(found: Sequence[Series]) -> str:
    return "\n".join(
        f"  {one.name}  {one.modality}, {len(one.frames)} images of {one.size[0]} x {one.size[1]}"
        + (", overview" if one.localiser else "")
        for one in found
    )


def _header(path: Path) -> Any:
    """Header of a file with an image; None for all else, however it is damaged."""
    try:
        with quiet():
            # a data set that is deflated as a whole is inflated at once, to whatever size; images are not kept so
            if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
                return None
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            whole = header.get("SeriesInstanceUID") and int(header.get("Rows") or 0) and int(header.get("Columns") or 0)
            return header if whole and str(header.get("Modality") or "").upper() not in _WITHOUT_IMAGES else None
    except Exception:  # a damaged file raises whatever the damage leads to, and may quote what it holds
        return None


def _kind(header: Any) -> tuple:
    """What images of one volume have in common."""
    orientation = _orientation(header, ())
    turned = None if orientation is None else tuple(round(value / (2 * _TURN)) for value in orientation)
    several = header.SOPInstanceUID if int(header.get("NumberOfFrames") or 1) > 1 else None
    return str(header.SeriesInstanceUID), int(header.Columns), int(header.Rows), turned, several


def _series(uid: str, members: Sequence[tuple[Any, Path]], suffix: str) -> Series:
    first = members[0][0]
    frames: dict[tuple, Frame] = {}
    for header, path in members:  # an image that is there twice is taken once
        for index in range(int(header.get("NumberOfFrames") or 1)):
            frames.setdefault((str(header.get("SOPInstanceUID")), index), _frame(header, path, index))
    modality = str(first.get("Modality") or "").upper()
    return Series(
        uid=uid,
        name=f"series_{hashlib.sha256(uid.encode()).hexdigest()[:8]}{suffix}",
        modality=modality if modality.isalnum() and len(modality) <= 16 else "OT",
        size=(int(first.Columns), int(first.Rows)),
        localiser="LOCALIZER" in [str(word).upper() for word in first.get("ImageType") or ()],
        frames=tuple(frames.values()),
    )


def _frame(header: Any, path: Path, index: int) -> Frame:
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    own = (per_frame[index],) if index < len(per_frame) else ()
    several = int(header.get("NumberOfFrames") or 1) > 1
    position = _in_groups(own, "PlanePositionSequence", "ImagePositionPatient")
    if position is None and not several:
        position = header.get("ImagePositionPatient")
    groups = (*own, *(header.get("SharedFunctionalGroupsSequence") or ())[:1])
    spacing = _numbers(_value(header, groups, "PixelMeasuresSequence", "PixelSpacing"), 2)
    thick = [
        _numbers([_value(header, groups, "PixelMeasuresSequence", keyword)], 1)
        for keyword in ("SpacingBetweenSlices", "SliceThickness")
    ]
    rescale = [
        _in_groups(groups, "PixelValueTransformationSequence", f"Rescale{word}") for word in ("Slope", "Intercept")
    ]
    return Frame(
        file=path,
        index=index,
        position=_numbers(position, 3),
        orientation=_orientation(header, groups),
        edges=spacing and (spacing[1], spacing[0]),  # PixelSpacing is that of rows, then that of columns
        thickness=next((one[0] for one in thick if one and one[0] > 0), None),
        rescale=_numbers(rescale, 2),
    )


def _orientation(header: Any, groups: Sequence[Any]) -> tuple[float, ...] | None:
    return _numbers(_value(header, groups, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)


def _value(header: Any, groups: Sequence[Any], sequence: str, keyword: str) -> Any:
    found = _in_groups(groups, sequence, keyword)
    return header.get(keyword) if found is None else found


def _in_groups(groups: Sequence[Any], sequence: str, keyword: str) -> Any:
    for group in groups:
        if group.get(sequence) and group.get(sequence)[0].get(keyword) is not None:
            return group.get(sequence)[0].get(keyword)
    return None


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    """Finite numbers of that count; None for anything else."""
    if not values or any(value is None or value == "" for value in values):
        return None
    numbers = tuple(float(value) for value in values)
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None
