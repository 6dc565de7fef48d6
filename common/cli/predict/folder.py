"""The folder of a prediction's results: one process at a time, what is staged in it, and its lists."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

from ...checks import InputError, problem
from ...files import case_name, check_writable, read_json, write_json
from ..gathering import gather
from .request import Record, label_file
from .stage import Cases

__all__ = ["PARTS", "Results", "working_in"]

_STAGED, PARTS = ".staged", "parts"


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """A private folder inside that of the results, which is removed at the end, also after an error or a signal.

    What a run that was killed has left of it is put in place, or removed.

    Args:
        folder: of the results; made if need be.

    Raises:
        InputError: when it is a file or can not be written to, or another process works in it.
    """
    if folder.exists() and not folder.is_dir():
        rule = "results of several kinds are written, so that --out must be a folder"
        raise InputError(problem(f"--out '{folder}' is a file", rule, "name another place"))
    new = not folder.exists()
    check_writable(folder)
    place = folder / _STAGED
    with _alone(folder), _ended_in_order():
        if place.exists():
            gather(sorted((place / PARTS).glob("part_*")), folder)
            shutil.rmtree(place)
        try:
            place.mkdir(mode=0o700)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            if new:  # what was refused leaves nothing behind
                with contextlib.suppress(OSError):
                    folder.rmdir()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes of this machine, where the system can."""
    if fcntl is None:
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # any other: a file system without locks
            os.close(held)
            came, rule = f"another prediction writes to '{folder}'", "one at a time writes to a folder"
            raise InputError(problem(came, rule, "wait for its end, or pass another folder as --out")) from error
    try:
        yield
    finally:
        os.close(held)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let the signal to terminate end this process as an error does, so that nothing private is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would cut the tidying short
        print("Terminated; the same line goes on.", file=sys.stderr)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Results:
    """The results of a call in their folder.

    Args:
        folder: where they are.
        record: what answers the request.
        cases: of the call.
    """

    def __init__(self, folder: Path, record: Record, cases: Cases) -> None:
        self.folder, self.record, self.cases = folder, record, cases

    def begin(self) -> None:
        """Note the request, and take from the folder what would be of an earlier one beside what is to come."""
        self.record.forget(case.name for case in self.cases.waiting)
        self.record.write()
        (self.folder / "failures.json").unlink(missing_ok=True)
        for case in self.cases.waiting:
            self.segmentation(case.name).unlink(missing_ok=True)

    def label(self, name: str) -> Path:
        """The file of a case's label."""
        return self.folder / label_file(name, self.record.report(name) or {})

    def segmentation(self, name: str) -> Path:
        """The file of a case's DICOM SEG, beside that of its label."""
        label = self.label(name)
        return label.with_name(f"{case_name(label)}.dcm")

    def failures(self) -> list[dict[str, str]]:
        """What failed in the line, as it left it in ``failures.json``.

        Cases are called what their results would be called, and folders are cut from the texts: they may name people.
        """
        listed = self.folder / "failures.json"
        cases, told = self.cases.waiting, []
        staged = {case.path.name: case.name for case in cases if case.source is not None}
        parents = {parent for case in cases for parent in (case.path.parent, self.cases.place / case.name)}
        parents |= {self.cases.place, *(parent.absolute() for parent in parents)}
        longest_first = sorted((os.path.join(parent, "") for parent in parents), key=len, reverse=True)
        for one in read_json(listed) if listed.is_file() else []:
            text = one["error"]
            for parent in longest_first:
                text = text.replace(parent, "")
            told.append({"case": staged.get(one["case"], one["case"]), "error": text})
        return told

    def write_lists(self, failures: Sequence[Mapping[str, str]]) -> None:
        """Write ``predictions.json`` and ``failures.json`` anew.

        The first lists every case in the folder that answers the request, those of this call first; the second what
        failed in this call.

        Args:
            failures: ``{"case": name, "error": text}``.
        """
        reports = self.record.reports()
        ordered = [reports.pop(case.name) for case in self.cases.cases if case.name in reports] + list(reports.values())
        shared = {name: ordered[-1].get(name) for name in ("weights", "versions")} if ordered else {}
        entries = []
        for report in ordered:
            entries.append({name: value for name, value in report.items() if name not in shared})
            if (written := self.segmentation(report["case"])).is_file():
                entries[-1]["dicom_seg"] = written.name
        self._write("predictions.json", {**shared, "cases": entries, "failures": list(failures)} if entries else None)
        self._write("failures.json", list(failures) or None)

    def _write(self, name: str, content: Any) -> None:
        if content is None:
            (self.folder / name).unlink(missing_ok=True)
        else:
            write_json(self.folder / name, content)
