"""Lines of a study that pretend to segment: quick, and with the faults that tests ask for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# a case is a text file; "wait FILE" waits for that file, "die N" ends the process unless N attempts have begun
_SCRIPT = """
import json, os, pathlib, signal, sys, time
folder, cases = pathlib.Path(sys.argv[1]), [pathlib.Path(word) for word in sys.argv[2:]]
failures, reports = [], []
print("threads", os.environ.get("OMP_NUM_THREADS"), "gpu", os.environ.get("CUDA_VISIBLE_DEVICES"))
(folder.parent / f"{folder.name}.pid").write_text(str(os.getpid()))
for case in cases:
    word, _, value = case.read_text().partition(" ")
    name = case.stem
    (folder / f"{name}_seg.nii.gz").write_bytes(case.read_bytes())
    if word == "wait":
        while not pathlib.Path(value).exists():
            time.sleep(0.05)
    if word == "die" and len(list(folder.parent.glob("*.pid"))) <= int(value):
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "exit":
        sys.exit(3)
    if word == "weights":
        sys.exit("Traceback (most recent call last):\\n  File x\\ncommon.checks.WeightsError: no weights are there")
    if word == "fail":
        failures.append({"case": case.name, "error": value})
        continue
    report = {"case": name, "found": True}
    reports.append(report)
    (folder / f"{name}_report.json").write_text(json.dumps({**report, "weights": "w", "versions": {"a": "1"}}))
(folder / "predictions.json").write_text(json.dumps({"cases": reports, "failures": failures}))
if failures:
    (folder / "failures.json").write_text(json.dumps(failures))
    sys.exit(1)
"""


class Lines:
    """A command for ``run_chunks``, and the cases that it is about.

    Args:
        folder: where cases and script go.
        texts: of the cases by name, in order.
    """

    def __init__(self, folder: Path, texts: Mapping[str, str]) -> None:
        self.script, self.place = folder / "line.py", folder / "place"
        self.script.write_text(_SCRIPT)
        self.cases = [folder / f"{name}.nii" for name in texts]
        for path, text in zip(self.cases, texts.values(), strict=True):
            path.write_text(text)
        self.asked: list[list[str]] = []

    def __call__(self, cases: Sequence[Path], folder: Path) -> list[str]:
        """The line; it notes what it was asked for."""
        self.asked.append([path.stem for path in cases])
        return [sys.executable, str(self.script), str(folder), *map(str, cases)]

    def chunks(self, *sizes: int) -> list[list[Path]]:
        """The cases in chunks of these sizes."""
        cases = iter(self.cases)
        return [[next(cases) for _ in range(size)] for size in sizes]

    def begun(self, part: str) -> dict[str, object] | None:
        """Which worker has taken a part up; None while none has, and before its line runs."""
        file, line = self.place / f"{part}.begun", self.place / f"{part}.pid"
        if not file.is_file() or not line.is_file() or not line.read_text():
            return None
        return {**json.loads(file.read_text()), "line": int(line.read_text())}


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What a condition gives, once it is something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
    return found
