"""Volumes of two files: a header, and the voxels that it names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...files import sha256

__all__ = ["data_files", "whole_hash"]

_KEYS = {".mhd": ("=", "elementdatafile"), ".nhdr": (":", "datafile")}
_PAIRS = {".hdr": ".img", ".img": ".hdr"}
_MOST = 1 << 16  # bytes of a header
_WITHIN = "local"  # the voxels follow in the header's own file


def data_files(path: Path) -> list[Path]:
    """The files beside a header that hold its voxels; none for a volume that is one file.

    Args:
        path: of the header, or of any volume.
    """
    names = [name for name in _named(path) if name.lower() != _WITHIN]
    return [part for part in (path.parent / name for name in names) if part.is_file()]


def whole_hash(path: Path) -> str | None:
    """A hash of a header and of the voxels that it names, together.

    Args:
        path: of the header, or of any volume.

    Returns:
        None for a volume that is one file, and where not all is known that belongs to it (lists and patterns of files).
    """
    named = _named(path)
    parts = data_files(path)
    if not named or len(parts) != sum(name.lower() != _WITHIN for name in named):
        return None
    return hashlib.sha256("".join(map(sha256, (path, *parts))).encode()).hexdigest()


def _named(path: Path) -> list[str]:
    """What a header says of where its voxels are."""
    suffix = path.suffix.lower()
    if suffix in _PAIRS:
        return [path.with_suffix(_PAIRS[suffix]).name]
    if suffix not in _KEYS or not path.is_file():
        return []
    mark, key = _KEYS[suffix]
    with open(path, "rb") as stream:  # voxels may follow
        pairs = [line.partition(mark) for line in stream.read(_MOST).decode("utf-8", "replace").splitlines()]
    named = [value.strip() for name, _, value in pairs if name.replace(" ", "").lower() == key]
    return [name for name in named if name][:1]
