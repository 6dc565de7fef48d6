"""Volumes of two files: a header, and the voxels that it names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...files import sha256

__all__ = ["data_beside", "data_files", "whole_hash"]

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


def data_beside(path: Path, target: Path) -> list[tuple[Path, Path]]:
    """Where the files of a header's voxels must lie for a copy of the header to find them.

    Args:
        path: of the header, or of any volume.
        target: of its copy, in another folder.

    Returns:
        pairs of a file and its place; none for one that the header names by an absolute path, or that lies above it.
    """
    if path.suffix.lower() in _PAIRS:
        return [(part, target.with_suffix(part.suffix)) for part in data_files(path)]
    named = ((part, part.relative_to(path.parent)) for part in data_files(path) if part.is_relative_to(path.parent))
    return [(part, target.parent / place) for part, place in named if ".." not in place.parts]


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
