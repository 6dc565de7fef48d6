"""What a packed bundle is made of, and the same archive of it every time."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ..checks import InputError, problem
from ..files import atomic_path, read_json, sha256

__all__ = ["MANIFEST", "check_replaceable", "file_hashes", "replace_folder", "write_zip"]

MANIFEST = "PACKED.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by path with ``/``, sorted; byte code and the manifest are left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    found = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    return {name: found[name] for name in sorted(found) if name != MANIFEST}


def write_zip(folder: Path, target: Path) -> None:
    """Archive `folder` under one top folder named as `target`, whole or not at all, the same bytes every time.

    Files are sorted, dated 1980 and rw-r--r--. They are stored, not compressed: deflate differs between zlib versions,
    and weights, nearly all of a bundle, hardly shrink.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{target.stem}/{name}", _EPOCH)
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o100644 << 16
            with open(folder / name, "rb") as source, archive.open(entry, "w") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)


def check_replaceable(folder: Path, target: Path) -> None:
    """Refuse when something that an earlier pack did not write would be lost.

    Args:
        folder: where the packed directory shall be.
        target: where its archive shall be.

    Raises:
        InputError: for a folder or archive that is no pack, or a pack in which files were added or changed since.
    """
    rule, remedy = "only an untouched earlier pack is overwritten", "move it away or choose another output folder"
    if folder.exists() or folder.is_symlink():
        wrote = _manifest_files(folder)
        if wrote is None:
            raise InputError(problem(f"'{folder}' is there and is not a packed bundle", rule, remedy))
        lost = sorted(name for name, digest in file_hashes(folder).items() if wrote.get(name) != digest)
        if lost:
            came = f"'{folder}' holds '{lost[0]}', added or changed since it was packed"
            raise InputError(problem(came, rule, remedy))
    if target.exists() and not _is_packed_zip(target):
        raise InputError(problem(f"'{target}' is there and is not the archive of a packed bundle", rule, remedy))


def _manifest_files(folder: Path) -> Mapping[str, str] | None:
    try:
        files = read_json(folder / MANIFEST)["files"]
    except (InputError, OSError, KeyError, TypeError):
        return None
    return files if isinstance(files, dict) else None


def _is_packed_zip(path: Path) -> bool:
    """Whether every file of the archive is as its own manifest says."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            wrote = json.loads(archive.read(f"{path.stem}/{MANIFEST}"))["files"]
            hashes = {name.split("/", 1)[1]: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    except (OSError, KeyError, IndexError, TypeError, ValueError, zipfile.BadZipFile):
        return False
    hashes.pop(MANIFEST)
    return hashes == wrote


def replace_folder(made: Path, folder: Path) -> None:
    """Put `made` in the place of `folder`; what was there is removed last."""
    if not folder.exists():
        os.replace(made, folder)
        return
    old = folder.with_name(f".{secrets.token_hex(4)}.{folder.name}")
    os.replace(folder, old)
    os.replace(made, folder)
    shutil.rmtree(old)
