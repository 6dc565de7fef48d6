"""`volseg certify`: which bundles and steps, what is written where, and the exit status."""

from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace

import pytest

from common.certify.checkout import checkout, script_hash
from common.certify.steps import ENVIRONMENTS, STEPS, Step
from common.checks import InputError
from common.cli import certify as command
from common.cli.commands import main


@pytest.fixture
def ran(monkeypatch, repository, tmp_path):
    """Certifications that pretend, of a checkout with the project's bundles; what was asked of them."""
    asked = []
    root = tmp_path / "checkout"
    for name in ("one", "two"):
        (root / "bundles" / name / "configs").mkdir(parents=True)
        (root / "bundles" / name / "configs" / "metadata.json").write_text(json.dumps({"name": name}))

    class Pretended:
        def __init__(self, bundle, folder, environments, steps, kinds):
            self.name, self.folder, self.built = bundle.name, folder, {}
            self.environments = environments.folder

        def run(self, wanted, tell):
            tell(f"{self.name} goes on")
            self.wanted = wanted
            asked.append(SimpleNamespace(**vars(self)))

        def results(self):
            done = {"told": "so", "figures": {}, "seconds": 1.0, "environment": None, "key": ""}
            steps = {one.name: {**done, "passed": one.name != "load"} for one in self.wanted}
            return {"version": "0.1.0", "overlays": ["small"], "packed": None, "steps": steps}

    monkeypatch.setattr(command, "Certification", Pretended)
    monkeypatch.setattr(command, "checkout", lambda: root)
    monkeypatch.chdir(root)
    return asked


def test_steps_that_pass_end_well_and_are_in_the_table(ran, tmp_path, capsys):
    assert main(["certify", "one", "--steps", "infer,evaluate", "--out", str(tmp_path / "out")]) == 0
    (only,) = ran
    assert [one.name for one in only.wanted] == ["evaluate", "infer"]
    assert only.folder == tmp_path / "out" / "one" and only.environments == tmp_path / "out" / "environments"
    assert set(json.loads((tmp_path / "out" / "certified.json").read_text())["bundles"]) == {"one"}
    assert "| prediction" in (tmp_path / "out" / "certified.md").read_text()
    assert not (tmp_path / "checkout" / "docs").exists() and "one goes on" in capsys.readouterr().out


def test_all_bundles_and_all_steps_are_told_in_docs_and_a_failure_is_the_status(ran, tmp_path, capsys):
    words = ["certify", "--all", "true", "--out", str(tmp_path / "out"), "--environments", str(tmp_path / "e")]
    assert main(words) == 1
    assert [one.name for one in ran] == ["one", "two"] and [one.wanted for one in ran] == [list(STEPS)] * 2
    assert ran[0].environments == tmp_path / "e"
    assert "failed: one: load, two: load" in capsys.readouterr().out
    page = (tmp_path / "checkout" / "docs" / "certified.md").read_text()
    assert page == (tmp_path / "out" / "certified.md").read_text() and "**failed**" in page


def test_single_steps_of_all_bundles_leave_docs_alone(ran, tmp_path):
    assert main(["certify", "--all", "true", "--steps", "infer", "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "checkout" / "docs").exists()


def test_the_signal_to_terminate_ends_what_was_started_and_says_how_to_go_on(ran, monkeypatch, capsys, tmp_path):
    tidied = []

    def run(self, wanted, tell):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            tidied.append(self.name)

    monkeypatch.setattr(command.Certification, "run", run)
    assert main(["certify", "--all", "true", "--out", str(tmp_path / "out")]) == 130
    assert tidied == ["one"] and "the same line goes on" in capsys.readouterr().out
    assert not (tmp_path / "out" / "certified.md").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no bundle was named: .*volseg certify --all true"),
        (["one", "--all", "true"], "bundles were named besides --all"),
        (["one", "--steps", "onnx"], "there is no step 'onnx': the steps are train, .* write 'onnx_export'"),
        (["one", "--step", "infer"], "'--step' is not understood"),
        (["ones"], "there is no bundle 'ones'"),
        (["one", "--all", "maybe"], "all is 'maybe': it must be true or false"),
    ],
)
def test_what_is_not_understood_is_refused(ran, capsys, words, told):
    assert main(["certify", *words]) == 2
    assert not ran
    error = capsys.readouterr().err
    with pytest.raises(InputError, match=told):
        raise InputError(error)


def test_an_installed_package_has_no_scripts(tmp_path, repository):
    with pytest.raises(InputError, match="has no serve/environment.py: .* work in a checkout"):
        checkout(tmp_path / "site-packages" / "common")
    assert checkout() == repository


def test_every_step_has_a_script_in_the_folder_of_its_environment(repository):
    folders = {one.name: one.source for one in ENVIRONMENTS}
    assert len({one.name for one in STEPS}) == len(STEPS) and STEPS[0].name == "train"
    for step in STEPS:
        assert (repository / step.script).is_file(), step.script
        assert step.script.startswith(f"{folders[step.environment]}/")
    for folder in folders.values():
        assert (repository / folder / "requirements.txt").is_file()


def test_the_hash_of_a_script_has_what_it_may_import_and_no_other_script(tmp_path):
    steps = [Step("a", "", "x", "serve/x/a.py"), Step("b", "", "x", "serve/x/b.py")]
    (tmp_path / "serve" / "x" / "site").mkdir(parents=True)
    for name in ("a.py", "b.py", "helper.py", "requirements.txt", "site/s.py"):
        (tmp_path / "serve" / "x" / name).write_text("1")

    def changed(name):
        path = tmp_path / "serve" / "x" / name
        before, kept = script_hash(tmp_path, steps[0], steps), path.read_text()
        path.write_text("2")
        after = script_hash(tmp_path, steps[0], steps)
        path.write_text(kept)
        return before != after

    names = ("a.py", "b.py", "helper.py", "requirements.txt", "site/s.py")
    assert [changed(name) for name in names] == [True, False, True, False, False]
    other = Step("a", "", "x", "serve/x/a.py", ("--more",))
    assert script_hash(tmp_path, other, steps) != script_hash(tmp_path, steps[0], steps)
