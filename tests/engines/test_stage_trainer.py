"""The trainer of stages, on a tiny method of two: order, best weights, records, resuming after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.handlers import from_engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.engines import StageTrainer
from common.weights import save_weights

TOY = Path(__file__).resolve().parents[1] / "two_stage"
REPOSITORY = TOY.parents[1]


def causes(error: BaseException | None) -> str:
    """The texts of an error and of all that led to it: MONAI wraps what an expression raises."""
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return "\n".join(texts)


def workflow(bundle: Path, data: Path, run_id: str = "run", **overrides) -> ConfigWorkflow:
    flow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "train.json"),
        logging_file=False,
        run_id=run_id,
        workflow_type=None,
        meta_file=None,
        bundle_root=str(bundle),
        dataset_dir=str(data),
        **overrides,
    )
    flow.initialize()
    return flow


def train(bundle: Path, data: Path, run_id: str = "run", **overrides) -> dict[str, torch.Tensor]:
    workflow(bundle, data, run_id, **overrides).run()
    return weights(bundle)


def weights(bundle: Path) -> dict[str, torch.Tensor]:
    return torch.load(bundle / "models" / "model.pt", weights_only=True)


def same(first, second, prefix: str = "") -> bool:
    return all(torch.equal(first[key], second[key]) for key in first if key.startswith(prefix))


def test_all_stages_leave_one_file_with_each_at_its_best(bundle, data):
    parser = workflow(bundle, data)
    untrained = {key: value.clone() for key, value in parser.parser.get_parsed_content("network").state_dict().items()}
    parser.run()
    trained = weights(bundle)
    assert trained.keys() == untrained.keys()
    assert not same(trained, untrained, "finder") and not same(trained, untrained, "refiner")
    info = json.loads((bundle / "models" / "model.json").read_text())
    assert set(info["stages"]) == {"finder", "refiner"}
    assert info["stages"]["finder"]["metric"] == "finder_dice" and info["stages"]["refiner"]["metric"] == "val_dice"
    assert sorted(path.name for path in (bundle / "models").iterdir()) == ["model.json", "model.pt"]


def test_the_best_epoch_is_what_stays(bundle, data):
    flow = workflow(bundle, data, epochs=4, learning_rate=0.05)
    scores = []
    trainer = flow.parser.get_parsed_content("train::trainer")
    trainer.evaluator.add_event_handler(
        Events.COMPLETED,
        lambda engine: scores.append(
            (
                engine.state.metrics["val_dice"],
                {key: value.clone() for key, value in trainer.composite.state_dict().items()},
            )
        ),
    )
    flow.run()
    best = max(scores, key=lambda pair: pair[0])
    assert same(weights(bundle), best[1])
    assert same(trainer.composite.state_dict(), best[1])  # and was read back


@pytest.mark.parametrize("override, value", [("train::trainer::max_epochs", 2), ("epochs", 2)])
def test_an_override_of_the_epochs_reaches_every_stage(bundle, data, override, value):
    train(bundle, data, **{override: value})
    for stage in ("finder", "refiner"):
        content = torch.load(bundle / "eval" / f"resume_{stage}.pt", weights_only=True)
        assert content["epoch"] == 2 and content["done"]


def test_an_override_of_the_data_reaches_every_stage(bundle, data):
    one = [{"image": str(data / "image0.nii.gz"), "label": str(data / "label0.nii.gz")}]
    flow = workflow(bundle, data, **{"train::dataset::data": one})
    for stage in ("finder", "train"):
        assert len(flow.parser.get_parsed_content(f"{stage}::dataset")) == 1


class Recorder:
    """A handler that a caller adds: keeps its name and the engines it was attached to."""

    seen: list[tuple[str, str]] = []

    def __init__(self, tag_name: str = "train_loss", run_name: str | None = None) -> None:
        self.tag_name, self.run_name = tag_name, run_name

    def attach(self, engine) -> None:
        self.seen.append((getattr(engine, "stage", ""), self.tag_name, self.run_name))


def test_a_handler_added_by_a_caller_reaches_every_stage_under_its_own_name(bundle, data):
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    handlers = [*parser.get("train::handlers"), {"_target_": f"{__name__}.Recorder"}]
    Recorder.seen.clear()
    sys.modules.setdefault(__name__, sys.modules[Recorder.__module__])
    train(bundle, data, **{"train::handlers": handlers})
    assert set(Recorder.seen) == {("finder", "finder_train_loss", "finder"), ("refiner", "train_loss", None)}


def test_each_stage_has_its_own_scalars_and_curves(bundle, data):
    train(bundle, data)
    for stage in ("finder", "refiner"):
        assert list((bundle / "eval" / "tensorboard" / stage).glob("events*"))
        assert (bundle / "eval" / f"curves_{stage}.png").stat().st_size > 1000


def test_one_stage_alone_keeps_the_other(bundle, data):
    both = train(bundle, data)
    alone = train(bundle, data, "train_refiner", seed=7, epochs=5)
    assert same(both, alone, "finder") and not same(both, alone, "refiner")


def test_a_new_training_keeps_the_weights_of_the_one_before(bundle, data):
    old = train(bundle, data)
    train(bundle, data, seed=5)
    train(bundle, data, seed=6)
    kept = torch.load(bundle / "models" / "model_previous.pt", weights_only=True)
    assert same(old, kept)  # also after a third training, or one that was broken off
    names = {"model", "model_previous", "model_previous_2"}
    assert {path.stem for path in (bundle / "models").iterdir()} == names


class Killed(BaseException):
    """Stands for a kill: nothing in between may catch it."""


MOMENTS = ["before_best", "before_resume", "after_resume"]
KILLS = [((stage, epoch), moment) for stage in ("finder", "refiner") for epoch in (1, 2) for moment in MOMENTS]


@pytest.mark.parametrize("where, moment", [*KILLS, (("finder", 3), "after_resume"), (("refiner", 3), "after_resume")])
def test_resumed_after_a_kill_equals_unbroken(tmp_path, bundle, data, monkeypatch, where, moment):
    unbroken = tmp_path / "unbroken"
    shutil.copytree(bundle / "configs", unbroken / "configs")
    expected = train(unbroken, data)

    save_best, save_resume = StageTrainer._save_best, StageTrainer._save_resume

    def here(trainer) -> bool:
        return (trainer.stage, trainer.state.epoch) == where

    def killing_best(trainer, metric):
        if here(trainer) and moment == "before_best":
            raise Killed
        save_best(trainer, metric)

    def killing_resume(trainer):
        if here(trainer) and moment == "before_resume":
            raise Killed
        save_resume(trainer)
        if here(trainer) and moment == "after_resume":
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StageTrainer, "_save_best", killing_best)
        patch.setattr(StageTrainer, "_save_resume", killing_resume)
        # every epoch is the best so far, so that "before_best" is met whichever epoch it is
        patch.setattr(StageTrainer, "_is_best", lambda trainer, validated: True) if moment == "before_best" else None
        train(bundle, data)
    resumed = train(bundle, data, resume="true")
    assert same(expected, resumed)
    first, second = (
        json.loads((folder / "models" / "model.json").read_text())["stages"] for folder in (unbroken, bundle)
    )
    assert first == second


@pytest.mark.slow
def test_a_process_killed_at_any_moment_resumes(bundle, data, tmp_path):
    unbroken = tmp_path / "unbroken"
    shutil.copytree(bundle / "configs", unbroken / "configs")
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        str(bundle / "configs/train.json"),
        "--bundle_root",
        str(bundle),
        "--dataset_dir",
        str(data),
        "--epochs",
        "12",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{TOY}"}
    for attempt in range(3):
        process = subprocess.Popen(
            [*command, "--resume", "true"], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (bundle / "eval").is_dir() and len(list((bundle / "eval").glob("resume_*.pt"))) > attempt // 2:
                time.sleep(0.13 * (attempt + 1))
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--resume", "true"], env=environment, check=True, capture_output=True)
    assert same(train(unbroken, data, epochs=12), weights(bundle))


def test_resume_files_of_an_earlier_run_are_not_taken_up(bundle, data, monkeypatch):
    train(bundle, data, seed=3)  # leaves resume files of both stages

    def no_second_stage(trainer):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StageTrainer, "_read_best_back", no_second_stage)
        train(bundle, data, seed=0)
    resumed = train(bundle, data, seed=0, resume=True)
    shutil.rmtree(bundle / "eval"), shutil.rmtree(bundle / "models")
    assert same(train(bundle, data, seed=0), resumed)


def test_more_epochs_go_on_from_a_finished_run(bundle, data):
    train(bundle, data, "train_finder", epochs=2)
    train(bundle, data, "train_finder", epochs=4, resume=True)
    assert torch.load(bundle / "eval" / "resume_finder.pt", weights_only=True)["epoch"] == 4


def test_other_epochs_under_a_falling_learning_rate_are_refused(bundle, data):
    train(bundle, data, epochs=2)
    with pytest.raises(RuntimeError) as caught:
        train(bundle, data, epochs=4, resume=True, **{"finder::trainer::max_epochs": 2})
    assert "stage 'refiner' was planned for 2 epochs, not 4" in causes(caught.value)


def test_settings_go_with_the_weights_and_others_are_not_resumed(bundle, data):
    settings = {"train::trainer::settings": {"dilation": 3}}
    train(bundle, data, epochs=2, **settings)
    assert json.loads((bundle / "models" / "model.json").read_text())["settings"] == {"dilation": 3}
    train(bundle, data, epochs=2, resume=True, **settings)
    with pytest.raises(RuntimeError) as caught:
        train(bundle, data, epochs=2, resume=True, **{"train::trainer::settings": {"dilation": 5}})
    assert "stage 'refiner' was begun with dilation 3 (now 5)" in causes(caught.value)


def test_weights_of_another_run_are_not_taken_for_the_best_of_this_one(bundle, data):
    train(bundle, data)
    train(bundle, data, seed=1, output_dir=str(bundle / "elsewhere"))
    with pytest.raises(RuntimeError) as caught:
        train(bundle, data, resume=True)
    assert re.search("model.pt' was written by another training than '.*resume_finder.pt'", causes(caught.value))


def test_a_folder_that_can_not_be_written_is_named_before_the_first_epoch(bundle, data):
    (bundle / "taken").touch()
    for override in (
        {"output_dir": str(bundle / "taken" / "eval")},
        {"model_path": str(bundle / "taken" / "model.pt")},
    ):
        with pytest.raises(RuntimeError) as caught:
            train(bundle, data, **override)
        assert re.search("InputError: '.*taken.*' can not be written", causes(caught.value))
        assert not (bundle / "models").exists()


def test_scalars_stand_at_their_own_epochs(bundle, data):
    train(bundle, data, val_interval=2)
    events = EventAccumulator(str(bundle / "eval" / "tensorboard" / "refiner")).Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps == {"train_loss": [1, 2, 3], "train_learning_rate": [1, 2, 3], "val_dice": [2, 3]}


def test_the_best_of_a_stage_leaves_one_of_a_longer_name_alone(tmp_path):
    composite = torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1), "ab": torch.nn.Linear(1, 1)})
    save_weights(composite, tmp_path / "model.pt", {})
    trainer = StageTrainer(
        composite,
        composite["a"],
        stage="a",
        device="cpu",
        max_epochs=1,
        train_data_loader=[],
        optimizer=torch.optim.SGD(composite["a"].parameters(), lr=0.1),
        loss_function=torch.nn.MSELoss(),
        model_path=str(tmp_path / "model.pt"),
        output_dir=str(tmp_path),
    )
    with torch.no_grad():
        for parameter in composite.parameters():
            parameter.fill_(5.0)
    trainer._read_best_back()
    assert all((value != 5.0).all() for value in composite["a"].state_dict().values())
    assert all((value == 5.0).all() for value in composite["ab"].state_dict().values())


def test_a_resume_file_cut_short_is_named(bundle, data):
    train(bundle, data)
    path = bundle / "eval" / "resume_finder.pt"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RuntimeError) as caught:
        train(bundle, data, resume=True)
    assert re.search(
        "WeightsError: .*resume_finder.pt' does not fit this training.*without --resume", causes(caught.value)
    )


def test_a_loss_that_is_not_a_number_ends_the_run_and_saves_nothing(bundle, data):
    with pytest.raises(RuntimeError) as caught:
        train(bundle, data, learning_rate=1e30)
    assert re.search(
        "InputError: the loss of stage 'finder' became .* in epoch .*lower the learning rate", causes(caught.value)
    )
    if (bundle / "models" / "model.pt").exists():
        assert all(value.isfinite().all() for value in weights(bundle).values())


def test_the_last_epoch_is_validated_whatever_the_interval(bundle, data):
    train(bundle, data, val_interval=100)
    assert json.loads((bundle / "models" / "model.json").read_text())["stages"]["refiner"]["epoch"] == 3


def test_flags_that_are_no_flags_are_refused(bundle, data):
    with pytest.raises(RuntimeError) as caught:
        train(bundle, data, resume="maybe")
    assert "resume is 'maybe': it must be true or false" in causes(caught.value)


def test_trackers_find_the_loss_of_every_iteration(bundle, data):
    """As MONAI's own settings for MLflow ask for it."""
    seen = []
    flow = workflow(bundle, data, epochs=1)
    for name in ("finder", "train"):
        stage = flow.parser.get_parsed_content(f"{name}::trainer")
        loss = from_engine(["loss"], first=True)
        stage.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine, loss=loss: seen.append(float(loss(engine.state.output)))
        )
    flow.run()
    rows = [flow.parser.get_parsed_content(f"{name}::trainer").history[0]["loss"] for name in ("finder", "train")]
    assert [sum(seen[:4]) / 4, sum(seen[4:]) / 4] == pytest.approx(rows)
