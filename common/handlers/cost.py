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


def _status(entry: str) -> float | None:
    """An entry of Linux's table of the process in MiB; None where there is none."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{entry}:"))
    return None


class PeakMemory:
    """The highest use of memory from now on.

    On a GPU it is what torch's allocator handed out, on the processor the resident size of the whole process,
    libraries and data included. Not every system lets the latter be set back (Linux does, some containers do not);
    then it is the highest since the process began, and ``anew`` is False.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.anew = True
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            before = _status("VmHWM")
            with contextlib.suppress(OSError):  # no Linux, or not allowed
                (_PROCESS / "clear_refs").write_text("5")
            after, now = _status("VmHWM"), _status("VmRSS")
            # some kernels take the request and do nothing
            self.anew = after is not None and (after < before or after <= now + 1)

    @property
    def kind(self) -> str:
        """What is measured."""
        if self.device.type == "cuda":
            return "allocated on the GPU"
        return "resident size of the process" + ("" if self.anew else ", since it began")

    def mib(self) -> float | None:
        """The peak in MiB; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        peak = _status("VmHWM")
        if peak is not None:
            return peak
        if not has_resource:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
