"""Every command of README and of the bundles' documents runs (see ``sandbox.py``); set-up and demos: ``-m slow``."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from sandbox import BUNDLES, REPOSITORY, SHORT, Sandbox, commands, shortened, whole

README = REPOSITORY / "README.md"
DOCUMENTS = [README, REPOSITORY / "docs" / "adding_a_bundle.md", *sorted(REPOSITORY.glob("bundles/*/docs/README.md"))]
WHOLE = [command for command in commands(README) if whole(command)]


def _id(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(path, id=_id(path), marks=[] if path == README else pytest.mark.slow)
        for path in DOCUMENTS
        if any(not whole(one) for one in commands(path))
    ],
)
def test_commands_run(document, tmp_path):
    sandbox = Sandbox.make(tmp_path / "checkout")
    for command in commands(document):
        if not whole(command):
            sandbox.provide(command)
            sandbox.run(shortened(command))


@pytest.mark.slow
@pytest.mark.parametrize("command", WHOLE)
def test_commands_on_a_fresh_checkout(command, tmp_path):
    """The set-up commands as they stand, in a copy of what git tracks; the tests they start are only counted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, target)
    if command.endswith("loadfile"):
        command += " --collect-only -q"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path / "checkout", capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_readme_has_the_two_commands():
    installs = [command for command in WHOLE if "venv" in command]
    assert len(installs) == 2
    assert "volseg demo unet3d_sparse" in installs[0] and "pytest" in installs[1]
    for command in installs:  # torch alone and first: the build that is chosen stays
        assert re.search(r"pip install torch==[\d.]+ && ", command)


def test_ci_runs_the_test_command_of_readme():
    """The line that .ci/run takes from README is the second of the two commands."""
    pattern = re.search(r"grep -m 1 '(.*)' README.md", (REPOSITORY / ".ci" / "run").read_text())[1]
    taken = next(line for line in README.read_text().splitlines() if re.search(pattern, line))
    assert taken == WHOLE[1]


def test_the_torch_in_readme_is_the_pinned_one():
    pin = re.search(r"^torch==\S+$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)[0]
    assert all(pin in shlex.split(command) for command in WHOLE if "venv" in command)


def test_every_bundle_has_its_short_form():
    assert sorted(SHORT) == BUNDLES


def test_links_lead_somewhere():
    for document in [*DOCUMENTS, *REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{_id(document)}: {target}"


def test_readme_tells_the_truth_about_what_is_there():
    """A bundle is called ready exactly where it is."""
    rows = re.findall(r"^\| \[?`(\w+)`.*\| \**(ready|planned)\** \|$", README.read_text(), re.MULTILINE)
    assert sorted(name for name, state in rows if state == "ready") == BUNDLES


def test_documents_cite_known_papers():
    keys = set(re.findall(r"^@\w+\{(\w+),", (REPOSITORY / "docs" / "references.bib").read_text(), re.MULTILINE))
    cited = set(re.findall(r"`([a-z]+20\d\d[a-z0-9]+)`", README.read_text()))
    assert cited and cited <= keys
