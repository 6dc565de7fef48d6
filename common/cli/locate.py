"""Where bundles lie: a repository, the working directory, or the copy that a wheel carries."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..checks import InputError, nearest, problem
from ..files import bundle_root, read_json

__all__ = ["config_file", "describe", "find_bundle", "finds_itself", "known_bundles"]

_PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = _PACKAGE / "_bundles"


def known_bundles() -> dict[str, Path]:
    """Every bundle in reach by name: the repository's first, then the working directory's, then the wheel's."""
    found: dict[str, Path] = {}
    for folder in (_PACKAGE.parent / "bundles", Path.cwd() / "bundles", Path.cwd(), INSTALLED):
        for metadata in sorted(folder.glob("*/configs/metadata.json")):
            found.setdefault(read_json(metadata).get("name", metadata.parents[1].name), metadata.parents[1])
    return found


def find_bundle(name: str) -> Path:
    """The folder of a bundle; one that only the wheel holds is copied to ``./bundles/NAME`` first, and said so.

    A wheel's own folder is no place for weights and results, and a reader wants the configs at hand.

    Args:
        name: a bundle's name, or the path of its folder.

    Raises:
        InputError: when there is no such bundle; the text names the nearest one.
    """
    if (Path(name) / "configs").is_dir():
        return Path(name).resolve()
    try:
        return Path(bundle_root(name))
    except InputError:
        known = known_bundles()
    if name not in known:
        near = nearest(name, known)
        raise InputError(
            problem(
                f"there is no bundle '{name}'",
                f"a bundle is one of {', '.join(sorted(known)) or '(none found)'}, or a folder with configs/",
                f"write '{near}'" if near else "see them with: volseg list",
            )
        )
    target = Path.cwd() / "bundles" / name
    _copy_whole(known[name], target)
    print(f"The bundle was copied to {os.path.relpath(target)}: its configs are yours to edit, its weights go there.")
    return target


def finds_itself(bundle: Path) -> bool:
    """Whether the configs of `bundle`, run from here, take that folder for their own without being told."""
    try:
        return Path(bundle_root(describe(bundle)["bundle"])) == bundle
    except InputError:
        return False


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a folder under a temporary name first, so that a broken copy is never taken for a bundle."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copytree(source, part)
        os.replace(part, target)
    except OSError as error:
        raise InputError(
            problem(
                f"the bundle could not be copied to '{target}' ({error.strerror})",
                "the working directory must be writable, with no other folder of that name",
                "work in another folder",
            )
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def config_file(bundle: Path, name: str) -> Path:
    """``configs/NAME.json`` of a bundle; `name` may also be the path of a JSON file elsewhere.

    Raises:
        InputError: when it does not exist; the text names the nearest one.
    """
    own = bundle / "configs" / f"{name}.json"
    if own.is_file():
        return own
    if name.endswith(".json") and Path(name).is_file():
        return Path(name).resolve()
    known = sorted(path.stem for path in (bundle / "configs").glob("*.json") if path.stem != "metadata")
    near = nearest(name, known)
    raise InputError(
        problem(
            f"the bundle {bundle.name} has no config '{name}'",
            f"it has {', '.join(known)}",
            f"write '{near}'" if near else "name one of these, or the path of a JSON file",
        )
    )


def describe(bundle: Path) -> dict[str, str]:
    """What ``volseg list`` shows of a bundle: name, task, version, and whether weights are there and of what.

    Reads the weights' sidecar only, not the weights.
    """
    metadata = read_json(bundle / "configs" / "metadata.json")
    weights = "no"
    if (bundle / "models" / "model.pt").is_file():
        sidecar = bundle / "models" / "model.json"
        info = read_json(sidecar) if sidecar.is_file() else {}
        weights = "yes" + (", of a phantom" if info.get("phantom") else "" if info else ", of unknown origin")
    return {
        "bundle": str(metadata.get("name", bundle.name)),
        "task": str(metadata.get("task", "")),
        "version": str(metadata.get("version", "")),
        "weights": weights,
    }
