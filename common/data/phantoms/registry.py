"""The embedded data sets: a table of phantoms, and a folder for each made once and kept."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from monai.utils import optional_import

from ...checks import InputError, nearest, problem
from ..arguments import parse_integer, parse_triple
from ..decathlon import atomic_folder, write_dataset, write_volume
from .abdomen import ABDOMEN
from .head_neck import HEAD_NECK
from .kidney import KIDNEY
from .liver import LIVER
from .pelvis import PELVIS
from .phantom import Phantom

tqdm, _ = optional_import("tqdm", name="tqdm")

__all__ = ["PHANTOMS", "cache_folder", "phantom_dataset"]

PHANTOMS: dict[str, Phantom] = {
    "kidney": KIDNEY,
    "abdomen_ct": ABDOMEN,
    "pelvis_t2": PELVIS,
    "liver_ct": LIVER,
    "head_neck_mra": HEAD_NECK,
}
# Raised when the files or the list are written in another form, so that folders of the old form are made anew.
_FORM = 1


def phantom_dataset(
    name: str,
    cases: int | str = 3,
    size: Any = None,
    seed: int | str = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> str:
    """The Decathlon folder of a phantom, made at the first call and found again at later ones.

    Case k is the same whatever the number of cases, and equal bit for bit for equal arguments and library versions.

    Args:
        name: an entry of `PHANTOMS`.
        cases: number of volumes.
        size: X Y Z, voxels; None takes the phantom's own.
        seed: of everything random in it.
        cache_dir: where folders are kept; None takes `cache_folder`.
        options: further keyword arguments of the phantom, for example ``slices=[7,5,21]`` of the kidney.

    Returns:
        the folder, absolute. ``labelsDense/`` in it, where there is one, is the truth behind a sparse annotation.

    Raises:
        InputError: for an unknown name or option, a number out of range, or a folder that can not be written.
    """
    if name not in PHANTOMS:
        known = ", ".join(sorted(PHANTOMS))
        raise InputError(
            problem(
                f"phantom '{name}' is unknown", f"there are: {known}", f"choose '{nearest(name, PHANTOMS) or known}'"
            )
        )
    phantom = PHANTOMS[name]
    _check_options(name, phantom, options)
    cases, seed = parse_integer(cases, "cases"), parse_integer(seed, "seed")
    if cases < 1 or seed < 0:
        raise InputError(
            problem(
                f"cases is {cases} and seed {seed}",
                "cases must be at least 1 and seed at least 0",
                "pass for example --cases 3",
            )
        )
    shape = phantom.size if size is None or str(size).lower() in ("", "none") else parse_triple(size, "size")
    if min(shape) < 8:
        raise InputError(
            problem(
                f"size is {list(shape)}",
                "each axis needs at least 8 voxels",
                f"pass for example --size {list(phantom.size)}",
            )
        )
    parameters = {
        "name": name,
        "cases": cases,
        "size": list(shape),
        "seed": seed,
        "options": {k: str(v) for k, v in options.items()},
    }
    folder = (
        Path(cache_dir).expanduser().absolute() if cache_dir else cache_folder()
    ) / f"phantom_{name}_{_key(phantom, parameters)}"
    if not (folder / "dataset.json").is_file():
        _make(folder, phantom, parameters, options)
    return str(folder)


def cache_folder() -> Path:
    """Where phantoms are kept: ``VOLSEG_CACHE``, or ``volseg`` in the platform's folder for caches."""
    if chosen := os.environ.get("VOLSEG_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "volseg"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "volseg" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volseg"


def _check_options(name: str, phantom: Phantom, options: dict[str, Any]) -> None:
    accepted = [key for key, one in inspect.signature(phantom.make).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for key in options:
        if key not in accepted:
            known = ", ".join(["cases", "size", "seed", "cache_dir", *accepted])
            raise InputError(
                problem(
                    f"phantom '{name}' got '{key}'",
                    f"its arguments are {known}",
                    f"use '{nearest(key, known.split(', ')) or accepted}'",
                )
            )


def _key(phantom: Phantom, parameters: dict[str, Any]) -> str:
    """A short hash of the parameters and of the modules that make the phantom: changed code makes new folders."""
    digest = hashlib.sha256(json.dumps([_FORM, parameters], sort_keys=True).encode())
    for module in sorted(_modules(inspect.getmodule(phantom.make)), key=lambda one: one.__name__):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()[:12]


def _modules(module: ModuleType) -> set[ModuleType]:
    """A module, and those of its package that it takes functions and classes from, theirs included."""
    found, waiting = set(), [module]
    while waiting:
        one = waiting.pop()
        if one is None or one in found or one.__package__ != module.__package__:
            continue
        found.add(one)
        waiting += [inspect.getmodule(item) for item in vars(one).values() if callable(item)]
    return found


def _make(folder: Path, phantom: Phantom, parameters: dict[str, Any], options: dict[str, Any]) -> None:
    try:
        with atomic_folder(folder) as temporary:
            _write(temporary, phantom, parameters, options)
    except InputError:
        # Two processes may race: the first to finish wins, and the other takes what it made.
        if not (folder / "dataset.json").is_file():
            raise


def _write(folder: Path, phantom: Phantom, parameters: dict[str, Any], options: dict[str, Any]) -> None:
    names = [f"{parameters['name']}_{number + 1:02d}" for number in range(parameters["cases"])]
    dense = []
    for index, name in enumerate(
        tqdm(names, desc=f"making the {parameters['name']} phantom", unit="volume", leave=False)
    ):
        case = phantom.make(
            np.random.default_rng([parameters["seed"], index]), tuple(parameters["size"]), index, **options
        )
        volumes = {"imagesTr": case.image, "labelsTr": case.label, "labelsDense": case.dense}
        for part, volume in volumes.items():
            if volume is not None:
                (folder / part).mkdir(exist_ok=True)
                write_volume(folder / part / f"{name}.nii.gz", volume, case.spacing, phantom.units, case.orientation)
        if case.dense is not None:
            dense.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsDense/{name}.nii.gz"})
    content = {
        "name": f"phantom_{parameters['name']}",
        "description": phantom.description,
        "licence": "Apache-2.0",
        "phantom": True,
        "modality": dict(phantom.modality),
        "labels": dict(phantom.labels),
        "spacing_unit": phantom.units,
        **phantom.notes,
        "parameters": parameters,
    }
    write_dataset(folder, content | ({"dense": dense} if dense else {}), names)
