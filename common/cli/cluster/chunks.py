"""Large studies: the cases in chunks, each chunk a process of its own, spread over GPUs and machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...checks import InputError, problem
from ...files import case_name, check_writable
from ..launch import terminated_as_interrupted
from .connect import check_cluster, connected
from .study import Study

__all__ = ["ChunkResult", "run_chunks", "split_cases"]

_MOST = 16  # cases a chunk: more would be begun anew when its worker is lost


@dataclass(frozen=True)
class ChunkResult:
    """What became of a chunk.

    Args:
        cases: its inputs.
        folders: where its results are, one for each attempt, for :func:`~common.cli.gathering.gather`.
        failures: the cases that failed, ``{"case": file name, "error": text}``.
        seconds: how long it took, all attempts together.
    """

    cases: tuple[Path, ...]
    folders: tuple[Path, ...]
    failures: tuple[Mapping[str, str], ...]
    seconds: float = 0.0


def split_cases(cases: Sequence[Path], workers: int | None = None) -> list[list[Path]]:
    """Cases in chunks, in order: some for each worker, so that none waits long for the last, of not too many cases.

    Args:
        cases: inputs.
        workers: how many there will be; None where a scheduler will tell.

    >>> [len(chunk) for chunk in split_cases(list("abcdefghij"), 1)]
    [3, 3, 3, 1]
    """
    size = min(_MOST, max(1, math.ceil(len(cases) / (4 * (workers or 16)))))
    return [list(cases[start : start + size]) for start in range(0, len(cases), size)]


def run_chunks(
    chunks: Sequence[Sequence[Path]],
    command: Callable[[Sequence[Path], Path], list[str]],
    place: Path,
    workers: int | None = None,
    scheduler: str | None = None,
    tls: Path | None = None,
    *,
    retries: int = 3,
    device: str | None = None,
    patience: float = 120.0,
) -> list[ChunkResult]:
    """Run each chunk of cases as one line of its own, several at a time.

    A worker that dies loses no case: what its line has finished is kept, and the rest is begun anew, on another worker
    where there is one. When that was in vain `retries` times, the cases that are left are run one by one, so that a
    case which ends its process takes no other with it; it becomes a failure.

    Args:
        chunks: inputs; no two of all chunks may have the same case name.
        command: gets the cases that are to be done and the folder for their results (``output_dir``), and gives the
            arguments of a ``python -m monai.bundle run`` line; it is called here, never on another machine, and may
            write into that folder.
        place: a folder for all parts, below the user's output; on other machines, too, under the same path.
        workers: processes at a time on this machine; by default one a GPU, or one.
        scheduler: address of a Dask scheduler elsewhere, ``tls://HOST:PORT``, instead of processes here.
        tls: folder with ``ca.pem``, ``cert.pem`` and ``key.pem``, for a scheduler elsewhere.
        retries: how often a chunk is begun anew after its process was lost.
        device: what was given as ``--device``.
        patience: seconds to wait where there is no worker.

    Returns:
        what became of each chunk, in their order; nothing is moved yet: call ``gather``.

    Raises:
        InputError: for a scheduler that is not reached, or neither on TLS nor on this machine; when there is no worker;
            and what all cases have in common. Results so far are in `place` then, and can be gathered.
        WeightsError: for missing or foreign weights.
        KeyboardInterrupt: when it was interrupted; the lines are ended.
    """
    chunks = [tuple(Path(path) for path in chunk) for chunk in chunks]
    check_cluster(workers, scheduler, tls, device)
    _check_names(chunks)
    place = Path(place).resolve()
    check_writable(place)
    with terminated_as_interrupted(), connected(workers, scheduler, tls, device) as client:
        study = Study(client, chunks, command, place, retries, patience)
        study.run()
    return [
        ChunkResult(chunk, tuple(study.folders[k]), tuple(study.failures[k]), study.seconds[k])
        for k, chunk in enumerate(chunks)
    ]


def _check_names(chunks: Sequence[Sequence[Path]]) -> None:
    counted = Counter(case_name(path) for chunk in chunks for path in chunk)
    if twice := [name for name, count in counted.items() if count > 1]:
        rule = "results of all chunks come into one folder, so that every case needs a name of its own"
        raise InputError(problem(f"two inputs are called '{twice[0]}'", rule, "rename one of them"))
