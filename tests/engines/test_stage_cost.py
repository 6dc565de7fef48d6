"""What a training tells of its cost: one file a stage, summed over the runs that it took."""

from __future__ import annotations

import json

import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.engines import StageTrainer
from common.engines.stage_cost import StageCost


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("common.engines.stage_cost.time", clock)
    return clock


def test_seconds_are_summed_over_runs(tmp_path, clock):
    first = StageCost(None, tmp_path)
    first.begin("cpu")
    clock.now += 7
    told = first.so_far()
    assert (told["seconds"], told["runs"]) == (7, 1) and told["peak_memory_mib"] > 50
    clock.now += 30  # an epoch that was not saved
    second = StageCost(None, tmp_path)
    second.begin("cpu")
    second.resume({**told, "peak_memory_mib": 1e9})
    clock.now += 5
    second.write(epochs=4)
    content = json.loads((tmp_path / "training.json").read_text())
    assert (content["seconds"], content["runs"], content["peak_memory_mib"], content["epochs"]) == (12, 2, 1e9, 4)
    assert content["device"].startswith("cpu, ") and content["memory"].startswith("resident size of the process")
    assert content["processes"] == 1 and "stage" not in content
    second.begin("cpu")  # anew, as in federated rounds
    assert second.so_far() | {"peak_memory_mib": 0} == {"seconds": 0, "runs": 1, "peak_memory_mib": 0}


def test_a_resume_file_that_tells_nothing(tmp_path, clock):
    cost = StageCost("finder", tmp_path)
    cost.begin("cpu")
    cost.resume(None)
    clock.now += 2
    cost.write()
    content = json.loads((tmp_path / "training_finder.json").read_text())
    assert (content["stage"], content["seconds"], content["runs"]) == ("finder", 2, 1)


def test_the_highest_use_is_told_and_not_the_last(tmp_path, monkeypatch):
    process = tmp_path / "process"
    process.mkdir()
    monkeypatch.setattr("common.handlers.cost._PROCESS", process)
    cost = StageCost(None, tmp_path)
    (process / "status").write_text("VmHWM:\t 1024000 kB\nVmRSS:\t 1024000 kB\n")
    cost.begin("cpu")
    (process / "status").write_text("VmHWM:\t 3072000 kB\nVmRSS:\t 1024000 kB\n")
    assert cost.so_far()["peak_memory_mib"] == 3000
    cost.write()
    assert json.loads((tmp_path / "training.json").read_text())["memory"] == "resident size of the process"


@pytest.mark.gpu
def test_memory_of_a_gpu(tmp_path):
    cost = StageCost(None, tmp_path)
    cost.begin("cuda")
    before = cost.so_far()["peak_memory_mib"]
    torch.ones(64 * 2**18, device="cuda").sum()
    cost.write()
    content = json.loads((tmp_path / "training.json").read_text())
    assert 60 < content["peak_memory_mib"] - before < 80
    assert (content["memory"], content["device"]) == ("allocated on the GPU", torch.cuda.get_device_name())


class Killed(BaseException):
    """Stands for a kill: nothing in between may catch it."""


def test_a_stage_that_is_resumed_tells_of_all_its_runs(bundle, data, monkeypatch):
    save_resume = StageTrainer._save_resume

    def killing(trainer):
        save_resume(trainer)
        if (trainer.stage, trainer.state.epoch) == ("finder", 2):
            raise Killed

    def train(**overrides):
        flow = ConfigWorkflow(
            config_file=str(bundle / "configs" / "train.json"),
            logging_file=False,
            workflow_type=None,
            meta_file=None,
            bundle_root=str(bundle),
            dataset_dir=str(data),
            **overrides,
        )
        flow.initialize()
        flow.run()

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StageTrainer, "_save_resume", killing)
        train()
    finder = json.loads((bundle / "eval" / "training_finder.json").read_text())
    assert (finder["epochs"], finder["done"], finder["runs"]) == (1, False, 1)
    spent = torch.load(bundle / "eval" / "resume_finder.pt", weights_only=True)["cost"]["seconds"]
    train(resume=True)
    finder, refiner = (
        json.loads((bundle / "eval" / f"training_{stage}.json").read_text()) for stage in ("finder", "refiner")
    )
    assert (finder["epochs"], finder["done"], finder["runs"]) == (3, True, 2) and finder["seconds"] > spent > 0
    assert (refiner["epochs"], refiner["done"], refiner["runs"]) == (3, True, 1)
    best = json.loads((bundle / "models" / "model.json").read_text())["stages"]
    assert (refiner["best_epoch"], refiner["best_score"]) == (best["refiner"]["epoch"], best["refiner"]["score"])
    written = (bundle / "eval" / "training_finder.json").read_text()
    train(resume=True)  # all is done
    assert (bundle / "eval" / "training_finder.json").read_text() == written
