"""What a worker of a large study does: run one line to its end, and say how it ended."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import __version__
from ...checks import problem
from ..launch import shown

__all__ = ["begun_file", "dask_setup", "line_environment", "log_file", "present_versions", "run_part"]

_GUARD = Path(__file__).with_name("guard.py")
_POLL = 0.2  # seconds
_one_at_a_time = threading.Lock()  # a worker of several threads shares one GPU among them, too


def dask_setup(worker: object) -> None:
    """Leave an interrupt from the keyboard to the one who started the workers; Dask calls this in each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def log_file(folder: Path) -> Path:
    """Where the output of the line goes that writes its results into `folder`."""
    return folder.with_name(f"{folder.name}.log")


def begun_file(folder: Path) -> Path:
    """Which process took up the part that writes into `folder`; it is written once."""
    return folder.with_name(f"{folder.name}.begun")


def present_versions() -> dict[str, str]:
    """What results depend on beside weights and settings, without the importing of it."""
    found = {"volseg": __version__}
    for name in ("torch", "monai", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name).partition("+")[0]  # +cpu and +cu130 are one version
    return found


def run_part(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run the line of a part in a process of its own.

    Args:
        job: ``command`` and ``python`` (the interpreter that stands in it), ``cwd``, ``folder`` of the results,
            ``stop`` (a file that ends it), ``versions`` of the machine that asked, ``neighbours`` (workers on this
            machine, itself included), ``presets`` (variables that Dask sets for its workers by itself).

    Returns:
        ``state`` "ended" with ``status``, "stopped", "again" where the part was taken up before and its worker lost,
        or "refused" with ``error``.
    """
    folder = Path(job["folder"])
    if not folder.is_dir() or not os.path.isdir(job["cwd"]):
        return {"state": "refused", "error": _not_seen(job)}
    if (here := present_versions()) != job["versions"]:
        return {"state": "refused", "error": _other_versions(here, job["versions"])}
    with _one_at_a_time:
        try:
            with open(begun_file(folder), "x", encoding="utf-8") as stream:
                json.dump({"host": platform.node(), "pid": os.getpid()}, stream)
        except FileExistsError:
            return {"state": "again"}
        return _guarded(job, folder)


def _guarded(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    command = [sys.executable if word == job["python"] else word for word in job["command"]]
    with open(log_file(folder), "w", encoding="utf-8") as log:
        log.write(f"$ {shown(command)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-I", str(_GUARD), *command],
            cwd=job["cwd"],
            env=line_environment(os.environ, job["presets"], job["neighbours"]),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # an interrupt from the keyboard is for the one who asked
        )
    stopped = False
    try:
        while process.poll() is None and not stopped:
            time.sleep(_POLL)
            stopped = os.path.exists(job["stop"])
    finally:
        process.stdin.close()
        status = process.wait()
        if hasattr(os, "killpg"):  # what the line may have left
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
    return {"state": "stopped"} if stopped else {"state": "ended", "status": status}


def line_environment(found: Mapping[str, str], presets: Mapping[str, str], neighbours: int) -> dict[str, str]:
    """The variables of a line: the worker's, but for what Dask sets for work in Python, and its share of the cores.

    Args:
        found: the worker's variables.
        presets: what Dask sets by itself: one thread, which would make a line on a processor slow.
        neighbours: workers on this machine, this one included.

    >>> line_environment({"A": "1", "OMP_NUM_THREADS": "3"}, {"A": "1"}, 4)
    {'OMP_NUM_THREADS': '3', 'PYTHONUNBUFFERED': '1'}
    """
    kept = {name: value for name, value in found.items() if presets.get(name) != value}
    if "OMP_NUM_THREADS" not in kept:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        kept["OMP_NUM_THREADS"] = str(max(1, cores // max(neighbours, 1)))
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _not_seen(job: Mapping[str, Any]) -> str:
    absent = next(path for path in (job["cwd"], job["folder"]) if not os.path.isdir(path))
    return problem(
        f"the worker on {platform.node()} does not find the folder '{absent}'",
        "all machines see the working directory, inputs, bundle and results under the same paths",
        "mount what holds them on every machine, and start from there",
    )


def _other_versions(here: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    def text(versions: Mapping[str, str]) -> str:
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    return problem(
        f"the worker on {platform.node()} has {text(here)}, not {text(wanted)}",
        "results are those of one machine only where versions are the same",
        "install the same versions there",
    )
