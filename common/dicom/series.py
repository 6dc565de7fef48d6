"""The image series below a folder, split where one series holds several volumes, and the choice among them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..checks import InputError, problem
from .headers import APART, Header, Plane, read_header, require_pydicom
from .slices import SAME_PLACE, TURN

__all__ = ["Series", "choose_series", "find_series", "series_table"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Series:
    """Images that make one volume, in the order of the volume's third axis.

    Nothing of what identifies a patient is in its ``repr``; `name` is what logs, files and errors call it.

    Args:
        uid: ``SeriesInstanceUID``.
        files: in the order of their slices; one file where its frames are the slices.
        modality: such as ``"CT"`` or ``"MR"``.
        images: number of slices.
        shape: voxels along X Y Z.
        spacing: of voxels along X Y Z in mm, the last by the positions of the slices; 0 where the headers do not say.
        number: ``SeriesNumber``; None where there is none.
        description: ``SeriesDescription``, which may hold anything: for the eyes of the person who chooses alone.
        name: ``"series_"`` and 8 hexadecimal digits of the SHA-256 of `uid`; with ``_1``, ``_2``, ... where the images
            of one series make several volumes.
        planes: the slices one by one, as `files`.
    """

    uid: str = field(repr=False)
    files: tuple[Path, ...] = field(repr=False)
    modality: str
    images: int
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    number: int | None
    description: str = field(repr=False)
    name: str
    planes: tuple[Plane, ...] = field(repr=False)


def find_series(folder: str | os.PathLike[str]) -> list[Series]:
    """The image series in a folder and below, or in a single file of several frames.

    Foreign files, damaged ones (a warning counts them), ``DICOMDIR`` and objects without images of a patient (SEG,
    RTSTRUCT, SR, PR) are passed over; an image that is there twice is taken once. Images of one series that differ in
    direction or matrix, or lie at the same places and differ in echo, time point, diffusion weighting or kind, are
    series of their own.

    Args:
        folder: where to look; links to folders are not followed.

    Returns:
        what was found, by series number; an empty list where there is none.

    Raises:
        InputError: no such folder; pydicom is not installed.
    """
    require_pydicom()
    root = Path(folder)
    if not root.exists():
        came = "the place of the DICOM series does not exist"
        raise InputError(problem(came, "it must be a folder or a file", "check the path"))
    headers: dict[str, list[Header]] = defaultdict(list)
    damaged = 0
    for path in _files(root):
        try:
            header = read_header(path)
        except InputError:
            damaged += 1
            continue
        if header:
            headers[header.uid].append(header)
    if damaged:
        _logger.warning("%d DICOM files can not be read and were passed over; are slices missing?", damaged)
    found = [series for parts in headers.values() for series in _volumes(parts)]
    return sorted(found, key=lambda one: (one.number is None, one.number or 0, one.uid, len(one.name), one.name))


def choose_series(
    found: Sequence[Series],
    wanted: int | str | None = None,
    modality: str | Sequence[str] | None = None,
    ask: Callable[[str], str] | None = None,
) -> list[Series]:
    """Those of the series that were found which are to be taken.

    Args:
        found: by `find_series`.
        wanted: number in that list, from 1, or ``"all"``; None takes a series alone, or the only one of `modality`.
        modality: that the bundle expects, or several.
        ask: shows the table of series to a person and returns the number or ``"all"``; None where nobody can be asked.

    Raises:
        InputError: there is none, no such number, or several with nobody to choose.
    """
    if not found:
        raise InputError(
            problem(
                "no DICOM image series was found",
                "a series is files of CT, MR or other images with their pixels; SEG, RTSTRUCT, SR and PR are none",
                "name the folder, the zip or the file that holds the images",
            )
        )
    if wanted is not None and str(wanted).strip():
        return _wanted(found, str(wanted))
    if len(found) == 1:
        return list(found)
    kinds = {modality.upper()} if isinstance(modality, str) else {one.upper() for one in modality or ()}
    fitting = [one for one in found if one.modality in kinds]
    if len(fitting) == 1:
        return fitting
    if ask is not None:
        return _wanted(found, ask(series_table(found, descriptions=True)))
    raise InputError(
        problem(
            f"{len(found)} DICOM series were found",
            "one must be chosen",
            f"pass --series N, from 1 to {len(found)}, or --series all:\n{series_table(found)}",
        )
    )


def series_table(found: Iterable[Series], descriptions: bool = False) -> str:
    """The series one a line, numbered from 1: name, modality, voxels, mm, plane, number in the study.

    Args:
        found: by `find_series`.
        descriptions: say how the scanner's operator called each, too: for a person's eyes, not for logs.
    """
    lines = []
    for number, one in enumerate(found, start=1):
        voxels, edges = (
            "x".join(map(str, one.shape)),
            " x ".join(f"{edge:.3g}" if edge else "?" for edge in one.spacing),
        )
        line = f"  {number:>3}  {one.name}  {one.modality:<3} {voxels:>13} voxels of {edges} mm, {_direction(one)}"
        line += "" if one.number is None else f", number {one.number} of its study"
        if descriptions and (told := "".join(c for c in one.description if c.isprintable()).strip()):
            line += f": {told[:64]}"
        lines.append(line)
    return "\n".join(lines)


def _files(root: Path) -> Iterable[Path]:
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file():
                yield path


def _volumes(headers: Sequence[Header]) -> list[Series]:
    """The volumes of one series."""
    first = headers[0]
    planes = {(one.instance, one.frame, one.position): one for header in reversed(headers) for one in header.planes}
    parts = [part for alike in _alike(list(planes.values())) for part in _apart(alike)]
    parts.sort(key=lambda part: min((one.order, one.position or ()) for one in part))
    name = f"series_{hashlib.sha256(first.uid.encode()).hexdigest()[:8]}"
    made = []
    for number, part in enumerate(parts, start=1):
        ordered, step = _ordered(part)
        edges = ordered[0].edges or (0.0, 0.0)
        made.append(
            Series(
                uid=first.uid,
                files=tuple(dict.fromkeys(one.file for one in ordered)),
                modality=first.modality,
                images=len(ordered),
                shape=(*ordered[0].size, len(ordered)),
                spacing=(*edges, step),
                number=first.number,
                description=first.description,
                name=name if len(parts) == 1 else f"{name}_{number}",
                planes=tuple(ordered),
            )
        )
    return made


def _alike(planes: list[Plane]) -> list[list[Plane]]:
    """Planes of one matrix and one direction together."""
    groups: list[list[Plane]] = []
    for plane in planes:
        for group in groups:
            if plane.size == group[0].size and _parallel(plane.orientation, group[0].orientation):
                group.append(plane)
                break
        else:
            groups.append([plane])
    return groups


def _parallel(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= TURN


def _apart(planes: list[Plane]) -> list[list[Plane]]:
    """Planes at the same places apart by what their headers say that differs, if it tells all of them apart.

    A tag counts where its values share the images at each place out among them: of 2 echoes and 5 time points there are
    10 images at each place, and the echo leaves 5 in each of 2 groups. A time of day for each slice would make as many
    groups as slices, and is no time point. What can not be told apart stays together, for the reader to refuse.
    """
    most = _most(planes)
    if most == 1:
        return [planes]
    for name in APART:
        groups: dict[str | None, list[Plane]] = defaultdict(list)
        for plane in planes:
            groups[plane.apart.get(name)].append(plane)
        if len(groups) > 1 and len(groups) * max(map(_most, groups.values())) <= most:
            return [part for group in groups.values() for part in _apart(group)]
    return [planes]


def _most(planes: Sequence[Plane]) -> int:
    """The most planes that lie at one place along their normal; 1 where the headers do not say."""
    along = _along(planes)
    if along is None:
        return 1
    starts = np.flatnonzero(np.diff(np.sort(along), prepend=-np.inf) >= SAME_PLACE)
    return int(np.diff(starts, append=len(planes)).max())


def _along(planes: Sequence[Plane]) -> np.ndarray | None:
    """Where planes lie along the normal of the first, in mm; None where a header does not say."""
    first = planes[0].orientation
    if first is None or any(one.position is None for one in planes):
        return None
    return np.array([one.position for one in planes]) @ np.cross(first[:3], first[3:])


def _ordered(planes: list[Plane]) -> tuple[list[Plane], float]:
    """Planes along the normal of the first, and the usual distance in mm (0 where unknown)."""
    along = _along(planes)
    if along is None:
        return sorted(planes, key=lambda one: one.order), 0.0
    order = sorted(range(len(planes)), key=lambda at: (along[at], planes[at].order))
    ordered = [planes[at] for at in order]
    step = float(np.median(np.diff(along[order]))) if len(planes) > 1 else planes[0].thickness or 0.0
    return ordered, round(step, 6)


def _direction(series: Series) -> str:
    """Which way the slices lie."""
    if series.planes[0].orientation is None:
        return "of unknown direction"
    normal = np.abs(np.cross(series.planes[0].orientation[:3], series.planes[0].orientation[3:]))
    axis = int(normal.argmax())
    return ("sagittal", "coronal", "axial")[axis] if normal[axis] > 0.9 else "oblique"


def _wanted(found: Sequence[Series], text: str) -> list[Series]:
    word = text.strip().lower()
    if word == "all":
        return list(found)
    if word.isdecimal() and 1 <= int(word) <= len(found):
        return [found[int(word) - 1]]
    raise InputError(
        problem(
            f"series {text.strip()[:20]!r} was asked for, and {len(found)} were found",
            f"it must be a number from 1 to {len(found)}, or all",
            f"choose of this list:\n{series_table(found)}",
        )
    )
