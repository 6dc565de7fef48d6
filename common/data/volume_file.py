"""One volume of a user's, in whatever format it came, and answers written on its grid in the same format."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.transforms import LoadImage
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ..checks import InputError, problem
from ..files import atomic_path
from .convert.placing import grid_header
from .faults import file_fault
from .volume_hdf5 import HDF5_SUFFIXES, IMAGE_KEYS, read_hdf5, write_hdf5
from .volume_tiff import TIFF_SUFFIXES, read_tiff, write_tiff
from .volume_world import WORLD_SUFFIXES, write_world

__all__ = ["VolumeFile", "check_finite", "parse_spacing", "read_volume", "write_like"]

_NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class VolumeFile:
    """A volume as it lies in its file, with what says where its voxels are.

    Args:
        path: the file (or the folder of a DICOM series).
        array: X Y Z, or X Y Z C where it has channels, in the file's own order of voxels and in its dtype, bytes in the
            machine's order.
        affine: 4x4, voxels to RAS in `unit`; only scales where the file states nothing but edges.
        unit: ``"mm"``, ``"micron"``, ``"meter"`` or ``"unknown"``.
        form: ``"nifti"``, ``"tiff"``, ``"hdf5"`` or ``"world"`` (NRRD, MetaImage, DICOM).
        placed: whether the file states where in the world its voxels lie, so that another file's can be found by it.
        notes: what was taken for granted in reading it, one sentence each.
        header: of a NIfTI file.
    """

    path: Path
    array: np.ndarray
    affine: np.ndarray
    unit: str
    form: str
    placed: bool = True
    notes: tuple[str, ...] = ()
    header: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # torch knows no other order of bytes
        native = self.array.astype(self.array.dtype.newbyteorder("="), copy=False)
        object.__setattr__(self, "array", native)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X Y Z."""
        return self.array.shape[:3]  # type: ignore[return-value]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.array.shape[3] if self.array.ndim == 4 else 1

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edges of a voxel along X Y Z, in `unit`."""
        return tuple(float(edge) for edge in np.linalg.norm(self.affine[:3, :3], axis=0))  # type: ignore[return-value]

    @property
    def suffix(self) -> str:
        """The ending of the files that `write_like` makes for it."""
        name = self.path.name.lower()
        if self.form == "nifti":
            return ".nii" if name.endswith(".nii") else ".nii.gz"
        if self.form == "world":
            return WORLD_SUFFIXES.get(self.path.suffix.lower(), ".nii.gz")
        return {"tiff": ".tif", "hdf5": ".h5"}[self.form]


def read_volume(
    path: str | os.PathLike[str],
    spacing: Sequence[float] | str | None = None,
    key: str | None = None,
    prefer: Sequence[str] = IMAGE_KEYS,
) -> VolumeFile:
    """Read a volume: NIfTI, TIFF (ImageJ, OME or plain), HDF5; with a reader installed NRRD, MetaImage and DICOM.

    Nothing is turned or resampled. Files that count their axes backwards (TIFF and HDF5: Z Y X) come as X Y Z.

    Args:
        path: the file, or the folder of one DICOM series.
        spacing: edges of a voxel along X Y Z, for TIFF and HDF5 files: instead of what they state.
        key: data set of an HDF5 file.
        prefer: names by which a data set is chosen where the file has several and `key` is None.

    Returns:
        the volume; a file of two axes comes as X Y 1.

    Raises:
        InputError: no such file, a damaged or foreign one, one that holds no volume, a missing reader.
    """
    source = Path(path).expanduser()
    edges = parse_spacing(spacing)
    name = source.name.lower()
    if not source.is_dir() and (fault := file_fault(source)):
        raise InputError(fault)
    if name.endswith(TIFF_SUFFIXES):
        array, stated, unit, notes = read_tiff(source, edges)
        return VolumeFile(source, array, _scaling(stated), unit, "tiff", False, tuple(notes))
    if name.endswith(HDF5_SUFFIXES):
        array, stated, unit, notes = read_hdf5(source, edges, key, prefer)
        return VolumeFile(source, array, _scaling(stated), unit, "hdf5", False, tuple(notes))
    if edges is not None:
        raise InputError(
            problem(
                f"spacing {edges} was given and '{source.name}' states its own",
                "it can be given for TIFF and HDF5 files alone",
                "leave it out, or mend the file's header",
            )
        )
    return _read_nifti(source) if name.endswith(_NIFTI) else _read_world(source)


def check_finite(volume: VolumeFile) -> None:
    """Refuse an image that holds values which are no numbers.

    Raises:
        InputError: naming how many, and the first.
    """
    faults, first = 0, None
    for x, plane in enumerate(volume.array if volume.array.dtype.kind in "fc" else ()):
        if not (good := np.isfinite(plane)).all():
            faults += int((~good).sum())
            first = first or (x, *(int(index) for index in np.argwhere(~good)[0]))
    if faults:
        raise InputError(
            problem(
                f"'{volume.path.name}' holds {faults} values that are NaN or infinite, the first at {first}",
                "every value must be finite",
                "replace them, by the value of empty space, and give the mended file",
            )
        )


def write_like(volume: VolumeFile, path: str | os.PathLike[str], array: np.ndarray, name: str = "label") -> Path:
    """Write an answer on a volume's grid, in its format, whole or not at all.

    NIfTI: the header's grid, unit and codes. TIFF: an ImageJ stack of Z Y X with its voxel edges where the dtype is one
    that ImageJ knows. HDF5: data set `name`, Z Y X. NRRD and MetaImage: the affine; a DICOM series gets a ``.nii.gz``.

    Args:
        volume: whose grid it is.
        path: the file, which ends in ``volume.suffix``.
        array: X Y Z, of the volume's shape; kept in its dtype.
        name: of the data set in an HDF5 file.

    Returns:
        the path.

    Raises:
        InputError: another shape, another ending, a place that can not be written to.
    """
    target = Path(path)
    if tuple(array.shape) != tuple(volume.shape):
        raise InputError(
            problem(
                f"'{target.name}' would have shape {tuple(array.shape)}",
                f"it must have the shape of '{volume.path.name}', {tuple(volume.shape)}",
                "bring it to that grid first",
            )
        )
    if not target.name.lower().endswith(volume.suffix):
        raise InputError(
            problem(
                f"'{target.name}' does not end in {volume.suffix}",
                f"what belongs to '{volume.path.name}' is written in its format",
                f"name it {target.name.split('.')[0]}{volume.suffix}",
            )
        )
    with atomic_path(target) as temporary:
        if volume.form == "tiff":
            write_tiff(temporary, array, volume.spacing, volume.unit)
        elif volume.form == "hdf5":
            write_hdf5(temporary, array, name, volume.spacing, volume.unit)
        elif volume.suffix in WORLD_SUFFIXES.values():
            write_world(temporary, array, volume.affine)
        else:
            nibabel.save(_on_grid(volume, array), temporary)
    return target


def parse_spacing(value: Sequence[float] | str | None) -> tuple[float, float, float] | None:
    """Edges of a voxel along X Y Z from numbers or text; None stays None.

    Raises:
        InputError: for anything but three positive numbers.

    >>> parse_spacing("0.1,0.1,0.3")
    (0.1, 0.1, 0.3)
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null")):
        return None
    parts = value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value
    try:
        edges = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        edges = ()
    if len(edges) != 3 or not np.all(np.isfinite(edges)) or min(edges) <= 0:
        raise InputError(
            problem(
                f"spacing is {value!r}",
                "it must be three positive numbers, the edges of a voxel along x, y and z",
                "pass for example --spacing 0.1,0.1,0.3",
            )
        )
    return edges  # type: ignore[return-value]


