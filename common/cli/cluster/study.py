"""The loop of a large study: parts are handed to workers, and begun anew where these are lost."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monai.utils import optional_import
from tqdm import tqdm

from ...checks import InputError, WeightsError, problem
from ...files import case_name, read_json
from ..excerpt import user_error
from ..gathering import finished_cases
from ..launch import shown
from .worker import log_file, present_versions, run_part

dask, _ = optional_import("dask")
distributed, _ = optional_import("distributed")

__all__ = ["Study"]

_POLL = 0.2  # seconds


@dataclass(eq=False)
class _Task:
    """Cases of a chunk that are to be done, and what was tried so far."""

    chunk: int
    cases: Sequence[Path]
    limit: int  # of attempts
    attempts: int = 0
    tried: set[str] = field(default_factory=set)  # addresses of workers


@dataclass(frozen=True)
class _Attempt:
    task: _Task
    folder: Path
    worker: str
    future: Any
    begun: float


class Study:
    """Hands parts to workers, one to each, and looks after them.

    Which worker has which part is decided here: a part whose worker is gone is known at once, whatever the scheduler's
    own settings for tasks that are lost.

    Args:
        client: of Dask.
        chunks: inputs.
        command: gives a line for cases and the folder of their results.
        place: a folder for all parts.
        retries: how often a chunk is begun anew after its process was lost.
        patience: seconds to wait where there is no worker.

    Attributes:
        folders: of the attempts of each chunk.
        failures: ``{"case": file name, "error": text}`` of each chunk.
        seconds: that each chunk took.
    """

    def __init__(
        self,
        client: Any,
        chunks: Sequence[Sequence[Path]],
        command: Callable[[Sequence[Path], Path], list[str]],
        place: Path,
        retries: int,
        patience: float,
    ) -> None:
        self.client, self.chunks, self.command, self.place = client, chunks, command, place
        self.patience = patience
        self.waiting = deque(_Task(k, chunk, retries + 1) for k, chunk in enumerate(chunks) if chunk)
        self.running: list[_Attempt] = []
        self.workers: list[str] = []
        self.folders: list[list[Path]] = [[] for _ in chunks]
        self.failures: list[list[Mapping[str, str]]] = [[] for _ in chunks]
        self.seconds = [0.0] * len(chunks)
        self.stop = place / f"stop_{secrets.token_hex(4)}"
        self.versions, self.done, self.begun = present_versions(), 0, time.monotonic()
        self.presets = {k: str(v) for k, v in dask.config.get("distributed.nanny.pre-spawn-environ").items()}
        self.bar: tqdm | None = None

    def run(self) -> None:
        """Run everything to its end.

        Raises:
            InputError: when there is no worker, and for what all cases have in common.
            WeightsError: for missing or foreign weights.
        """
        with tqdm(total=sum(map(len, self.chunks)), unit="case", smoothing=0, disable=None) as self.bar:
            try:
                seen = time.monotonic()
                while self.waiting or self.running:
                    self._look()
                    seen = time.monotonic() if self.workers else seen
                    if time.monotonic() - seen > self.patience:
                        raise InputError(self._nobody())
                    self._begin()
                    time.sleep(_POLL)
                    self._collect()
                    self._count()
            finally:
                if self.running:
                    self.stop.touch()  # a line can not be ended from here, but its worker looks for this
                    self.client.cancel([attempt.future for attempt in self.running])

    def _look(self) -> None:
        """See which workers there are; none where the scheduler does not answer."""
        try:
            self.workers = list(self.client.nthreads())
        except (OSError, RuntimeError, ValueError):  # of a connection that was closed
            self.workers = []

    def _begin(self) -> None:
        """Give a part to each worker that has none; one that was tried with it comes last."""
        busy = {attempt.worker for attempt in self.running}
        free = [worker for worker in self.workers if worker not in busy]
        while free and self.waiting:
            task = self.waiting.popleft()
            worker = min(free, key=lambda address: address in task.tried)
            free.remove(worker)
            self._submit(task, worker)

    def _submit(self, task: _Task, worker: str) -> None:
        task.attempts += 1
        task.tried.add(worker)
        folder = self._folder(task.chunk)
        command = self.command(task.cases, folder)
        self.bar.write(f"$ {shown(command)}", file=sys.stdout)
        host = urlsplit(worker).hostname
        job = {
            "command": command,
            "python": sys.executable,
            "cwd": os.getcwd(),
            "folder": str(folder),
            "stop": str(self.stop),
            "versions": self.versions,
            "neighbours": sum(urlsplit(address).hostname == host for address in self.workers),
            "presets": self.presets,
        }
        future = self.client.submit(run_part, job, key=f"part-{folder.name}-{secrets.token_hex(4)}", workers=[worker])
        self.running.append(_Attempt(task, folder, worker, future, time.monotonic()))

    def _folder(self, chunk: int) -> Path:
        """A new folder for an attempt: a process that is lost to us may still be writing into the last one."""
        number = len(self.folders[chunk]) + 1
        while True:
            folder = self.place / f"part_{chunk + 1}.{number}"
            try:
                folder.mkdir()
            except FileExistsError:  # of an earlier run
                number += 1
                continue
            self.folders[chunk].append(folder)
            return folder

    def _collect(self) -> None:
        """Take what has ended, and what was lost with its worker."""
        for attempt in list(self.running):
            gone = bool(self.workers) and attempt.worker not in self.workers
            if not attempt.future.done() and not gone:
                continue
            self.running.remove(attempt)
            self.seconds[attempt.task.chunk] += time.monotonic() - attempt.begun
            if attempt.future.status == "finished":
                self._take(attempt, attempt.future.result())
            elif attempt.future.status == "error" and not isinstance(
                attempt.future.exception(), distributed.KilledWorker
            ):
                raise InputError(self._unfit(attempt))
            else:
                self.client.cancel([attempt.future])
                self._settle(attempt, "its worker was lost")

    def _take(self, attempt: _Attempt, told: Mapping[str, Any]) -> None:
        if told["state"] == "refused":
            raise InputError(told["error"])
        if told["state"] != "ended":
            self._settle(attempt, "its worker was lost")
            return
        status, log = told["status"], log_file(attempt.folder)
        text = log.read_text(encoding="utf-8", errors="replace").rstrip() if log.is_file() else ""
        error = user_error(text) if status and not (attempt.folder / "failures.json").is_file() else None
        if error is not None:  # not of one case: that would be among the failures
            raise (WeightsError if error[0] == WeightsError.__name__ else InputError)(error[1])
        signal = f"was ended by signal {status - 128}" if status > 128 else f"ended with status {status}"
        self._settle(attempt, f"its process {signal}", text.splitlines()[-1][:200] if text and status <= 128 else "")

    def _settle(self, attempt: _Attempt, reason: str, last: str = "") -> None:
        """Note what an attempt has done, and see to the rest."""
        task, folder = attempt.task, attempt.folder
        listed = folder / "failures.json"
        failed = read_json(listed) if listed.is_file() else []
        self.failures[task.chunk] += failed
        told = finished_cases(folder) | {case_name(failure["case"]) for failure in failed}
        left = [path for path in task.cases if case_name(path) not in told]
        self.done += len(task.cases) - len(left)
        part = f"part {task.chunk + 1} of {len(self.chunks)}"
        if not left:
            self._tell(f"{part}: done, {self._progress()}")
        elif task.attempts < task.limit:
            task.cases = left
            self.waiting.append(task)
            self._tell(f"{part}: {reason}; {len(left)} cases are begun anew, attempt {task.attempts + 1}")
        elif len(left) > 1:
            self.waiting += [_Task(task.chunk, [path], 1, tried=set(task.tried)) for path in left]
            self._tell(f"{part}: {reason}; {len(left)} cases are begun anew, one by one")
        else:
            self.failures[task.chunk].append({"case": left[0].name, "error": _given_up(left[0], reason, last)})
            self.done += 1
            self._tell(f"{part}: {reason}; {left[0].name} is given up")

    def _count(self) -> None:
        """Move the bar to the number of cases that are done, in lines that have not ended, too."""
        if not self.bar.disable:
            under_way = sum(len(finished_cases(attempt.folder)) for attempt in self.running)
            self.bar.update(self.done + under_way - self.bar.n)

    def _progress(self) -> str:
        total, taken = self.bar.total, time.monotonic() - self.begun
        left = tqdm.format_interval(taken * (total - self.done) / max(self.done, 1))
        return f"{self.done} of {total} cases" + (f", about {left} left" if self.done < total else "")

    def _tell(self, text: str) -> None:
        self.bar.write(text, file=sys.stdout)

    def _nobody(self) -> str:
        return problem(
            f"there was no worker for {self.patience:.0f} s",
            "a scheduler hands the work to workers that are connected to it",
            "start workers, and give the same line again: it goes on from here",
        )

    def _unfit(self, attempt: _Attempt) -> str:
        return problem(
            f"the worker {attempt.worker} can not run a part ({attempt.future.exception()})",
            "volseg must be installed there, in the same version, and results be written",
            "install it there, or see to the folder",
        )


def _given_up(case: Path, reason: str, last: str) -> str:
    return problem(
        f"'{case.name}' was not done when {reason}" + (f" ({last})" if last else ""),
        "a case must fit into a worker's memory",
        "give the same line again with fewer workers, or on a machine with more memory",
    )
