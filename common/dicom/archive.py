"""Zip archives from elsewhere, checked before a byte is written and unpacked into a folder that goes away again."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..checks import InputError, problem

__all__ = ["unpacked"]

_FILES = 200_000
_BYTES = 64 << 30
_RATIO = 200  # of what comes out to the archive's own size; slices of nothing but air alone come near 1000
_SMALL = 64 << 20  # bytes below which the ratio does not count
_BLOCK = 1 << 20
# zipfile unpacks what it has read of others (bzip2, LZMA) at once, so that nothing can be counted
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ANEW = "pack the files anew as an ordinary zip"


@contextmanager
def unpacked(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    files: int = _FILES,
    size: int = _BYTES,
    ratio: float = _RATIO,
) -> Iterator[Path]:
    """Unpack a zip into a private folder, which is removed when the block ends, however it ends.

    Names of archive and entries are in no text, since they may be those of patients. Archives inside stay packed.

    Args:
        path: the archive.
        folder: where the private folder (mode 0700) is made; None for that of temporary files.
        files: how many entries it may have at most.
        size: how many bytes may come out of it at most.
        ratio: how many times its own size may come out of it at most, counted while writing, from 64 MiB on.

    Yields:
        the folder that holds its files.

    Raises:
        InputError: no zip, a damaged or encrypted one; entries that are links, that lie outside of the archive or twice
            in it, or that are packed otherwise than by deflate; more than the limits, or than the disk holds.
    """
    try:
        archive, packed = zipfile.ZipFile(path), os.path.getsize(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        came = f"the archive can not be opened ({type(error).__name__})"
        raise InputError(problem(came, "it must be a whole zip file", _ANEW)) from None
    with tempfile.TemporaryDirectory(prefix="volseg_", dir=folder) as private:
        with archive:
            entries = archive.infolist()
            _check_entries(entries, files)
            most = min(size, max(_SMALL, int(ratio * packed)))
            stated = sum(entry.file_size for entry in entries)
            if stated > most:
                raise InputError(_too_large(f"says that it holds {_gib(stated)}", size, ratio))
            if stated > shutil.disk_usage(private).free:
                came = f"the archive holds {_gib(stated)} unpacked, more than is free for temporary files"
                raise InputError(problem(came, "the disk must take all of it", "free some space, or set TMPDIR"))
            _unpack(archive, entries, Path(private), (size, ratio, most))
        yield Path(private)


def _place(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Where an entry lies; some programs part folders by backslashes."""
    return PurePosixPath(entry.filename.replace("\\", "/"))


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.endswith(("/", "\\"))


def _check_entries(entries: Sequence[zipfile.ZipInfo], files: int) -> None:
    """Look at all names and kinds before anything is written."""
    if len(entries) > files:
        came = f"the archive holds {len(entries)} entries"
        raise InputError(problem(came, f"it may hold {files}", "unpack it yourself and name the folder"))
    seen = set()
    for number, entry in enumerate(entries, start=1):
        # of two names that differ in case alone, one would replace the other on some disks
        key = str(_place(entry)).casefold()
        fault = "is there twice" if key in seen and not _is_folder(entry) else _fault(entry)
        if fault:
            rule = "an archive holds plain files, each once, that stay within its folder"
            raise InputError(problem(f"entry {number} of the archive {fault}", rule, _ANEW))
        seen.add(key)


def _fault(entry: zipfile.ZipInfo) -> str:
    """What is wrong with an entry, or an empty text."""
    place = _place(entry)
    if place.is_absolute() or re.match(r"[A-Za-z]:", str(place)):
        return "has an absolute path or a drive letter"
    if ".." in place.parts or not place.parts:
        return "has a path that leaves the archive"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return "is neither stored nor deflated"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return "is a link or a device"
    return ""


def _too_large(came: str, size: int, ratio: float) -> str:
    return problem(
        f"the archive {came}",
        f"at most {_gib(size)} and {ratio:g} times its own size may come out of it",
        "unpack it yourself, if you trust it, and name the folder",
    )


def _gib(count: float) -> str:
    return f"{count / (1 << 30):.3g} GiB"


def _unpack(
    archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], folder: Path, limits: tuple[int, float, int]
) -> None:
    """Write the entries below `folder`, counting what comes out, whatever the archive says of it."""
    size, ratio, most = limits
    written = 0
    for number, entry in enumerate(entries, start=1):
        target = folder / _place(entry)
        try:
            if _is_folder(entry):
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(target, "xb") as sink:
                while block := source.read(_BLOCK):
                    written += len(block)
                    if written > most:
                        raise InputError(_too_large("does not end", size, ratio))
                    sink.write(block)
        except InputError:
            raise
        except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            came = f"entry {number} of the archive can not be unpacked ({type(error).__name__})"
            raise InputError(
                problem(came, "it must be a whole zip file, and the disk must take all of it", _ANEW)
            ) from None
