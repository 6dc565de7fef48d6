"""A step's script as a process of its own, and the outcome that it tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "outcome_of", "run_logged"]

_MARK = "RESULT "
_GRACE = 10.0  # seconds that a process has to end by itself


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Args:
        passed: True, False, or None where it is impossible.
        told: the figure that counts, or the reason.
        figures: numbers by name.
        seconds: that it took.
    """

    passed: bool | None
    told: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def outcome_of(text: str, status: int) -> Outcome:
    """The outcome that the output of a script tells, by its last line that begins with RESULT.

    Args:
        text: the output.
        status: of the process.

    >>> outcome_of('RESULT {"passed": true, "told": "loss 0.5", "figures": {"loss": 0.5}}', 0).told
    'loss 0.5'
    """
    marked = [line for line in text.splitlines() if line.startswith(_MARK)]
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
    if not marked:
        return Outcome(False, f"no line RESULT, status {status}: {last}")
    try:
        result = json.loads(marked[-1].removeprefix(_MARK))
        passed, told, figures = result["passed"], result["told"], result.get("figures", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Outcome(False, f"a line RESULT that can not be read ({error!r}): {marked[-1]}")
    if not (passed is None or isinstance(passed, bool)) or not isinstance(told, str) or not isinstance(figures, dict):
        return Outcome(False, f"a line RESULT of another form: {marked[-1]}")
    if status and passed is not False:
        return Outcome(False, f"status {status} after '{told}': {last}", figures)
    return Outcome(passed, " ".join(told.split()), figures)


def run_logged(command: Sequence[str], cwd: Path, variables: Mapping[str, str], log: Path, seconds: float) -> Outcome:
    """Run a script, keep what it says, and end it with all that it started when it takes too long.

    Args:
        command: the line.
        cwd: its working directory.
        variables: its environment.
        log: the file of its output; an earlier one is replaced.
        seconds: that it may take.
    """
    began = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as stream:
        stream.write(f"$ {' '.join(command)}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        late = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:  # also after an interrupt from the keyboard, which a session of its own does not hear
            _end(process)
    took = time.perf_counter() - began
    text = log.read_text(encoding="utf-8", errors="replace").split("\n", 1)[-1]
    if late:
        return Outcome(False, f"not done after {seconds / 60:.0f} minutes", {}, took)
    found = outcome_of(text, process.returncode)
    return Outcome(found.passed, found.told, found.figures, took)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, where it is not done, and what it started and left, which is in the group of its number."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
