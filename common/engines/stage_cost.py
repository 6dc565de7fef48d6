"""What training a stage costs: seconds and memory, over all runs that it took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..files import write_json
from ..handlers.cost import PeakMemory, device_name
from .distributed import processes

__all__ = ["StageCost"]

_WHAT = (
    "Seconds are those of all runs that the training took, reading and preprocessing, validations and saving included; "
    "what a run that was broken off did after its last whole epoch was done again, and does not count. Memory is the "
    "most that was in use at a time, of the first process where there are several."
)


class StageCost:
    """Seconds and peak memory of a stage, carried from run to run by its resume file, for ``training.json``.

    Args:
        stage: its name; None where the method has no others.
        output_dir: where ``training.json`` goes, or ``training_STAGE.json`` where there is a name.
    """

    def __init__(self, stage: str | None, output_dir: Path) -> None:
        self.stage = stage
        self.path = output_dir / ("training.json" if stage is None else f"training_{stage}.json")
        self._before: dict[str, Any] = {"seconds": 0.0, "runs": 0, "peak_memory_mib": None}
        self._begun = 0.0
        self._memory: PeakMemory | None = None

    def begin(self, device: torch.device | str) -> None:
        """A run begins, the first one of the stage unless :meth:`resume` is called."""
        self._before = {"seconds": 0.0, "runs": 0, "peak_memory_mib": None}
        self._memory, self._begun = PeakMemory(device), time.perf_counter()

    def resume(self, before: Mapping[str, Any] | None) -> None:
        """What earlier runs cost, as :meth:`so_far` told it; None where they did not tell."""
        self._before |= before or {}

    def so_far(self) -> dict[str, Any]:
        """Cost of this run and of those before it: plain values, for the resume file."""
        peaks = [peak for peak in (self._before["peak_memory_mib"], self._memory.mib()) if peak is not None]
        return {
            "seconds": self._before["seconds"] + time.perf_counter() - self._begun,
            "runs": self._before["runs"] + 1,
            "peak_memory_mib": max(peaks) if peaks else None,
        }

    def write(self, **more: Any) -> None:
        """Write the file, whole or not at all.

        Args:
            more: further entries, such as ``epochs``.
        """
        write_json(
            self.path,
            {
                **({} if self.stage is None else {"stage": self.stage}),
                **more,
                **self.so_far(),
                "memory": self._memory.kind,
                "device": device_name(self._memory.device),
                "processes": processes(),
                "what": _WHAT,
            },
        )
