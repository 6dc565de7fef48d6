"""The line that is printed is the line that runs, and what it says in the end is short where the user can mend it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.checks import InputError
from common.cli import launch as launching
from common.cli.launch import bundle_command, check_package, launch, shown


def test_one_config_needs_no_list():
    command = bundle_command([Path("configs/train.json")], {})
    assert command[1:] == ["-m", "monai.bundle", "run", "--config_file", "configs/train.json"]


def test_the_printed_line_is_what_a_shell_would_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = [tmp_path / "configs" / "train.json", tmp_path / "configs" / "small.json"]
    command = bundle_command(configs, {"widths": "[8, 16]", "dataset_dir": "my data", "output_dir": "a'b$c"})
    line = shown(command)
    assert line.startswith(
        "python -m monai.bundle run --config_file \"['configs/train.json','configs/small.json']\" --widths"
    )
    assert shlex.split(line)[1:] == command[1:]


def test_configs_outside_the_working_directory_are_absolute(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert bundle_command([tmp_path / "train.json"], {})[-1] == str(tmp_path / "train.json")


def _child(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "child.py"
    root = str(Path(__file__).resolve().parents[2])
    script.write_text(
        f"import sys; sys.path.insert(0, {root!r})\nfrom common.checks import InputError, WeightsError\n{body}\n"
    )
    return [sys.executable, str(script)]


def test_an_input_error_is_one_block_and_status_2(tmp_path, capfd):
    body = """
print("epoch 1")
try:
    raise InputError("no dataset.json in 'x': there must be one")
except InputError as error:
    raise RuntimeError("Failed to instantiate '@train'") from error
"""
    assert launch(_child(tmp_path, body)) == 2
    out, err = capfd.readouterr()
    assert out.splitlines()[1:] == ["epoch 1"]
    assert err.strip().splitlines()[0] == "InputError: no dataset.json in 'x': there must be one"
    assert "Traceback" not in err and "Failed to instantiate" not in err


def test_verbose_shows_the_whole_traceback(tmp_path, capfd):
    assert launch(_child(tmp_path, 'raise WeightsError("none")'), verbose=True) == 1
    assert "Traceback" in capfd.readouterr().err


def test_weights_error_too(tmp_path, capfd):
    assert launch(_child(tmp_path, 'raise WeightsError("there are no weights")')) == 2
    assert "WeightsError: there are no weights" in capfd.readouterr().err


def test_any_other_error_keeps_its_traceback_and_status(tmp_path, capfd):
    assert launch(_child(tmp_path, "import atexit, os\natexit.register(lambda: os._exit(7))\n1 / 0")) == 7
    err = capfd.readouterr().err
    assert "Traceback" in err and "ZeroDivisionError" in err


def test_an_interrupt_from_the_keyboard_is_no_error_to_show(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(launching, "_wait", lambda process: process.wait() and launching.INTERRUPTED)
    for body in (
        "raise KeyboardInterrupt",
        'raise RuntimeError("stopped in the middle\\n\\n") from KeyboardInterrupt()',
    ):
        assert launch(_child(tmp_path, body)) == 130
        assert "Traceback" not in capfd.readouterr().err


def test_a_signal_to_terminate_takes_the_line_with_it(tmp_path):
    begun = tmp_path / "begun"
    code = f"import os, pathlib, time; pathlib.Path({str(begun)!r}).write_text(str(os.getpid())); time.sleep(60)"

    def end() -> None:
        while not (begun.is_file() and begun.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        threading.Thread(target=end, daemon=True).start()
        with pytest.raises(SystemExit, match="143"):
            launch([sys.executable, "-c", code])
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_a_traceback_in_a_run_that_ends_well_does_not_fail_it(tmp_path, capfd):
    body = "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()"
    assert launch(_child(tmp_path, body)) == 0
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_progress_bars_are_drawn_on_a_terminal(tmp_path):
    child = _child(tmp_path, "from tqdm import tqdm\nfor _ in tqdm(range(3), desc='cases', disable=None): pass")
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); from common.cli.launch import launch; launch({child!r})"
    spawn = f"import pty, sys; pty.spawn([sys.executable, '-c', {code!r}])"
    on_terminal = subprocess.run(
        [sys.executable, "-c", spawn], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert "cases: 100%" in on_terminal.stdout
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cases:" not in elsewhere.stdout + elsewhere.stderr


def test_our_own_package_passes(monkeypatch, repository):
    monkeypatch.chdir(repository)
    check_package()


@pytest.fixture
def decoy(tmp_path, monkeypatch, repository) -> Path:
    """A working directory with a foreign package called common, ours being reached through PYTHONPATH."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    return tmp_path


def test_a_foreign_package_is_named_with_the_remedy(decoy):
    with pytest.raises(
        InputError, match=r"another package called 'common' comes first .*common/__init__.py.*PYTHONSAFEPATH=1"
    ) as error:
        check_package()
    assert str(decoy) in str(error.value)


def test_a_foreign_folder_without_init_does_no_harm(decoy):
    (decoy / "common" / "__init__.py").unlink()  # a regular package later on the path wins over a namespace package
    check_package()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 brought PYTHONSAFEPATH")
def test_the_remedy_works(decoy, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    check_package()


def test_a_package_out_of_reach_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", getattr(sys, "_base_executable", sys.executable))
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    with pytest.raises(InputError, match="does not find the package 'common'.*PYTHONPATH="):
        check_package()
