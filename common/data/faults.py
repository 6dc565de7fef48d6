"""What is wrong with an image file, found from its header and its size alone."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import nibabel
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ..checks import problem

__all__ = ["IMAGE_SUFFIXES", "file_fault", "is_image_file"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".tif", ".tiff")
_REMAKE = "fetch or make the file anew"


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a volume in a format read here, and not a hidden file.

    >>> is_image_file("scan.nii.gz"), is_image_file("._scan.nii.gz")
    (True, False)
    """
    name = Path(path).name
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def file_fault(path: str | os.PathLike[str]) -> str | None:
    """The error text for a missing, empty, truncated, foreign or coloured file; None where none of these is found.

    NIfTI files are judged by their header and their size (for a ``.nii.gz`` the size that its last four bytes state),
    so that a long list costs milliseconds. Only where the two disagree is the whole file read.

    Args:
        path: the file.

    Returns:
        a text that names the file, the rule and the remedy, or None.
    """
    path = Path(path)
    if not path.is_file():
        return problem(
            f"'{path}' does not exist", "every listed file must be there", "restore the file or correct the list"
        )
    if path.stat().st_size == 0:
        return problem(f"'{path}' is empty", "it must hold a volume", _REMAKE)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    try:
        image = nibabel.load(path)
        if image.get_data_dtype().fields:
            rule = "a volume has one number a voxel"
            return problem(f"'{path}' holds colours", rule, "save it in grey values, as the scan was")
        needed = image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
        held, damage = _held_bytes(path, needed)
    except PermissionError:
        return problem(
            f"'{path}' may not be read", "this user must have the right to read it", "change its permissions"
        )
    except (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, ValueError) as error:
        damage = _read_through(path)[1] if path.name.lower().endswith(".gz") else None
        came = f"is truncated or damaged ({damage})" if damage else f"can not be read ({error})"
        return problem(f"'{path}' {came}", "it must be a whole NIfTI file", _REMAKE)
    if held < needed:
        reason = f"; {damage}" if damage else ""
        return problem(
            f"'{path}' is truncated or damaged ({held} of {needed} bytes{reason})",
            "it must be a whole NIfTI file",
            _REMAKE,
        )
    return None


def _held_bytes(path: Path, needed: int) -> tuple[int, str | None]:
    """How many uncompressed bytes the file holds, and what stopped the reading of a compressed one."""
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size, None
    with open(path, "rb") as stream:
        stream.seek(-4, os.SEEK_END)
        stated = int.from_bytes(stream.read(4), "little")
    # The trailer counts modulo 2^32, and only the last member of a file compressed in parts.
    return (needed, None) if stated == needed % 2**32 else _read_through(path)


def _read_through(path: Path) -> tuple[int, str | None]:
    held = 0
    try:
        with gzip.open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                held += len(block)
    except (OSError, EOFError, zlib.error) as error:
        return held, str(error)
    return held, None
