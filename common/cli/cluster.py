"""Large studies: the cases in chunks, each chunk a process of its own, spread over GPUs and machines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import case_name, read_json
from .gathering import finished_cases

__all__ = ["ChunkResult", "run_chunks"]


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
) -> list[ChunkResult]:
    """Run each chunk of cases as one line of its own, several at a time.

    Args:
        chunks: inputs; no two of all chunks may have the same case name.
        command: gets the cases that are to be done and the folder for their results (output_dir), and gives the
            arguments of a ``python -m monai.bundle run`` line; it is called here, never on another machine, and may
            write into that folder.
        place: a folder for all parts, below the user's output; on other machines, too, under the same path.
        workers: processes at a time on this machine; by default one a GPU, or one.
        scheduler: address of a Dask scheduler elsewhere, ``tls://HOST:PORT``, instead of processes here.
        tls: folder with ``ca.pem``, ``cert.pem`` and ``key.pem``, for a scheduler elsewhere.
        retries: how often a chunk is begun anew after its worker was lost.
        device: what was given as ``--device``.

    Returns:
        what became of each chunk, in their order; nothing is moved yet: call ``gather``.

    Raises:
        InputError: for a scheduler that is not reached, or neither on TLS nor on this machine; and what all cases have
            in common, such as weights that are not there.
    """
    results = []
    for number, chunk in enumerate(chunks, 1):
        folder = Path(place) / f"part_{number}"
        folder.mkdir(parents=True)
        subprocess.run(command(chunk, folder), env=dict(os.environ), check=False)
        listed = folder / "failures.json"
        failures = read_json(listed) if listed.is_file() else []
        told = finished_cases(folder) | {case_name(failure["case"]) for failure in failures}
        lost = [{"case": path.name, "error": "not done"} for path in chunk if case_name(path) not in told]
        results.append(ChunkResult(tuple(chunk), (folder,), (*failures, *lost)))
    return results
