"""Peaks of memory, where the system tells of them in one way or the other."""

import sys

import pytest
import torch

from common.handlers import cost
from common.handlers.cost import PeakMemory, device_name


def test_the_peak_begins_anew():
    first = PeakMemory("cpu")
    if not first.anew:
        pytest.skip("this system does not let the peak of a process be set back")
    assert first.kind == "resident size of the process"
    before = first.mib()
    torch.ones(64 * 2**18).sum()  # 64 MiB, freed again
    peak = first.mib()
    assert 50 < peak - before < 100
    assert PeakMemory("cpu").mib() < peak - 50


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
