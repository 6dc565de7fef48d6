"""Peaks of memory, where the system tells of them in one way or the other."""

import os
import subprocess
import sys

import pytest
import torch

from common.handlers import cost
from common.handlers.cost import PeakMemory, device_name

_ANEW = """
import torch
from common.handlers.cost import PeakMemory

torch.ones(64 * 2**18).sum()  # 64 MiB, freed again
first = PeakMemory("cpu")
before = first.mib()
torch.ones(128 * 2**18).sum()
peak = first.mib()
second = PeakMemory("cpu")
print(first.anew, before, peak, second.anew, second.mib(), first.kind, sep=",")
"""


def test_the_peak_begins_anew():
    # in a process of its own: a long one has freed memory at hand, and its size does not grow with what it takes;
    # without what commands set so that their processes keep the memory that is freed
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    answer = subprocess.run([sys.executable, "-c", _ANEW], env=plain, capture_output=True, text=True, check=True).stdout
    anew, before, peak, again, last, kind = answer.strip().split(",", 5)
    if anew != "True" or again != "True":
        pytest.skip("this system does not let the peak of a process be set back")
    assert kind == "resident size of the process"
    assert 100 < float(peak) - float(before) < 160 and float(last) < float(peak) - 100


def test_a_system_that_does_not_set_the_peak_back(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "_PROCESS", tmp_path)
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 2048000 kB\nVmRSS:\t 1024000 kB\n")
    memory = PeakMemory("cpu")
    assert not memory.anew and memory.mib() == 2000 and memory.kind == "resident size of the process, since it began"


def test_elsewhere_than_on_linux(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "_PROCESS", tmp_path / "none")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    assert PeakMemory("cpu").mib() == cost.resource.getrusage(cost.resource.RUSAGE_SELF).ru_maxrss / unit > 50
    monkeypatch.setattr(cost, "has_resource", False)
    assert PeakMemory("cpu").mib() is None


def test_devices_have_names():
    assert device_name("cpu") == f"cpu, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    assert device_name("meta") == "meta"


@pytest.mark.gpu
def test_a_gpu():
    memory = PeakMemory("cuda")
    before = memory.mib()
    torch.ones(64 * 2**18, device="cuda").sum()
    assert memory.mib() == pytest.approx(before + 64, abs=1) and memory.kind == "allocated on the GPU"
