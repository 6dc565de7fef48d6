"""A wheel holds the package and every bundle, nothing that a bundle produced, and runs on its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from sandbox import BUNDLES, REPOSITORY

FILES = (
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "requirements.txt",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy in which a bundle was trained."""
    source = tmp_path_factory.mktemp("source")
    for name in FILES:
        shutil.copyfile(REPOSITORY / name, source / name)
    for name in ("common", "bundles"):
        shutil.copytree(
            REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "models", "eval")
        )
    models = source / "bundles" / BUNDLES[0] / "models"
    models.mkdir()
    (models / "model.pt").write_bytes(b"weights stay where they were trained")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", "dist"]
    subprocess.run(command, cwd=source, check=True, stdin=subprocess.DEVNULL)
    return next((source / "dist").glob("volseg-*.whl"))


def test_a_wheel_holds_every_module_and_bundle(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in REPOSITORY.glob("common/**/*") if path.is_file() and path.suffix != ".pyc")
    modules = {str(path.relative_to(REPOSITORY)) for path in files}
    configs = {
        f"common/_bundles/{path.relative_to(REPOSITORY / 'bundles')}" for path in REPOSITORY.glob("bundles/*/configs/*")
    }
    assert modules <= held and configs <= held
    assert not [name for name in held if "/models/" in name or "__pycache__" in name]


def test_what_is_pinned_lies_in_the_ranges():
    from packaging.requirements import Requirement
    from packaging.version import Version
    from setuptools.config.setupcfg import read_configuration

    options = read_configuration(REPOSITORY / "setup.cfg")["options"]
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if re.match(r"[a-z]", line))
    ranges = [Requirement(line) for line in options["install_requires"]]
    assert {one.name for one in ranges} <= set(pins)
    extras = [Requirement(line) for part in options["extras_require"].values() for line in part]
    for one in ranges + [one for one in extras if one.name in pins]:
        assert one.specifier.contains(Version(pins[one.name])), one.name


@pytest.mark.slow
def test_a_wheel_in_a_clean_environment_runs_the_demo_from_an_empty_folder(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    tools = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pin = re.search(r"^torch==\S+$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)[0]
    for what in (pin, str(wheel)):
        subprocess.run([tools / "python", "-m", "pip", "install", "-q", what], check=True, stdin=subprocess.DEVNULL)
    (tmp_path / "empty").mkdir()
    inside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "VOLSEG_CACHE": str(tmp_path / "cache")
    }
    done = subprocess.run(
        [tools / "volseg", "demo", "unet3d_sparse"], cwd=tmp_path / "empty", env=inside, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "was copied to bundles" in done.stdout and "IoU on what was held out" in done.stdout
    assert list((tmp_path / "empty" / "demo").rglob("*.png"))
