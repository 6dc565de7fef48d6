"""Build the environment of a server or a tool: ``python serve/environment.py FOLDER serve/monai_label``.

What goes into it is told by the files of its own folder, by convention:

- ``requirements.txt``: what pip installs. ``torch==VERSION`` in it is installed first, by itself, so that nothing else
  chooses torch's build;
- ``requirements-no-deps.txt``, if there is one: packages installed after those, without what they ask for;
- ``site/``, if there is one: files that go into site-packages, such as a module and the .pth file that loads it.

``--bundle PACKED`` adds the versions that a packed bundle's metadata names. The environment is stamped by a hash of all
of these, so that a second call does nothing, and one that was not finished is made anew. Only the standard library is
needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

STAMP, LOG = "environment.json", "environment.log"
_TORCH = re.compile(r"^torch\s*==")


class BuildError(RuntimeError):
    """What an environment was to be made of is not in order, or pip did not do it."""


def lines(path: Path) -> list[str]:
    """The requirements of a file, without comments; none where there is no file."""
    if not path.is_file():
        return []
    found = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in found if line]


def bundle_pins(bundle: Path) -> list[str]:
    """The versions that a bundle's metadata names, as requirements."""
    try:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        named = {
            "torch": metadata["pytorch_version"],
            "monai": metadata["monai_version"],
            "numpy": metadata["numpy_version"],
            **metadata["required_packages_version"],
        }
    except (OSError, ValueError, KeyError) as error:
        raise BuildError(f"{bundle} is no bundle whose metadata names versions: {error!r}") from error
    return [f"{name}=={version}" for name, version in named.items()]


class Recipe:
    """What an environment is made of.

    Args:
        source: the folder with ``requirements.txt``.
        bundles: packed bundles whose versions are added.
    """

    def __init__(self, source: Path, bundles: Sequence[Path] = ()) -> None:
        asked = lines(source / "requirements.txt") + [pin for bundle in bundles for pin in bundle_pins(bundle)]
        self.asked = sorted(set(asked))
        self.first = [line for line in self.asked if _TORCH.match(line)]
        self.without = lines(source / "requirements-no-deps.txt")
        self.site = sorted(path for path in (source / "site").glob("*") if path.is_file())
        if len(self.first) != 1:
            named = ", ".join(self.first) or "none"
            rule = "one torch==VERSION must be named, by requirements.txt or by a packed bundle (--bundle)"
            raise BuildError(f"{source} names {named}: {rule}")

    @property
    def hash(self) -> str:
        """SHA-256 of all that the environment is made of, the Python and the machine's kind among it."""
        told = [sys.version_info[:3], platform.system(), platform.machine(), self.asked, self.without]
        told += [[path.name, path.read_text(encoding="utf-8")] for path in self.site]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def interpreter(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stamp(folder: Path) -> dict:
    """What an environment says of itself: hash, python, what was asked for, packages; empty until it is whole."""
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def build(folder: Path, recipe: Recipe) -> bool:
    """Make an environment, unless it is there.

    Args:
        folder: where it goes; an environment of another recipe, or a half-made one, is replaced.
        recipe: what it is made of.

    Returns:
        whether it was made.

    Raises:
        BuildError: when `folder` holds something else, or pip fails; the text has pip's last lines.
    """
    folder = folder.absolute()
    with _alone(folder):
        if stamp(folder).get("hash") == recipe.hash and interpreter(folder).exists():
            return False
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
            raise BuildError(f"{folder} is no environment and is not empty: name another folder")
        shutil.rmtree(folder, ignore_errors=True)
        python = str(interpreter(folder))
        pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        steps = [
            ("an empty environment", [sys.executable, "-m", "venv", str(folder)]),
            ("pip", [*pip, "--upgrade", "pip"]),
            (", ".join(recipe.first), [*pip, *recipe.first]),
            (f"{len(recipe.asked)} requirements", [*pip, *recipe.asked]),
        ]
        if recipe.without:
            steps += [(", ".join(recipe.without) + " by themselves", [*pip, "--no-deps", *recipe.without])]
        for number, (told, command) in enumerate(steps, start=1):
            _do(f"[{number}/{len(steps)}] {told}", command, folder)
        _into_site(python, recipe.site)
        _stamp(folder, python, recipe)
    return True


def _do(told: str, command: Sequence[str], folder: Path) -> None:
    """Run one step; its output is kept in the environment's log."""
    print(told, end=" ", flush=True)
    began = time.perf_counter()
    inside = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") and key != "VIRTUAL_ENV"}
    log = folder / LOG
    folder.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as stream:
        begin = stream.tell()
        stream.write(f"$ {' '.join(command)}\n")
        stream.flush()
        # the lock of the folder goes along: it is held until pip has ended, even where this process is killed
        status = subprocess.call(
            command, env=inside, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, close_fds=False
        )
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace")[begin:].strip().splitlines()[-8:])
        raise BuildError(f"{told.split('] ')[-1]} failed (all of it is in {log}):\n{tail}")


def _into_site(python: str, files: Sequence[Path]) -> None:
    if files:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        for path in files:
            shutil.copyfile(path, Path(site) / path.name)


def _stamp(folder: Path, python: str, recipe: Recipe) -> None:
    """Say that the environment is whole; until then it is half-made."""
    asked = sorted({re.split(r"[^\w.-]", line)[0] for line in (*recipe.asked, *recipe.without)}, key=str.lower)
    content = {"hash": recipe.hash, "python": platform.python_version(), "asked": asked, "packages": _packages(python)}
    part = folder / f".{STAMP}"
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(part, folder / STAMP)


def _packages(python: str) -> dict[str, str]:
    """What is installed, by name."""
    command = [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    return {one["name"]: one["version"] for one in json.loads(listed.stdout)}


@contextmanager
def _alone(folder: Path):
    """Let one process at a time make an environment."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.set_inheritable(lock.fileno(), True)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the command line asks for; the last line told is the environment's Python."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where the environment goes")
    parser.add_argument("source", type=Path, help="the folder with its requirements.txt, such as serve/monai_label")
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="add a packed bundle's versions")
    parser.add_argument("--hash", action="store_true", help="tell the hash of what is asked for, and make nothing")
    given = parser.parse_args(arguments)
    try:
        recipe = Recipe(given.source, given.bundle)
        if given.hash:
            print(recipe.hash)
            return 0
        if not build(given.folder, recipe):
            print("it is there already")
    except BuildError as error:
        print(f"{given.folder}: {error}", file=sys.stderr)
        return 1
    print(interpreter(given.folder.absolute()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
