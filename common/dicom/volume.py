"""The volume of a DICOM series, on the grid that the positions and directions of its slices state."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.utils import optional_import

from ..checks import InputError, problem
from ..files import atomic_path
from .headers import Plane, quiet, require_pydicom
from .series import Series
from .slices import (
    SliceFault,
    check_directions,
    check_edges,
    check_sizes,
    check_steps,
    check_straight,
    check_tilt,
    fits_int16,
    ras_affine,
    size_text,
)

pydicom, _ = optional_import("pydicom")
pixels, _ = optional_import("pydicom.pixels")

__all__ = ["SeriesVolume", "read_series", "stage_series"]

_ANEW = "export the series anew from where it was recorded"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_DEFERRED = 1 << 23  # bytes: pixels of many frames are not read at once
_DECODERS = {
    ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"): "pylibjpeg pylibjpeg-libjpeg",
    ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"): "pylibjpeg pylibjpeg-libjpeg",
    ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"): "pyjpegls",
    ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"): "pylibjpeg pylibjpeg-openjpeg",
    tuple(f"1.2.840.10008.1.2.4.20{number}" for number in (1, 2, 3)): "pylibjpeg pylibjpeg-openjpeg",
}


@dataclass(frozen=True)
class SeriesVolume:
    """A volume as its series holds it: nothing is turned, cut or resampled.

    Args:
        array: X Y Z: columns, rows, and slices ascending along the normal (the cross product of the directions of x and
            y); int16 where all values are whole numbers that fit, else float32; HU for CT.
        affine: 4x4, voxels to mm in RAS.
        modality: such as ``"CT"``.
    """

    array: np.ndarray = field(repr=False)
    affine: np.ndarray
    modality: str


def read_series(series: Series) -> SeriesVolume:
    """Read the voxels of a series.

    Where slices lie follows from ``ImagePositionPatient`` and ``ImageOrientationPatient`` alone; the thickness of
    slices counts for a single one. Values are rescaled by the slope and intercept of each slice.

    Args:
        series: of single images or of frames of Enhanced CT and MR, by `find_series`.

    Returns:
        the volume, its third axis in the order of ``series.planes``.

    Raises:
        InputError: naming the series by its neutral name: slices that are missing, repeated, unevenly spaced, of
            several sizes, sheared or shifted; without position, pixels or scale; in colour; compressed in a way for
            which no decoder is installed; damaged.
    """
    require_pydicom()
    try:
        with quiet():
            affine = _affine(series.planes)
            array = _values(series)
    except SliceFault as fault:
        # without the cause, whose text may quote a header or a path
        raise InputError(
            problem(f"{series.name} can not be used because {fault.came}", fault.rule, fault.remedy)
        ) from None
    return SeriesVolume(array, affine, series.modality)


def stage_series(series: Series, folder: str | os.PathLike[str]) -> Path:
    """Write a series as a NIfTI file under its neutral name, whole or not at all; the same bytes every time.

    The header states mm, the affine as qform and sform (scanner), and the modality as its description
    (``modality=CT``); nothing else of the DICOM headers goes into it.

    Args:
        series: by `find_series`.
        folder: made where there is none.

    Returns:
        ``folder/NAME.nii.gz``.

    Raises:
        InputError: as `read_series`; a folder that can not be written to.
    """
    volume = read_series(series)
    image = nibabel.Nifti1Image(volume.array, volume.affine, dtype=volume.array.dtype)
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"modality={volume.modality}".encode()
    path = Path(folder) / f"{series.name}.nii.gz"
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)
    return path


def _affine(planes: Sequence[Plane]) -> np.ndarray:
    """The affine by the headers, after these were found to be those of a volume."""
    check_sizes([plane.size[::-1] for plane in planes])
    for keyword, values in (
        ("ImagePositionPatient", [plane.position for plane in planes]),
        ("ImageOrientationPatient", [plane.orientation for plane in planes]),
    ):
        if lacking := sum(value is None for value in values):
            raise SliceFault(
                f"{lacking} of its {len(planes)} images have no {keyword}", "it says where each image lies", _ANEW
            )
    check_edges([plane.edges for plane in planes])
    directions = check_directions([plane.orientation for plane in planes])
    places = np.array([plane.position for plane in planes])
    if len(planes) == 1:
        step = planes[0].thickness
        if step is None:
            raise SliceFault("it is one slice of unknown thickness", "a single slice must state its thickness", _ANEW)
    else:
        step = check_steps(places @ directions[2])
        check_tilt(places, directions)
        check_straight(places, directions, min(planes[0].edges))
    return ras_affine(places[0], directions, (*planes[0].edges, step))


def _values(series: Series) -> np.ndarray:
    """The volume X Y Z, rescaled."""
    planes, volume, scaled = series.planes, None, []
    numbers = sorted(range(len(planes)), key=lambda number: (planes[number].file, planes[number].frame))
    for _, held in itertools.groupby(numbers, lambda number: planes[number].file):
        held = list(held)
        for number, (values, has_scale) in zip(held, _frames(series, held), strict=True):
            if volume is None:  # not before one slice was there: a header can claim any size
                volume = np.empty((*planes[0].size, len(planes)), np.int16, order="F")
            if volume.dtype == np.int16 and not fits_int16(values):
                volume = volume.astype(np.float32, order="F")
            volume[..., number] = values.T
            scaled.append(has_scale)
    lacking, is_ct = scaled.count(False), series.modality == "CT"
    if lacking and (is_ct or any(scaled)):
        raise SliceFault(
            f"{lacking} of its {len(planes)} slices have no rescale slope and intercept",
            f"{'a CT' if is_ct else 'a series'} states by them, for all slices, what its stored values mean",
            _ANEW,
        )
    return volume


def _frames(series: Series, numbers: Sequence[int]) -> Iterator[tuple[np.ndarray, bool]]:
    """Values (rows, columns) of the slices with these numbers, all of one file, and whether they have a scale."""
    planes = [series.planes[number] for number in numbers]
    where = f"slice {numbers[0] + 1} of {series.images}"
    damaged = "files must be whole"
    try:
        dataset = pydicom.dcmread(planes[0].file, force=True, defer_size=_DEFERRED)
        source = _pixel_source(dataset, planes[0].file, where)
        stored_frames = pixels.iter_pixels(source, indices=[plane.frame for plane in planes])
        for plane, stored in zip(planes, stored_frames, strict=True):
            if stored.shape != plane.size[::-1]:
                came = (
                    f"{where} has {size_text(stored.shape)} pixels, not the {size_text(plane.size[::-1])} it had before"
                )
                raise SliceFault(came, "files must stay as they are while they are read", "start again")
            yield _rescaled(stored, dataset, plane.frame, where)
    except (SliceFault, MemoryError):
        raise
    except Exception as error:  # a damaged file raises whatever the damage leads to
        raise SliceFault(f"the pixels of {where} can not be read ({type(error).__name__})", damaged, _ANEW) from None


def _pixel_source(dataset: Any, file: Path, where: str) -> Any:
    """What to decode: the data set, or the file where it holds several frames, which are then read one by one.

    Raises:
        SliceFault: no pixels, colours, a transfer syntax that can not be decoded here.
    """
    if not any(keyword in dataset for keyword in _PIXELS):
        raise SliceFault(
            f"{where} has no pixel data", "every image needs its pixels", "fetch the series with its pixels"
        )
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or "PALETTE" in str(dataset.get("PhotometricInterpretation")):
        raise SliceFault(f"{where} is in colour", "a voxel is one grey value", "choose a series of grey values")
    if syntax := dataset.file_meta.get("TransferSyntaxUID"):
        _check_decoder(syntax, where)
        return file if int(dataset.get("NumberOfFrames") or 1) > 1 else dataset
    # files of old archives begin without saying how they are written, and pydicom has found that out
    implicit, little = dataset.original_encoding
    names = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, names.get((implicit, little), "ExplicitVRBigEndian"))
    return dataset


def _check_decoder(syntax: Any, where: str) -> None:
    try:
        available = pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if available:
        return
    kind = "a private transfer syntax" if syntax.is_private else f"'{pydicom.uid.UID(syntax).name}'"
    packages = next((names for known, names in _DECODERS.items() if syntax in known), None)
    unpacked = "export the series uncompressed (Explicit VR Little Endian)"
    raise SliceFault(
        f"{where} is compressed as {kind}, for which no decoder is installed",
        "its pixels must be decoded",
        f"run: pip install {packages}; or {unpacked}" if packages else unpacked,
    )


def _rescaled(stored: np.ndarray, dataset: Any, frame: int, where: str) -> tuple[np.ndarray, bool]:
    """Values by the scale of a frame's own functional groups, those that all frames share, or the file's, if any."""
    holders = [dataset]
    for keyword, number in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
        groups = dataset.get(keyword)
        if groups and len(groups) > number and groups[number].get("PixelValueTransformationSequence"):
            holders.insert(0, groups[number].PixelValueTransformationSequence[0])
    for holder in holders:
        if holder.get("ModalityLUTSequence"):
            return pixels.apply_modality_lut(stored, holder), True
        scale = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
        if None not in scale:
            slope, intercept = map(float, scale)
            if not (np.isfinite([slope, intercept]).all() and slope):
                raise SliceFault(f"{where} has a rescale slope of {slope:g}", "it must be a number other than 0", _ANEW)
            return stored * slope + intercept, True
    return stored, False
