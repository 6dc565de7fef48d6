"""An environment is made by convention, once, whole or anew."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SCRIPT = Path(__file__).resolve().parents[2] / "serve" / "environment.py"


@pytest.fixture(scope="module")
def environment():
    spec = importlib.util.spec_from_file_location("serve_environment", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """A package of one module, which says its version."""
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{about}/METADATA", metadata + (f"Requires-Dist: {needs}\n" if needs else ""))
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder of packages, which pip knows alone."""
    folder = tmp_path / "index"
    folder.mkdir()
    for version in ("1.0", "2.0"):
        _wheel(folder, "torch", version)
    _wheel(folder, "tool", "1.5", "torch>=1")
    _wheel(folder, "server", "0.1", "torch>=9")  # what it asks for is not there
    _wheel(folder, "monai", "1.6")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    (folder / "site").mkdir(parents=True)
    (folder / "requirements.txt").write_text("# a tool\ntool  # newest\n\ntorch==1.0\n")
    (folder / "requirements-no-deps.txt").write_text("server==0.1\n")
    (folder / "site" / "shim.py").write_text("import sys; sys.shimmed = True\n")
    (folder / "site" / "shim.pth").write_text("import shim\n")
    return folder


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_an_environment_is_made_by_pip(tmp_path, index, source):
    folder = tmp_path / "made" / "env"
    done = _run(folder, source)
    assert done.returncode == 0, done.stderr
    python = done.stdout.splitlines()[-1]
    code = "import sys, tool, torch, server; print(torch.VERSION, sys.shimmed, sys.prefix)"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["1.0", "True", str(folder)]
    stamp = json.loads((folder / "environment.json").read_text())
    assert stamp["asked"] == ["server", "tool", "torch"] and stamp["packages"]["torch"] == "1.0"
    log = (folder / "environment.log").read_text()
    assert log.index("Successfully installed torch") < log.index("Successfully installed tool")
    assert "it is there already" in _run(folder, source).stdout

    (source / "requirements.txt").write_text("torch==1.0\nabsent\n")
    failed = _run(folder, source)
    assert failed.returncode == 1 and "No matching distribution found for absent" in failed.stderr
    assert not (folder / "environment.json").exists()


@pytest.fixture
def pretended(environment, monkeypatch):
    """pip does nothing here; the list of the steps that were done."""
    done = []

    def do(told, command, folder):
        done.append(command[-1] if "pip" in command else "venv")
        environment.interpreter(folder).parent.mkdir(parents=True, exist_ok=True)
        environment.interpreter(folder).touch()
        (folder / "pyvenv.cfg").touch()
        if command[-1] == "broken":
            raise environment.BuildError("no broken")

    monkeypatch.setattr(environment, "_do", do)
    monkeypatch.setattr(environment, "_into_site", lambda python, files: None)
    monkeypatch.setattr(environment, "_packages", lambda python: {"torch": "1.0"})
    return done


def test_torch_comes_first_and_what_has_no_dependencies_last(environment, pretended, source, tmp_path):
    assert environment.build(tmp_path / "env", environment.Recipe(source)) is True
    assert pretended == ["venv", "pip", "torch==1.0", "torch==1.0", "server==0.1"]


def test_an_environment_that_is_there_is_left_as_it_is(environment, pretended, source, tmp_path):
    environment.build(tmp_path / "env", environment.Recipe(source))
    pretended.clear()
    assert environment.build(tmp_path / "env", environment.Recipe(source)) is False and pretended == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-no-deps.txt", "site/shim.py", "site/new.pth"])
def test_an_environment_is_made_anew_when_what_it_is_made_of_changed(environment, pretended, source, tmp_path, name):
    environment.build(tmp_path / "env", environment.Recipe(source))
    (tmp_path / "env" / "litter").touch()
    with open(source / name, "a") as stream:
        stream.write("another\n")
    assert environment.build(tmp_path / "env", environment.Recipe(source)) is True
    assert not (tmp_path / "env" / "litter").exists()


def test_a_half_made_environment_is_made_anew(environment, pretended, source, tmp_path):
    whole = environment.Recipe(source)
    (source / "requirements.txt").write_text("broken\ntorch==1.0\n")
    (source / "requirements-no-deps.txt").write_text("broken\n")
    with pytest.raises(environment.BuildError, match="no broken"):
        environment.build(tmp_path / "env", environment.Recipe(source))
    assert environment.stamp(tmp_path / "env") == {}
    assert environment.build(tmp_path / "env", whole) is True
    assert environment.stamp(tmp_path / "env")["hash"] == whole.hash


def test_the_versions_of_a_bundle_are_added(tmp_path, environment):
    (tmp_path / "requirements.txt").write_text("tool\n")
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    versions = {"pytorch_version": "2.0", "monai_version": "1.6", "numpy_version": "2.4"}
    content = {**versions, "required_packages_version": {"nibabel": "5.4"}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(content))
    recipe = environment.Recipe(tmp_path, [bundle])
    assert recipe.asked == ["monai==1.6", "nibabel==5.4", "numpy==2.4", "tool", "torch==2.0"]
    assert recipe.first == ["torch==2.0"]
    assert recipe.hash == environment.Recipe(tmp_path, [bundle, bundle]).hash


def test_nobody_builds_beside_a_pip_whose_parent_was_killed(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    waits = "import time; print(1, flush=True); time.sleep(4)"
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import environment, pathlib\n"
        f"folder = pathlib.Path({str(tmp_path / 'env')!r})\n"
        "with environment._alone(folder):\n"
        f"    environment._do('', [sys.executable, '-S', '-c', {waits!r}], folder)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.DEVNULL) as process:
        log = tmp_path / "env" / "environment.log"
        while not (log.is_file() and log.read_text().endswith("1\n")):
            time.sleep(0.02)
        process.kill()
    with open(tmp_path / ".env.lock", "w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it has ended


@pytest.mark.parametrize("text", ["tool\n", "torch>=2\n", "torch==1.0\ntorch==2.0\n", "torchvision==1.0\n"])
def test_one_torch_must_be_named(tmp_path, text):
    (tmp_path / "requirements.txt").write_text(text)
    done = _run(tmp_path / "env", tmp_path)
    assert done.returncode == 1 and "one torch==VERSION must be named" in done.stderr


def test_a_folder_of_something_else_is_left_alone(tmp_path, source):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    done = _run(tmp_path / "mine", source)
    assert done.returncode == 1 and "is no environment and is not empty" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_bundle_without_versions_is_named(tmp_path, source):
    done = _run(tmp_path / "env", source, "--bundle", tmp_path / "nothing")
    assert done.returncode == 1 and "is no bundle whose metadata names versions" in done.stderr


def _pins(lines: list[str]) -> dict[str, str]:
    found = [Requirement(line) for line in lines]
    return {one.name.lower(): str(one.specifier)[2:] for one in found if str(one.specifier).startswith("==")}


@pytest.mark.parametrize(
    "path", sorted(SCRIPT.parent.glob("*/requirements*.txt")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_bundles_name_too_has_the_version_that_they_name(path, environment):
    own = _pins(environment.lines(path))
    assert own  # every version is pinned, or what was certified is not what is built
    assert len(own) == len(environment.lines(path))
    for bundle in sorted((SCRIPT.parents[1] / "bundles").glob("*/configs/metadata.json")):
        pins = _pins(environment.bundle_pins(bundle.parents[1]))
        both = set(own) & set(pins)
        assert {name: own[name] for name in both} == {name: pins[name] for name in both}
