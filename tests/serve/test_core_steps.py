"""The scripts that certify the core: how they tell what came of them, and what they compare."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sandbox import BUNDLES

from common.certify.running import outcome_of

MODULES = ("step", "networks")


@pytest.fixture(scope="module")
def core(repository: Path):
    """Modules of ``serve/core``, as its scripts find them."""
    folder = str(repository / "serve" / "core")
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(folder)
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture
def case(core, tmp_path):
    """A step's case of a bundle in miniature."""

    def make(train: dict, **configs: dict):
        (tmp_path / "toy" / "configs").mkdir(parents=True)
        (tmp_path / "toy" / "models").mkdir()
        for name, content in {"train": train, **configs}.items():
            (tmp_path / "toy" / "configs" / f"{name}.json").write_text(json.dumps(content))
        return core.step.Case(tmp_path / "toy", tmp_path / "work", None)

    return make


def run_script(repository: Path, folder: Path, body: str, name: str = "tried.py") -> subprocess.CompletedProcess[str]:
    """Run a step of one function by path, as a certification does."""
    (folder / "bundle").mkdir()
    (folder / "work").mkdir()
    script = folder / name
    path = f"import sys; sys.path.insert(0, {str(repository / 'serve' / 'core')!r})\n"
    script.write_text(f"{path}import step\ndef run(case):\n    {body}\nsys.exit(step.main(run))\n")
    line = [sys.executable, str(script), "--bundle", str(folder / "bundle"), "--work", str(folder / "work")]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "passed", "told", "status"),
    [
        ("return 'Dice 0.5', {'dice': 0.5}", True, "Dice 0.5", 0),
        ("step.require(1 > 2, 'one is less than two')", False, "one is less than two", 1),
        ("raise step.Impossible('Cannot find any GPU devices.')", None, "Cannot find any GPU devices.", 0),
        ("raise ValueError('two axes\\nmore of it')", False, "ValueError: two axes", 1),
        ("raise ValueError", False, "ValueError:", 1),
    ],
)
def test_the_last_line_tells_what_came_of_a_step(repository, tmp_path, body, passed, told, status):
    done = run_script(repository, tmp_path, body)
    found = outcome_of(done.stdout, done.returncode)
    assert (found.passed, found.told, done.returncode) == (passed, told, status), done.stderr
    assert done.stdout.splitlines()[-1].startswith("RESULT ")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("all is well\n", ""),
        ("  File x\nException: Cannot find any GPU devices.\n\n", "Exception: Cannot find any GPU devices."),
        ("a.b.InputError: no cases\nRuntimeError: Failed to evaluate ConfigExpression:\n", "a.b.InputError: no cases"),
        ("RuntimeError: Failed to instantiate component\n", "RuntimeError: Failed to instantiate component"),
        ("INFO - no Error here\nKeyError: 'x'\nbye\n", "KeyError: 'x'"),
    ],
)
def test_the_error_that_is_told_is_the_one_with_a_reason(core, text, error):
    assert core.step.last_error(text) == error


def test_a_command_that_fails_says_why(core, case, capfd):
    toy = case({"device": "cpu", "run": ["$1 / 0"], "bundle_root": "."})
    with pytest.raises(core.step.StepError, match="ZeroDivisionError: division by zero"):
        core.step.tool(toy, "run", "--config_file", *toy.files("train"))
    assert "monai.bundle run" in capfd.readouterr().out


@pytest.mark.parametrize("name", BUNDLES)
def test_what_makes_a_training_short_is_what_the_bundles_have(core, repository, name):
    toy = core.step.Case(repository / "bundles" / name, Path(), None)
    known, short = toy.config("train"), toy.short()
    assert {"epochs", "val_interval"} <= set(short)
    numbers = [key for key in known if key.endswith("_epochs") or key.endswith("_per_volume")]
    assert set(numbers) <= set(short)


@pytest.mark.parametrize(
    ("name", "children"),
    [
        ("cascaded_multiorgan", ["stage1", "stage2"]),
        ("ra_unet_liver", ["localiser", "liver", "tumour"]),
        ("random25d_mra", []),
        ("ru_net_colorectal", ["2S", "3S", "4S"]),
        ("unet3d_sparse", []),
    ],
)
def test_every_child_that_is_trained_is_exported(core, repository, name, children):
    toy = core.step.Case(repository / "bundles" / name, Path(), None)
    whole = torch.nn.Module()
    if name == "ru_net_colorectal":
        whole.add_module("members", torch.nn.ModuleDict({child: torch.nn.Identity() for child in children}))
    found = core.networks.children(toy, whole)
    assert list(found) == children
    assert all(expression.startswith("@network_def.") for expression in found.values())


def test_a_network_for_slices_is_given_one(core):
    image = torch.rand(1, 1, 4, 5, 6)
    assert core.networks.fitting(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), image).shape == (1, 1, 4, 5)
    both = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Conv3d(1, 1, 1))
    assert core.networks.fitting(both, image) is image


def test_answers_are_compared_by_their_largest_value(core):
    wanted = [torch.tensor([0.0, -10.0])]
    assert core.networks.equal([torch.tensor([0.0005, -10.0])], wanted, "a") == pytest.approx(5e-5)
    for found, told in (
        ([torch.tensor([0.1, -10.0])], "a: answers differ by 0.01 of the largest value"),
        ([torch.zeros(3)], r"a: answers of \[\(3,\)\] instead of \[\(2,\)\]"),
        ([*wanted, *wanted], "a: answers of"),
    ):
        with pytest.raises(core.step.StepError, match=told):
            core.networks.equal(found, wanted, "a")
    with pytest.raises(core.step.StepError, match="a: the answer is not finite"):
        core.networks.equal(wanted, [torch.tensor([0.0, float("nan")])], "a")
