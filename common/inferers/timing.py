"""Seconds of the steps of a method, on any device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Adds up the seconds of named steps, each with all work that it has put on the device's queue.

    Args:
        device: where the steps run.

    >>> watch = Stopwatch(torch.device("cpu"))
    >>> with watch.timed("encode"):
    ...     pass
    >>> list(watch.seconds)
    ['encode']
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the seconds of what is inside to those of `step`."""
        start = self._now()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
