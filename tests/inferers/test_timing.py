"""Seconds of steps."""

import time

import pytest
import torch

from common.inferers.timing import Stopwatch


def test_each_step_adds_up_by_its_name():
    watch = Stopwatch(torch.device("cpu"))
    for step, seconds in (("encode", 0.02), ("decode", 0.01), ("encode", 0.02)):
        with watch.timed(step):
            time.sleep(seconds)
    assert list(watch.seconds) == ["encode", "decode"]
    assert watch.seconds["encode"] >= 0.04 and 0.01 <= watch.seconds["decode"] < watch.seconds["encode"]


@pytest.mark.gpu
def test_work_on_the_queue_counts():
    device = torch.device("cuda")
    watch, matrix = Stopwatch(device), torch.rand(4096, 4096, device=device)
    matrix @ matrix  # the first one loads the library
    start = time.perf_counter()
    with watch.timed("queued"):
        for _ in range(20):
            matrix = matrix @ matrix
    waited = time.perf_counter() - start
    torch.cuda.synchronize()
    assert watch.seconds["queued"] > 0.9 * waited and time.perf_counter() - start < 1.1 * waited + 0.01
