"""What a run costs: the device it is on and the most memory that it needs there."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch
from monai.utils import optional_import

resource, has_resource = optional_import("resource")

__all__ = ["PeakMemory", "device_name"]

_PROCESS = Path("/proc/self")  # of Linux


def device_name(device: torch.device | str) -> str:
    """What a table calls a device: the GPU by its model, the processor with the threads that torch uses on it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else device.type


class PeakMemory:
    """The highest use of memory from now on.

    On a GPU it is what torch's allocator handed out, on the processor the resident size of the whole process,
    libraries and data included (elsewhere than on Linux since the process began, since it can not be set back there).

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with contextlib.suppress(OSError):  # no Linux, or not allowed
                (_PROCESS / "clear_refs").write_text("5")

    @property
    def kind(self) -> str:
        """What is measured."""
        return "allocated on the GPU" if self.device.type == "cuda" else "resident size of the process"

    def mib(self) -> float | None:
        """The peak in MiB; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        with contextlib.suppress(OSError, StopIteration):
            lines = (_PROCESS / "status").read_text().splitlines()
            return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
        if not has_resource:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
