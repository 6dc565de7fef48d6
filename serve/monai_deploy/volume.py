"""Voxels and geometry of a DICOM series or a NIfTI file, as MONAI's readers give them: X Y Z and an affine in RAS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from found_series import Frame, Series, quiet
from pydicom.pixels import apply_rescale, pixel_array
from refused import Refused

_NEAR = 0.01  # mm; slices nearer than this lie at one place
_MISSING = 1.5  # usual distances of slices; beyond it one is missing
_OFF = 0.25  # of that distance, by which one may lie off the regular grid: positions are rounded
_TILT = 0.5  # degrees; less is rounding
_ANEW = "export the series from the scanner or the archive again, as original images"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """A volume and what lies where in it.

    Args:
        name: neutral, for logs and files.
        array: X Y Z or X Y Z C, float32.
        affine: 4 x 4, voxels to mm, RAS.
        frames: the slices in the order of Z; empty where there is no series.
    """

    name: str
    array: np.ndarray
    affine: np.ndarray
    frames: tuple[Frame, ...] = ()


def read_series(series: Series) -> Volume:
    """The volume of a series: by position and orientation of its slices, with the rescale of each.

    Args:
        series: from `found_series.find_series`.

    Raises:
        Refused: where slices are missing, sheared, or lie twice at one place or nobody knows where; without readable
            pixels; in colour; and for a CT that does not say how its values become Hounsfield units.
    """
    frames, affine = _geometry(series)
    array = np.empty((*series.size, len(frames)), np.float32)
    whole: tuple[Path, Any] | None = None
    for z, frame in enumerate(frames):
        if whole is None or whole[0] != frame.file:
            whole = (frame.file, _dataset(frame.file, series))
        array[..., z] = _values(whole[1], frame, series).T
    return Volume(series.name, array, affine, tuple(frames))


def read_nifti(path: Path) -> Volume:
    """The volume of a NIfTI file, with its affine.

    Raises:
        Refused: where it can not be read.
    """
    try:
        image = nib.load(path)
        array = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:
        raise Refused(
            f"the NIfTI file can not be read ({type(error).__name__})",
            "it must be a whole .nii or .nii.gz file",
            "write or copy it again",
        ) from None
    if array.ndim not in (3, 4):
        raise Refused(
            f"the NIfTI file has {array.ndim} axes", "a volume has X Y Z, or X Y Z and channels", "give one volume"
        )
    return Volume("volume", array, image.affine.astype(float))


def _geometry(series: Series) -> tuple[list[Frame], np.ndarray]:
    """The slices in order along their normal, and the affine."""
    unplaced = sum(None in (one.position, one.orientation, one.edges) for one in series.frames)
    if unplaced:
        raise Refused(
            f"{unplaced} of the {len(series.frames)} images of {series.name} do not say where they lie",
            "each needs ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
            _ANEW,
        )
    first = series.frames[0]
    if max(abs(a - b) for one in series.frames for a, b in zip(one.edges, first.edges)) > _NEAR / 10:
        raise Refused(
            f"the images of {series.name} have pixels of different sizes",
            "slices of a volume have pixels of one size",
            "give one reconstruction by itself",
        )
    x, y = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if max(abs(np.linalg.norm(x) - 1), abs(np.linalg.norm(y) - 1), abs(x @ y)) > 0.01 or min(first.edges) <= 0:
        raise Refused(
            f"the axes of {series.name} do not stand at right angles or have another length than 1",
            "ImageOrientationPatient holds two unit vectors at right angles",
            _ANEW,
        )
    normal = np.cross(x, y)
    normal /= np.linalg.norm(normal)
    frames = sorted(series.frames, key=lambda one: float(np.array(one.position) @ normal))
    places = np.array([one.position for one in frames])
    step = _step(places @ normal, series) if len(frames) > 1 else first.thickness
    if step is None:
        raise Refused(
            f"{series.name} is one slice of unknown thickness", "a single slice must state its thickness", _ANEW
        )
    _check_upright(places - places[0], np.stack([x, y, normal]), min(first.edges), series)
    affine = np.eye(4)
    affine[:3] = np.stack([x * first.edges[0], y * first.edges[1], normal * step, places[0]], axis=1)
    # rounded as NIfTI rounds it, so that the series and a NIfTI file made from it have one answer
    return frames, (_LPS_TO_RAS @ affine + 0.0).astype(np.float32).astype(float)


def _step(along: np.ndarray, series: Series) -> float:
    """The distance of slices in mm, where they lie evenly along their normal."""
    gaps = np.diff(along)
    if gaps.min() < _NEAR:
        raise Refused(
            f"{int((gaps < _NEAR).sum())} of the {len(along)} images of {series.name} lie where others do",
            "a volume has one image a place; several are echoes, time points or copies of it",
            "give one of them by itself",
        )
    usual = float(np.median(gaps))
    step = float(along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - along[0] - step * np.arange(len(along))).max()
    if gaps.max() > _MISSING * usual or off > _OFF * step:
        at = int(np.abs(gaps - usual).argmax())
        raise Refused(
            f"slices {at + 1} and {at + 2} of {series.name} are {gaps[at]:.3g} mm apart, most others {usual:.3g} mm",
            "slices of a volume lie evenly",
            "see whether images are missing from the folder, or give the series part by part",
        )
    return step


def _check_upright(places: np.ndarray, directions: np.ndarray, pixel: float, series: Series) -> None:
    """See that slices lie above each other: not sheared by a tilted gantry, not shifted.

    Args:
        places: Z x 3, of the first voxels, from that of the first slice, in mm.
        directions: 3 x 3, of x, y and the normal as rows.
        pixel: its shorter edge in mm.
        series: whose slices they are.
    """
    across, along = places @ directions[:2].T, places @ directions[2]
    angle = np.degrees(np.arctan2(np.linalg.norm(across[-1]), along[-1])) if len(places) > 1 else 0.0
    shift = np.abs(across - along[:, None] / max(along[-1], _NEAR) * across[-1]).max()
    if angle > _TILT or shift > max(pixel / 2, _NEAR):
        raise Refused(
            f"the slices of {series.name} are sheared by {angle:.1f} degrees (a tilted gantry)"
            if angle > _TILT
            else f"the slices of {series.name} are shifted sideways by up to {shift:.3g} mm",
            "slices of a volume lie straight above each other",
            "resample the series to slices at right angles, and give that",
        )


def _dataset(path: Path, series: Series) -> Any:
    with quiet():
        dataset = pydicom.dcmread(path)
    if "PixelData" not in dataset:
        raise Refused(
            f"an image of {series.name} has no pixels",
            "the whole of each file is needed, not its header alone",
            "export the series again, with pixel data",
        )
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise Refused(
            f"{series.name} is in colour", "images of one channel are expected", "give the original series, in grey"
        )
    return dataset


def _values(dataset: Any, frame: Frame, series: Series) -> np.ndarray:
    """Rows x columns of values in the unit of the modality."""
    several = int(dataset.get("NumberOfFrames") or 1) > 1
    try:
        with quiet():
            stored = pixel_array(dataset, index=frame.index if several else None)
    except Exception as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        raise Refused(
            f"the pixels of an image of {series.name} can not be read ({syntax.name}, {type(error).__name__})",
            "they must be whole, and there must be a decoder for how they are compressed",
            _decoder(syntax.name) if syntax.is_compressed else "copy the files again",
        ) from None
    if stored.shape != series.size[::-1]:
        raise Refused(
            f"an image of {series.name} has {stored.shape} pixels, and its header says {series.size[::-1]}",
            "both must agree",
            _ANEW,
        )
    if frame.rescale is not None:
        return stored * frame.rescale[0] + frame.rescale[1]
    if "RescaleSlope" not in dataset and "ModalityLUTSequence" not in dataset and series.modality == "CT":
        raise Refused(
            f"{series.name} is a CT without RescaleSlope and RescaleIntercept",
            "without them its values are no Hounsfield units",
            _ANEW,
        )
    return apply_rescale(stored, dataset)


def _decoder(syntax: str) -> str:
    package = "python-gdcm" if "JPEG" in syntax else "pylibjpeg[all]"
    return f"add a decoder to the environment (pip install {package}), or export the series uncompressed"


def nifti_files(folder: Path) -> Sequence[Path]:
    """The NIfTI files in a folder and below."""
    return sorted(path for path in folder.rglob("*") if path.name.endswith((".nii", ".nii.gz")) and path.is_file())
