"""What several benchmarks measure with: bytes that autograd keeps, seconds in turn, peaks of fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def kept_bytes(step: Callable[..., object], *inputs: object) -> int:
    """Bytes of the distinct storages that autograd keeps for the backward pass of a call, weights left out."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = step(*inputs)
    del result
    return sum(kept.values())


class CountedPeak(TorchDispatchMode):
    """Within, the most bytes that tensors made there hold at a time, on any device, meta included, as `peak`.

    What a kernel needs while it runs, such as the workspace of a convolution, is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: D105
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._live:
            self._live.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._live.discard(key)
        self.now -= size


def seconds_of(call: Callable[[], object], device: str) -> float:
    """Seconds of a call: of the processor, or of the GPU's queue."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def in_turn(calls: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every call, round by round."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            spent[name].append(seconds_of(call, device))
    return spent


def status(name: str) -> int:
    """A line of this process's memory, bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def peak_of(call: Callable[[], object], device: str) -> int:
    """Bytes that a call needs beyond what is there before: resident set, or the allocator's on a GPU."""
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set so far becomes the present one
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def peak(script: str, *arguments: object) -> int:
    """Bytes that ``SCRIPT --child ARGUMENTS`` prints, in a fresh process that gives freed memory back at once."""
    command = [sys.executable, script, "--child", json.dumps(arguments)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()[-1])


def times(size: tuple[int, ...]) -> str:
    """A size as one writes it."""
    return "x".join(str(n) for n in size)
