"""Files and folders: where the bundle lies, and writes that leave either the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .checks import InputError, problem

__all__ = ["atomic_path", "bundle_root", "case_name", "check_writable", "read_json", "sha256", "write_json"]

_ENDING = re.compile(r"(\.nii|\.nrrd|\.mha|\.mhd|\.dcm|\.h5|\.hdf5|\.npy|\.npz|\.zip|\.png|\.tiff?)?(\.gz)?$", re.I)


def bundle_root(name: str) -> str:
    """The folder of bundle `name`: the one that holds ``configs/metadata.json`` naming it.

    Looked for beside and above this file (a packed bundle carries its code inside; a repository has ``bundles/``),
    then in and above the working directory, so that one config runs from the repository root, from the bundle's own
    folder and packed. ``--bundle_root`` overrides it.

    Args:
        name: the bundle's name, as its metadata says.

    Returns:
        the absolute path.

    Raises:
        InputError: when no such folder is found.
    """
    here, cwd = Path(__file__).resolve().parent, Path.cwd()
    for start in (here, cwd):
        for folder in (start, *start.parents):
            for candidate in (folder, folder / name, folder / "bundles" / name):
                if _is_bundle(candidate, name):
                    return str(candidate)
    raise InputError(
        problem(
            f"bundle '{name}' was not found beside {here} nor in or above {cwd}",
            "its folder holds configs/metadata.json with that name",
            "start from the bundle's folder or pass --bundle_root PATH",
        )
    )


def _is_bundle(folder: Path, name: str) -> bool:
    metadata = folder / "configs" / "metadata.json"
    try:
        return metadata.is_file() and json.loads(metadata.read_text(encoding="utf-8")).get("name") == name
    except (OSError, ValueError, AttributeError):
        return False


def case_name(path: str | os.PathLike[str]) -> str:
    """The name of a volume's file without the endings of its format; other dots belong to the name.

    >>> case_name("imagesTr/case.01.nii.gz"), case_name("series.7")
    ('case.01', 'series.7')
    """
    name = Path(path).name
    return _ENDING.sub("", name) or name


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary name keeps the suffixes of `path`, for writers that choose a format by them.

    Raises:
        InputError: when the folder can not be made or written to, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(
            problem(
                f"'{target}' can not be written ({error.strerror})",
                "its folder must be writable",
                "choose another folder, or change its permissions",
            )
        ) from error
    except OSError as error:
        if error.errno is None:
            raise
        raise InputError(
            problem(
                f"writing '{target}' failed ({error.strerror})",
                "the disk must take the whole file",
                "free some space or choose another folder; what was there before is untouched",
            )
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Make `folder` if need be, and see that a file can be written there, before work is spent on what goes into it.

    Raises:
        InputError: when it can not be made or written to.
    """
    trial = Path(folder) / f".{secrets.token_hex(4)}.writable"
    with atomic_path(trial) as temporary:
        temporary.touch()
    trial.unlink()


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        InputError: when it is absent or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            problem(f"'{path}' does not exist", "a JSON file is needed there", "check the path")
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            problem(f"'{path}' is not JSON ({error})", "it must hold valid JSON", "mend or remake the file")
        ) from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
