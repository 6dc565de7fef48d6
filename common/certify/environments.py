"""Clean environments: built by ``serve/environment.py``, each once, and seen to be clean."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_json
from .steps import Environment

__all__ = ["BuildError", "Built", "Environments", "clean_variables"]

PACKAGE = __package__.split(".")[0]
_FOREIGN = ("PYTHON", "COV_", "MONAI_", "VOLSEG_", "VIRTUAL_ENV", "PYTEST_")
_VERSIONS = ("pytorch_version", "monai_version", "numpy_version", "required_packages_version")


class BuildError(RuntimeError):
    """An environment could not be made; the text says why."""


@dataclass(frozen=True)
class Built:
    """An environment that is there.

    Args:
        name: of the environment.
        python: its interpreter.
        hash: of what it was made of.
        told: what it says of itself: ``python``, ``asked``, ``packages``.
    """

    name: str
    python: Path
    hash: str
    told: Mapping[str, Any]


class Environments:
    """The environments of a certification.

    Args:
        root: of the checkout.
        folder: where they lie.
        home: a folder that is the user's home for what runs in them.
    """

    def __init__(self, root: Path, folder: Path, home: Path) -> None:
        self.root, self.folder, self.home = root, folder, home
        self._built: dict[Path, Built | BuildError] = {}

    def get(self, environment: Environment, bundle: Path, make: bool = True) -> Built:
        """The environment, made if need be.

        Args:
            environment: which.
            bundle: a packed bundle, whose versions are part of some environments.
            make: whether to make one that is not there.

        Raises:
            BuildError: when it can not be made, now or at an earlier call, or is not there.
        """
        place = self.folder / self._name(environment, bundle)
        if not make and place not in self._built and not self._there(environment, bundle, place):
            raise BuildError(f"there is no environment {place.name}")
        if place not in self._built:
            try:
                self._built[place] = self._build(environment, bundle, place)
            except BuildError as error:
                self._built[place] = error
        found = self._built[place]
        if isinstance(found, BuildError):
            raise found
        return found

    def _name(self, environment: Environment, bundle: Path) -> str:
        """Bundles that name the same versions share an environment."""
        if not environment.of_bundle:
            return environment.name
        metadata = read_json(bundle / "configs" / "metadata.json")
        pins = json.dumps([metadata.get(key) for key in _VERSIONS], sort_keys=True)
        return f"{environment.name}-{hashlib.sha256(pins.encode()).hexdigest()[:8]}"

    def _line(self, environment: Environment, bundle: Path, place: Path) -> list[str]:
        command = [sys.executable, str(self.root / "serve" / "environment.py"), str(place)]
        return [*command, str(self.root / environment.source)] + (
            ["--bundle", str(bundle)] if environment.of_bundle else []
        )

    def _there(self, environment: Environment, bundle: Path, place: Path) -> bool:
        """Whether an environment is as its requirements are now."""
        stamp = place / "environment.json"
        if not stamp.is_file() or not _interpreter(place).exists():
            return False
        asked = subprocess.run([*self._line(environment, bundle, place), "--hash"], capture_output=True, text=True)
        return asked.stdout.strip() == read_json(stamp)["hash"]

    def _build(self, environment: Environment, bundle: Path, place: Path) -> Built:
        if not self._there(environment, bundle, place):
            print(f"building the environment {place.name}, some minutes, once ({place})", flush=True)
            done = subprocess.run(
                self._line(environment, bundle, place),
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                raise BuildError(f"its environment could not be made: {done.stderr.strip()}")
        told, python = read_json(place / "environment.json"), _interpreter(place)
        self.home.mkdir(parents=True, exist_ok=True)
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({PACKAGE!r}) is not None)"
        clean = subprocess.run([python, "-c", code], cwd=self.home, env=clean_variables(python, self.home))
        if clean.returncode:
            raise BuildError(f"its environment is not clean: '{PACKAGE}' can be imported in {place}")
        return Built(environment.name, python, told["hash"], told)


def _interpreter(place: Path) -> Path:
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def clean_variables(python: Path, home: Path) -> dict[str, str]:
    """Variables of a process in an environment: nothing of ours, the environment's tools first, a home of its own."""
    inside = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
    inside["PATH"] = os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])
    return inside | {"HOME": str(home), "PYTHONNOUSERSITE": "1", "VOLSEG_CACHE": str(home / "volseg")}