def _read_nifti(path: Path) -> VolumeFile:
    try:
        image = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise InputError(_unreadable(path, error)) from error
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    header = image.header
    stated = bool(header["sform_code"] or header["qform_code"]) if "sform_code" in header else True
    notes = () if stated else (f"'{path.name}' states no place in the world (sform and qform codes are 0).",)
    unit = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else "unknown"
    return VolumeFile(
        path, _axes(array, path), np.asarray(image.affine, float), unit, "nifti", stated, notes, header.copy()
    )


def _read_world(path: Path) -> VolumeFile:
    """What MONAI reads otherwise, channels last."""
    if not path.is_dir() and path.suffix.lower() not in WORLD_SUFFIXES and path.suffix.lower() not in (".dcm", ".ima"):
        raise InputError(
            problem(
                f"'{path.name}' is in a format that is not read here",
                "volumes are NIfTI, TIFF, HDF5, NRRD, MetaImage or DICOM",
                "save it in one of these",
            )
        )
    try:
        image = LoadImage(image_only=True, ensure_channel_first=True, dtype=None)(str(path))
    except Exception as error:  # each reader has errors of its own
        raise InputError(
            problem(
                f"'{path.name}' can not be read ({_first_line(error)})",
                "NRRD needs pynrrd or ITK, MetaImage needs ITK, DICOM needs pydicom or ITK, and a whole file",
                "run pip install 'volseg[itk]', or save it as NIfTI",
            )
        ) from error
    array = np.moveaxis(np.asarray(image.array), 0, -1)
    affine = np.asarray(image.affine, float)
    return VolumeFile(path, _axes(array, path), affine, "mm", "world", True)


def _axes(array: np.ndarray, path: Path) -> np.ndarray:
    """X Y Z or X Y Z C, of numbers."""
    if array.dtype.fields:
        raise InputError(
            problem(f"'{path.name}' holds colours", "a volume has one number a voxel", "save it in grey values")
        )
    while array.ndim > 3 and array.shape[3 if array.ndim > 4 else -1] == 1:  # NIfTI vectors: X Y Z 1 C
        array = array.squeeze(3 if array.ndim > 4 else -1)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(
            problem(
                f"'{path.name}' has shape {array.shape}",
                "a volume has the axes x, y, z and at most one of channels",
                "save one volume of it",
            )
        )
    return array


def _scaling(spacing: Sequence[float]) -> np.ndarray:
    return np.diag([*spacing, 1.0])


def _on_grid(volume: VolumeFile, array: np.ndarray) -> nibabel.Nifti1Image:
    if volume.header is None:
        image = nibabel.Nifti1Image(array, volume.affine, dtype=array.dtype)
        image.header.set_xyzt_units(volume.unit)
        return image
    header = grid_header(volume.header)
    header.set_data_dtype(array.dtype)
    return nibabel.Nifti1Image(array, None, header)


def _unreadable(path: Path, error: Exception) -> str:
    return problem(
        f"'{path.name}' can not be read ({_first_line(error)})", "it must be a whole volume", "fetch or make it anew"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
