"""Uploaded volumes, looked at before the server reads them."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import nibabel as nib
import nrrd

from .refused import Refused

FORMATS = (".nii.gz", ".nii", ".nrrd")
# parts of the names of NRRD's types; all others have four bytes
_NRRD_BYTES = {"int8": 1, "char": 1, "short": 2, "int16": 2, "double": 8, "int64": 8, "long": 8}


def suffix(name: str) -> str:
    """The format that a file's name tells, or an empty text.

    >>> suffix("Doe, John.1970.NII.GZ")
    '.nii.gz'
    """
    return next((known for known in FORMATS if name.lower().endswith(known)), "")


def check(path: Path, limit: int) -> tuple[int, ...]:
    """Read a volume's header, and see that its data is there.

    Args:
        path: a file that ends in one of `FORMATS`.
        limit: bytes that it may unpack to.

    Returns:
        its shape.

    Raises:
        Refused: when it can not be read, promises too much, is cut short, or points to another file.
    """
    try:
        shape, size, length = _nrrd(path) if suffix(path.name) == ".nrrd" else _nifti(path)
        if size > limit:
            raise Refused(
                413,
                f"the volume's header tells {shape}, {size / 2**30:.2f} GiB",
                f"it may be {limit / 2**30:.2f} GiB",
                "send a smaller volume, or start the server with a larger --upload_gib",
            )
        if length(size) < size:
            raise EOFError
    except (OSError, ValueError, EOFError, zlib.error, KeyError, nib.filebasedimages.ImageFileError, nrrd.NRRDError):
        raise unreadable(f"the upload is no {suffix(path.name)} volume, or not a whole one") from None
    return shape


def unreadable(came: str) -> Refused:
    """The refusal of a file that is no volume."""
    return Refused(422, came, f"it must be a volume ({', '.join(FORMATS)})", "write it anew and send it again")


def _nifti(path: Path):
    image = nib.load(path)
    header, shape = image.header, tuple(map(int, image.shape))
    if not isinstance(image, nib.Nifti1Pair) or not shape or min(shape) < 1:
        raise ValueError("no volume")
    size = int(image.dataobj.offset) + math.prod(shape) * header.get_data_dtype().itemsize
    return shape, size, lambda wanted: _length(path, wanted)


def _length(path: Path, wanted: int) -> int:
    """Bytes of a file, unpacked where it is packed, counted no further than `wanted`."""
    count = 0
    with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as stream:
        while count < wanted:
            part = stream.read(min(1 << 20, wanted - count))
            if not part:
                break
            count += len(part)
    return count


def _nrrd(path: Path):
    header = nrrd.read_header(str(path))
    if "data file" in header or "datafile" in header:
        raise Refused(422, "the NRRD points to another file", "it must hold its own data", "save it as one .nrrd file")
    shape = tuple(int(size) for size in header["sizes"])
    if not shape or min(shape) < 1:
        raise ValueError("no volume")
    size = next((size for part, size in _NRRD_BYTES.items() if part in header["type"]), 4)
    return shape, math.prod(shape) * size, lambda size: size  # its reader says so itself when it is cut short
