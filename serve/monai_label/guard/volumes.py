"""Uploaded volumes, looked at before the server reads them."""

from __future__ import annotations

import bz2
import gzip
import io
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd

from .refused import Refused

FORMATS = (".nii.gz", ".nii", ".nrrd")
_HEADERS = (".mhd", ".nhdr", ".hdr")
# NRRD's encodings
_PACKED = {
    **dict.fromkeys(("gzip", "gz"), lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    **dict.fromkeys(("bzip2", "bz2"), bz2.BZ2Decompressor),
}
_HEADER, _PART = 1 << 20, 1 << 20
# the fields by which pynrrd finds the data
_TAKEN = ("type", "dimension", "sizes", "encoding", "endian", "data file", "datafile")
_TAKEN += ("line skip", "lineskip", "byte skip", "byteskip")
# parts of the names of NRRD's types; all others have four bytes
_NRRD_BYTES = {"int8": 1, "char": 1, "short": 2, "int16": 2, "double": 8, "int64": 8, "long": 8}


def suffix(name: str) -> str:
    """The format that a file's name tells, or an empty text.

    >>> suffix("Doe, John.1970.NII.GZ")
    '.nii.gz'
    """
    return next((known for known in FORMATS if name.lower().endswith(known)), "")


def ending(name: str) -> str:
    """The format of an upload, by its name.

    Raises:
        Refused: for another one.
    """
    if name.lower().endswith(_HEADERS):
        rule = "a volume is one file: what it points to is not there, or is not the sender's"
        raise Refused(422, "a header whose voxels lie in another file", rule, f"save it as {' or '.join(FORMATS)}")
    if not (found := suffix(name)):
        raise unreadable("the upload has another ending")
    return found


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
        shape, size, whole = _nrrd(path) if suffix(path.name) == ".nrrd" else _nifti(path)
        if size > limit:
            raise Refused(
                413,
                f"the volume's header tells {shape}, {size / 2**30:.2f} GiB",
                f"it may be {limit / 2**30:.2f} GiB",
                "send a smaller volume, or start the server with a larger --upload_gib",
            )
        if not whole():
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
    return shape, size, lambda: _count(path, gzip.open if path.name.endswith(".gz") else open, 0, size) == size


def _nrrd(path: Path):
    with open(path, "rb") as stream:
        head = io.BytesIO(stream.read(_HEADER))
    if not head.getvalue():
        raise EOFError
    fields = _fields(head.getvalue())
    header = nrrd.read_header(head)
    start = head.tell()
    names = [name for name, _ in fields]
    if "datafile" in names:
        raise Refused(422, "the NRRD points to another file", "it must hold its own data", "save it as one .nrrd file")
    if len(set(names)) < len(names) or any(int(text) for name, text in fields if name in ("byteskip", "lineskip")):
        came = "an NRRD header with a field twice, or one that skips data"
        raise Refused(422, came, "the data must follow the header", "save it as one .nrrd file")
    shape, encoding = tuple(int(size) for size in header["sizes"]), header["encoding"]
    if not shape or min(shape) < 1 or len(shape) != header["dimension"]:
        raise ValueError("no volume")
    if encoding not in ("raw", *_PACKED):
        rule = f"it must be one of raw, {', '.join(_PACKED)}"
        raise Refused(422, "an NRRD of another encoding", rule, "save it anew, compressed or not")
    item = next((size for part, size in _NRRD_BYTES.items() if part in header["type"]), 4)
    if item > 1 and header.get("endian") not in ("little", "big"):
        rule = "where an element has several bytes, endian must be little or big"
        raise Refused(422, "an NRRD that does not tell the order of its bytes", rule, "save it anew")
    size = math.prod(shape) * item
    if encoding == "raw":  # its reader takes all there is, whatever the header promises
        return shape, size, lambda: path.stat().st_size - start == size
    return shape, size, lambda: _unpacks_to(path, _PACKED[encoding](), start, size)


def _fields(head: bytes) -> list[tuple[str, str]]:
    """Fields of an NRRD header, with what they hold; to some readers one is the same in capitals, or without a space.

    Raises:
        Refused: when it does not end.
    """
    found = []
    for line in io.BytesIO(head):
        text = line.decode("ascii", "ignore").rstrip()
        if not text:
            return found
        name, colon, value = text.partition(":")
        # a pair of key and value (:=) may be called anything, but pynrrd takes it for the field of just that name
        if colon and not name.startswith("#") and (not value.startswith("=") or name.strip() in _TAKEN):
            found.append((name.lower().replace(" ", ""), value.removeprefix("=").strip()))
    if len(head) < _HEADER:
        return found
    raise Refused(
        422, f"an NRRD header of more than {_HEADER >> 20} MiB", "it must be shorter", "leave out comments and keys"
    )


def _unpacks_to(path: Path, stream, start: int, size: int) -> bool:
    """Whether the first packed stream from a place on is whole and has so many bytes; pynrrd unpacks no second one."""
    count, left = 0, b""
    with open(path, "rb") as file:
        file.seek(start)
        while not stream.eof and count <= size:
            if not left and getattr(stream, "needs_input", True) and not (left := file.read(_PART)):
                raise EOFError
            count += len(stream.decompress(left, _PART))
            left = getattr(stream, "unconsumed_tail", b"")  # bz2's keeps it for itself, and tells by needs_input
    return stream.eof and count == size


def _count(path: Path, opener: Callable, start: int, most: int) -> int:
    """Bytes of a file from a place on, unpacked where they are packed, counted no further than `most`."""
    count = 0
    with open(path, "rb") as file:
        file.seek(start)
        with file if opener is open else opener(file) as stream:
            while count < most:
                part = stream.read(min(_PART, most - count))
                if not part:
                    break
                count += len(part)
    return count
