"""What a script tells, and what becomes of one that does not end."""

from __future__ import annotations

import os
import sys
import time

import pytest

from common.certify.running import outcome_of, run_logged


def test_the_last_result_counts():
    lines = ['RESULT {"passed": false, "told": "a"}', 'RESULT {"passed": true, "told": "b\\n c", "figures": {"x": 1}}']
    found = outcome_of("\nmore\n".join([*lines, ""]), 0)
    assert (found.passed, found.told, found.figures) == (True, "b c", {"x": 1})


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("", 0, "no line RESULT, status 0: it said nothing"),
        ("Error: x\n\n", 1, "no line RESULT, status 1: Error: x"),
        ('RESULT {"passed": true', 0, "can not be read"),
        ('RESULT {"told": "x"}', 0, "can not be read"),
        ("RESULT []", 0, "can not be read"),
        ('RESULT {"passed": "yes", "told": "x"}', 0, "of another form"),
        ('RESULT {"passed": 1, "told": "x"}', 0, "of another form"),
        ('RESULT {"passed": true, "told": null}', 0, "of another form"),
        ('RESULT {"passed": true, "told": "x", "figures": []}', 0, "of another form"),
        ('RESULT {"passed": true, "told": "x"}\nkilled', -9, "status -9 after 'x': killed"),
        ('RESULT {"passed": null, "told": "x"}', 2, "status 2 after 'x'"),
        (' RESULT {"passed": true, "told": "x"}', 0, "no line RESULT"),
    ],
)
def test_what_is_not_told_as_agreed_has_failed(text, status, told):
    found = outcome_of(text, status)
    assert found.passed is False and told in found.told


def test_impossible_is_told_by_null():
    assert outcome_of('RESULT {"passed": null, "told": "no GPU"}', 0).passed is None


def test_a_script_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    child = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys, signal, time; signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        f"p = subprocess.Popen([sys.executable, '-S', '-c', {child!r}]); print(p.pid, flush=True); time.sleep(60)"
    )
    began, log = time.perf_counter(), tmp_path / "x.log"
    found = run_logged([sys.executable, "-S", "-c", code], tmp_path, dict(os.environ), log, 1.5)
    assert found.passed is False and "not done after" in found.told and found.seconds >= 1.5
    assert time.perf_counter() - began < 30
    assert _ended(int(log.read_text().splitlines()[-1]))


def test_what_a_script_leaves_running_is_ended(tmp_path):
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        'print(p.pid); print(\'RESULT {"passed": true, "told": "x"}\')'
    )
    log = tmp_path / "x.log"
    assert run_logged([sys.executable, "-S", "-c", code], tmp_path, dict(os.environ), log, 30).passed
    assert _ended(int(log.read_text().splitlines()[-2]))


def _ended(pid: int) -> bool:
    """Whether a process is gone, or waits for the one that takes orphans in to look at it."""
    for _ in range(50):
        try:
            with open(f"/proc/{pid}/stat") as stream:
                if stream.read().rsplit(") ", 1)[1].startswith("Z"):
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False
