"""Uploaded zips, looked at before a byte of them is written."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .refused import Refused

FILES, RATIO, SMALL = 20_000, 200, 1 << 20
# zipfile unpacks what it has read of others (bzip2, LZMA) at once, however much that is
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SKIPPED = ("__MACOSX", ".DS_Store", "Thumbs.db")


def unpack(archive: Path, folder: Path, limit: int) -> list[Path]:
    """Write the files of a zip under neutral names into a folder.

    Args:
        archive: the upload.
        folder: an empty folder.
        limit: bytes that it may unpack to.

    Returns:
        what was written, in the zip's order.

    Raises:
        Refused: for anything but a zip, and for one that is encrypted, damaged, too large, or names files elsewhere.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if _wanted(entry)]
            _check(entries, limit)
            return [_write(opened, entry, folder / f"{number:06d}") for number, entry in enumerate(entries)]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as error:
        came = f"the archive can not be read ({type(error).__name__})"  # its text may hold a name
        raise Refused(422, came, "it must be a whole zip", "zip it again") from None


def _wanted(entry: zipfile.ZipInfo) -> bool:
    return not entry.is_dir() and not any(part in _SKIPPED for part in PurePosixPath(entry.filename).parts)


def _check(entries: list[zipfile.ZipInfo], limit: int) -> None:
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        drive = len(name) > 1 and name[1] == ":"
        if name.startswith("/") or drive or ".." in PurePosixPath(name).parts:
            raise Refused(
                422, "a name in the zip leaves its folder", "names must stay inside", "zip the series' own folder"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Refused(422, "the zip holds a link", "it must hold files", "zip the files themselves")
        if entry.flag_bits & 1:
            raise Refused(422, "the zip is encrypted", "it must be readable", "zip it without a password")
        if entry.compress_type not in _METHODS:
            raise Refused(
                422, "the zip is compressed in an unusual way", "it is stored or deflated", "zip it by another program"
            )
    whole, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if len(entries) > FILES or whole > limit:
        raise Refused(
            413,
            f"the zip holds {len(entries)} files of {whole / 2**30:.2f} GiB",
            f"it may hold {FILES} files and {limit / 2**30:.2f} GiB",
            "send one series, or start the server with a larger --upload_gib",
        )
    if whole > SMALL and whole > RATIO * max(packed, 1):
        raise Refused(
            422,
            f"the zip unpacks to {whole / max(packed, 1):.0f} times its size",
            f"more than {RATIO} times is no series",
            "zip the series again",
        )


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Path:
    # zipfile ends an entry at the size that its header tells, which is what was added up
    with opened.open(entry) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return path


def pack(paths: Sequence[Path], archive: Path) -> Path:
    """Write files into a zip without folders, numbered, as the server's reader looks for them."""
    with zipfile.ZipFile(archive, "w") as opened:
        for number, path in enumerate(paths):
            opened.write(path, f"{number:06d}.dcm")
    return archive
