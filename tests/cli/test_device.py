"""A device that is not here is refused before a run begins, and told in the user's words."""

from __future__ import annotations

import pytest
import torch

from common.checks import InputError
from common.cli import words as words_of_cli
from common.cli.commands import main
from common.cli.device import check_device

NAME = "unet3d_sparse"


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch see a number of CUDA devices."""

    def see(count):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda"))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    return see


@pytest.mark.parametrize("words", [["train", NAME], ["evaluate", NAME], ["predict", NAME, "volumes"], ["demo", NAME]])
def test_the_launcher_runs_nothing_on_a_device_that_is_not_here(words, repository, monkeypatch, capsys, gpus):
    monkeypatch.chdir(repository)
    monkeypatch.setattr(words_of_cli, "launch", lambda *_: pytest.fail("the run was started"))
    gpus(0)
    assert main([*words, "--device", "cuda"]) == 2
    told = capsys.readouterr().err
    assert "InputError: --device is 'cuda': it must be one of the devices here: cpu. To mend it," in told
    assert "no GPU is found by torch" in told and "Traceback" not in told


@pytest.mark.parametrize("name", ["foo", "cuda:2", "CUDA", ""])
def test_devices_that_are_here_are_named(gpus, name):
    gpus(2)
    with pytest.raises(InputError, match=f"--device is '{name}': .* here: cpu, cuda, cuda:0, cuda:1"):
        check_device(name)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "$torch.device('cuda', 5)", "@other"])
def test_what_is_here_and_expressions_pass(gpus, name):
    gpus(2)
    check_device(name)


def test_cpu_needs_no_accelerator(gpus):
    gpus(0)
    check_device("cpu")


@pytest.mark.gpu
def test_the_devices_of_this_machine():
    check_device("cuda")
    check_device(f"cuda:{torch.cuda.device_count() - 1}")
    with pytest.raises(InputError, match="cuda:0"):
        check_device(f"cuda:{torch.cuda.device_count()}")
