"""Stages that train the same network one after the other: patience, stages of no epochs, resuming after a kill."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import shutil

import pytest
import torch
from ignite.engine import Events
from monai.handlers import CheckpointLoader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_members import STAGES, Ensemble, Scores, Validate, train_stages, trainer

import common.weights
from common.checks import InputError, WeightsError
from common.engines import StageTrainer
from common.handlers import StartWeights
from common.weights import save_weights


class Killed(BaseException):
    """Stands for a kill: nothing in between may catch it."""


def left(folder) -> tuple[dict[str, torch.Tensor], dict]:
    """What a training leaves: weights, and what the sidecar says of the stages."""
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    return weights, json.loads((folder / "models" / "model.json").read_text())["stages"]


def assert_same(first, second) -> None:
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])


def kill(stage: str, epoch: int, moment: str) -> pytest.MonkeyPatch:
    """Have the next training killed there; undo the patch before resuming."""
    patch = pytest.MonkeyPatch()
    save_best, save_resume, record_end = (
        getattr(StageTrainer, name) for name in ("_save_best", "_save_resume", "_record_end")
    )

    def here(trainer) -> bool:
        return (trainer.stage, trainer.state.epoch) == (stage, epoch) and not trainer._done

    def killing(*args) -> None:
        raise Killed

    def best(trainer, metric) -> None:
        if here(trainer) and moment == "between_files":
            patch.setattr(common.weights, "write_json", killing)
        save_best(trainer, metric)

    def resume(trainer) -> None:
        if here(trainer) and moment == "before_resume":
            raise Killed
        save_resume(trainer)
        if here(trainer) and moment == "after_resume":
            raise Killed

    def end(trainer) -> None:
        record_end(trainer)
        if trainer.stage == stage and moment == "after_end":
            raise Killed

    patch.setattr(StageTrainer, "_save_best", best)
    patch.setattr(StageTrainer, "_save_resume", resume)
    patch.setattr(StageTrainer, "_record_end", end)
    return patch


KILLS = [
    *[("locator", epoch, moment) for epoch in (1, 2, 3) for moment in ("before_resume", "after_resume")],
    ("locator", 2, "between_files"),
    ("locator", 3, "after_end"),
    *[("joint", epoch, moment) for epoch in (1, 2, 3, 4) for moment in ("before_resume", "after_resume")],
    ("joint", 1, "between_files"),  # the weights of the stage before are in its resume file alone
    ("joint", 2, "between_files"),
    ("joint", 4, "after_end"),
]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    trainers = train_stages(folder, patience=2)
    assert [each.state.epoch for each in trainers.values()] == [3, 4]  # the second ends 2 epochs past its best
    return left(folder), trainers["joint"].history


@pytest.mark.parametrize("stage, epoch, moment", KILLS)
def test_resumed_after_a_kill_equals_unbroken(tmp_path, monkeypatch, unbroken, stage, epoch, moment):
    monkeypatch.setattr("common.engines.stage_records.training_curves", lambda *args, **kwargs: None)  # takes long
    patch = kill(stage, epoch, moment)
    with pytest.raises(Killed):
        train_stages(tmp_path, patience=2)
    patch.undo()
    again = train_stages(tmp_path, patience=2, resume=True)
    assert_same(unbroken[0], left(tmp_path))
    assert again["joint"].history == unbroken[1] and again["joint"].state.epoch == 4
    # before there is a resume file, nothing tells that weights are of the same run
    begun_anew = (stage, epoch, moment) == ("locator", 1, "before_resume")
    assert (tmp_path / "models" / "model_previous.pt").exists() == begun_anew


def test_each_stage_begins_with_the_best_of_the_one_before(tmp_path):
    network = Ensemble()
    scores = Scores(STAGES["locator"])
    arguments = {"stage": "locator", "max_epochs": 3, "evaluator": scores, "train_handlers": [Validate(scores)]}
    trainer(network, tmp_path, **arguments).run()
    weights, stages = left(tmp_path)
    assert stages["locator"]["epoch"] == 2
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_all_stages_done_ends_with_the_last_ones_best(tmp_path):
    train_stages(tmp_path)
    before = left(tmp_path)
    shutil.copytree(tmp_path / "models", tmp_path / "kept")
    again = train_stages(tmp_path, resume=True)
    assert_same(before, left(tmp_path))
    assert all(torch.equal(value, before[0][key]) for key, value in again["joint"].composite.state_dict().items())
    # the first stage went by its own file: the weights file holds the last stage's
    content = torch.load(tmp_path / "eval" / "resume_locator.pt", weights_only=True)["best_weights"]
    assert any(not torch.equal(content[key], before[0][key]) for key in content)


def test_a_resumed_stage_without_its_weights_file_names_it(tmp_path):
    train_stages(tmp_path)
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(WeightsError, match="there are no weights at '.*model.pt'"):
        train_stages(tmp_path, resume=True)


@pytest.mark.parametrize(
    "scores, patience, interval, ends, best",
    [
        ([0.5, 0.4, 0.3, 0.2], 1, 1, 2, 1),
        ([0.4, 0.5, 0.5, 0.5, 0.9], 2, 1, 4, 2),  # as good is no better
        ([0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.9], 2, 1, 7, 5),  # nothing was found yet: that is no best
        ([0.0, 0.0, 0.0, 0.0], 1, 1, 4, 4),
        ([0.0, float("nan"), 0.0, 0.0, 0.0], 1, 2, 5, 5),
        ([0.5, 0.4, 0.6, 0.4, 0.4, 0.9], 2, 1, 5, 3),
        ([0.5, 0.4, 0.3, 0.2], None, 1, 4, 1),
        ([0.5, 0.4, 0.3, 0.2], 9, 1, 4, 1),
        ([0.0, 0.5, 0.0, 0.4, 0.0, 0.9, 0.0], 2, 2, 4, 2),  # validated at 2, 4, 6
        ([0.0, 0.5, 0.0, 0.4, 0.0, 0.3, 0.0], 3, 2, 6, 2),  # nothing was seen at 5
        ([float("nan"), 0.5, float("nan"), 0.4, 0.9], 2, 1, 4, 2),
        ([float("nan")] * 4, 1, 1, 4, 4),  # nothing to be better than
    ],
)
def test_patience(tmp_path, scores, patience, interval, ends, best):
    stage = train_stages(tmp_path, scores={"joint": scores}, patience=patience, interval=interval)["joint"]
    assert stage.state.epoch == ends and len(stage.history) == ends
    assert left(tmp_path)[1]["joint"]["epoch"] == best
    content = torch.load(tmp_path / "eval" / "resume_joint.pt", weights_only=True)
    assert content["done"] and content["epoch"] == ends
    assert (tmp_path / "eval" / "curves_joint.png").stat().st_size > 1000


def test_a_stage_in_which_nothing_tells_epochs_apart_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train_stages(tmp_path, scores={"locator": [0.0, 0.0, 0.0], "joint": [0.2, 0.1]}, patience=1)
    texts = [record.getMessage() for record in caplog.records if "every validation" in record.getMessage()]
    assert texts == ["stage 'locator': every validation gave 0, so no epoch is better than another; the last is kept."]


def test_one_validation_is_not_said_to_tell_nothing_apart(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train_stages(tmp_path, scores={"joint": [0.3, 0.3]}, interval=2)
    assert not [record for record in caplog.records if "every validation" in record.getMessage()]


def test_a_stage_out_of_patience_stays_so_unless_given_more(tmp_path):
    scores = {"joint": [0.5, 0.4, 0.3, 0.2, 0.6]}
    train_stages(tmp_path / "whole", scores=scores)
    assert train_stages(tmp_path / "short", scores=scores, patience=2)["joint"].state.epoch == 3
    again = train_stages(tmp_path / "short", scores=scores, patience=2, resume=True)["joint"]
    assert again.state.epoch == 3 and again.evaluator.runs == []
    longer = train_stages(tmp_path / "short", scores={"joint": [*scores["joint"], 0.1]}, patience=2, resume=True)
    assert longer["joint"].state.epoch == 3
    more = train_stages(tmp_path / "short", scores=scores, patience=4, resume=True)["joint"]
    assert more.evaluator.runs == [4, 5]
    assert_same(left(tmp_path / "whole"), left(tmp_path / "short"))


TEXT = "stage 'locator' would be trained further, and stage 'joint' has begun .*keep the epochs .*without --resume"


def test_a_stage_that_another_built_on_is_not_trained_further(tmp_path):
    scores = {"locator": [0.1], "joint": [0.6, 0.7]}
    train_stages(tmp_path, scores=scores)
    before = left(tmp_path)
    for _ in range(2):  # the first attempt leaves nothing that lets a second one pass
        with pytest.raises(InputError, match=TEXT):
            train_stages(tmp_path, True, {**scores, "locator": [0.1, 0.9]})
    assert_same(before, left(tmp_path))
    train_stages(tmp_path, True, scores)  # as before: nothing to do
    assert_same(before, left(tmp_path))


def test_nor_where_the_later_stage_was_killed_before_it_had_any_weights(tmp_path):
    patch = kill("joint", 1, "after_resume")
    with pytest.raises(Killed):
        train_stages(tmp_path, scores={"locator": [0.1], "joint": [0.6, 0.7]}, interval=2)
    patch.undo()
    assert list(left(tmp_path)[1]) == ["locator"]
    with pytest.raises(InputError, match=TEXT):
        train_stages(tmp_path, True, {"locator": [0.1, 0.9], "joint": [0.6, 0.7]}, interval=2)


def test_the_last_stage_is_trained_further_and_the_first_while_it_is_the_last(tmp_path):
    longer = {"locator": [0.1, 0.5], "joint": [0.6, 0.7, 0.9]}
    train_stages(tmp_path / "whole", scores=longer)
    train_stages(tmp_path / "parts", scores={"locator": [0.1], "joint": []})
    for scores in ({"locator": [0.1, 0.5], "joint": [0.6]}, longer):
        train_stages(tmp_path / "parts", resume=True, scores=scores)
    assert_same(left(tmp_path / "whole"), left(tmp_path / "parts"))


@pytest.mark.parametrize("patience, text", [(0, "patience is 0: it must be 1"), (-3, "patience is -3")])
def test_useless_patience_is_refused(tmp_path, patience, text):
    with pytest.raises(InputError, match=text):
        train_stages(tmp_path, patience=patience)


def test_patience_without_an_evaluator_is_refused(tmp_path):
    with pytest.raises(InputError, match="patience is 3 and there is no evaluator: .*needs validations"):
        trainer(Ensemble(), tmp_path, patience=3)


@pytest.mark.parametrize("resume", [False, True])
def test_a_stage_of_no_epochs_is_left_out(tmp_path, caplog, resume):
    with caplog.at_level(logging.INFO):
        train_stages(tmp_path / "both", resume, {"locator": [], "joint": STAGES["joint"]})
    assert "stage 'locator' has 0 epochs and is left out" in caplog.text
    assert not (tmp_path / "both" / "eval" / "resume_locator.pt").exists()
    train_stages(tmp_path / "alone", resume, {"joint": STAGES["joint"]})
    assert_same(left(tmp_path / "alone"), left(tmp_path / "both"))
    assert list(left(tmp_path / "both")[1]) == ["joint"]


def test_stages_with_one_evaluator_keep_their_scores_apart(tmp_path):
    network = Ensemble()
    scores = Scores([0.1, 0.2, 0.3, 0.4])
    stages = [
        trainer(
            network,
            tmp_path,
            stage=stage,
            max_epochs=4,
            evaluator=scores,
            train_handlers=[Validate(scores, interval)],
        )
        for stage, interval in (("first", 2), ("second", 3))
    ]
    for stage in stages:
        stage.run()
    # the second is validated at 3 and at its end, whatever the first left in the evaluator
    assert [row.get("score") for row in stages[1].history] == [None, None, 0.3, 0.4]
    for stage, expected in (("first", [2, 4]), ("second", [3, 4])):
        events = EventAccumulator(str(tmp_path / "eval" / "tensorboard" / stage)).Reload()
        assert [event.step for event in events.Scalars("score")] == expected


def test_one_trainer_run_again_trains_again(tmp_path):
    network = Ensemble()
    stage = trainer(network, tmp_path, max_epochs=2)
    stage.run()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    stage.run()
    assert len(stage.history) == 4
    assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_network_that_is_no_part_of_the_composite_is_refused(tmp_path):
    with pytest.raises(InputError, match="the Ensemble of a stage is no part of network_def"):
        trainer(Ensemble(), tmp_path, network_def=Ensemble(1))


def test_a_loader_of_the_caller_does_not_undo_an_earlier_stage(tmp_path):
    """MONAI Label adds one to the last stage, which every stage takes over; the second stage changes nothing here."""
    weights = Ensemble(seed=1).state_dict()
    torch.save(weights, tmp_path / "chosen.pt")
    network = Ensemble()
    loader = CheckpointLoader(str(tmp_path / "chosen.pt"), {"model": network})
    started = []
    for stage, rate in (("first", 0.1), ("second", 0.0)):
        one = trainer(network, tmp_path, stage=stage, max_epochs=1, train_handlers=[loader])
        for group in one.optimizer.param_groups:
            group["lr"] = rate
        one.add_event_handler(Events.EPOCH_STARTED, lambda: started.append(copy.deepcopy(network.state_dict())))
        one.run()
    first, second = started
    assert all(torch.equal(first[key], weights[key]) for key in weights)
    assert any(not torch.equal(second[key], weights[key]) for key in weights)
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(after[key], second[key]) for key in weights)


def test_a_training_starts_from_weights_and_tells_of_them(tmp_path):
    start = tmp_path / "start" / "model.pt"
    save_weights(Ensemble(seed=1), start, {"name": "first", "fingerprint": "abc", "split": {"fold": 0}, "contents": {}})
    network = Ensemble()
    one = trainer(network, tmp_path, max_epochs=1, train_handlers=[StartWeights(network, start)])
    started = []
    one.add_event_handler(Events.EPOCH_STARTED, lambda: started.append(copy.deepcopy(network.state_dict())))
    one.run()
    assert all(torch.equal(value, started[0][key]) for key, value in Ensemble(seed=1).state_dict().items())
    told = json.loads((tmp_path / "models" / "model.json").read_text())["started_from"]
    assert (told["name"], told["fingerprint"]) == ("first", "abc") and told["sha256"] and "contents" not in told


def test_a_resumed_training_does_not_start_from_them_again(tmp_path):
    def train(folder, killed: bool):
        save_weights(Ensemble(seed=1), folder / "start" / "model.pt", {"name": "first"})
        patch = kill("joint", 2, "after_resume") if killed else contextlib.nullcontext()
        for attempt in range(1 + killed):
            network = Ensemble()
            loader = StartWeights(network, folder / "start" / "model.pt")
            one = trainer(network, folder, max_epochs=4, resume=True, train_handlers=[loader])
            if killed and attempt == 0:
                with pytest.raises(Killed):
                    one.run()
                patch.undo()
            else:
                one.run()
        info = json.loads((folder / "models" / "model.json").read_text())
        return torch.load(folder / "models" / "model.pt", weights_only=True), info

    (unbroken, told), (resumed, told_too) = (train(tmp_path / name, killed) for name, killed in (("a", 0), ("b", 1)))
    assert all(torch.equal(value, resumed[key]) for key, value in unbroken.items())
    assert told["started_from"]["sha256"] == told_too["started_from"]["sha256"]


def test_weights_to_start_from_are_there_and_of_this_network(tmp_path):
    network = Ensemble()
    one = trainer(network, tmp_path, train_handlers=[StartWeights(network, tmp_path / "none.pt")])
    with pytest.raises(WeightsError, match="no weights at '.*none.pt' to start from.*correct --start_from"):
        one.run()
    save_weights(torch.nn.Linear(2, 2), tmp_path / "other.pt", {"recipe": "other"})
    one = trainer(network, tmp_path, train_handlers=[StartWeights(network, tmp_path / "other.pt")])
    with pytest.raises(WeightsError, match="trained with the recipe 'other'"):
        one.run()
