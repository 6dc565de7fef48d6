"""Rounds of a method of two stages, as federated learning asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject

from common.engines import RoundTrainer

SINGLE = "configs/train.json"
ROUNDS = [SINGLE, "configs/federated.json"]


@pytest.fixture
def folder(bundle, data) -> Path:
    rounds = {"+train::trainer": {"_target_": "common.engines.RoundTrainer", "steps": ["@finder::trainer"]}}
    (bundle / "configs" / "federated.json").write_text(json.dumps(rounds))
    return bundle


def client(folder: Path, data: Path, files: str | list[str], local_epochs: int = 1, **values) -> MonaiAlgo:
    values = {"dataset_dir": str(data), **values}
    algo = MonaiAlgo(
        str(folder), local_epochs, False, files, values, config_evaluate_filename=SINGLE, eval_kwargs=values
    )
    algo.initialize()
    return algo


def given(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """Weights of the composite, as a federation hands them out."""
    from toy_two_stage import TwoStage

    torch.manual_seed(seed)
    return TwoStage().state_dict()


def test_the_last_stage_alone_can_not_take_the_weights_of_the_federation(folder, data):
    """What the trainer of rounds is for."""
    algo = client(folder, data, SINGLE)
    with pytest.raises(RuntimeError, match="No global weights converted"):
        algo.train(ExchangeObject(weights=given(folder, 0)))


def test_a_round_is_a_run_of_all_stages_from_the_weights_given(folder, data):
    start = given(folder, 1)
    flow = ConfigWorkflow(
        str(folder / SINGLE),
        logging_file=False,
        meta_file=None,
        workflow_type="train",
        bundle_root=str(folder),
        dataset_dir=str(data),
        epochs=2,
        output_dir=str(folder / "plain"),
    )
    flow.initialize()
    flow.parser.get_parsed_content("network_def").load_state_dict(start)
    flow.run()
    plain = torch.load(folder / "models" / "model.pt", weights_only=True)
    algo = client(folder, data, ROUNDS, 2, epochs=2)  # the schedule of the last stage is made for them
    algo.train(ExchangeObject(weights={name: value.clone() for name, value in start.items()}))
    found = algo.get_weights()
    assert set(found.weights) == set(start)
    for name, value in found.weights.items():
        assert torch.equal(value, plain[name]) and not torch.equal(value, start[name]), name
    assert found.statistics["num_executed_iterations"] == 2 * (4 + 4)  # epochs, cases of each stage


def test_every_round_starts_from_the_weights_given_and_adds_its_epochs(folder, data):
    algo = client(folder, data, ROUNDS, learning_rate=0.0)
    for number in range(3):
        start = given(folder, number)
        algo.train(ExchangeObject(weights={name: value.clone() for name, value in start.items()}))
        found = algo.get_weights().weights
        assert all(torch.equal(found[name], start[name]) for name in start)  # standing still
        assert [stage.state.epoch for stage in algo.trainer.stages] == [number + 1] * 2
        assert algo.trainer.state.epoch == number + 1


def test_what_is_scored_is_what_was_given(folder, data):
    algo = client(folder, data, ROUNDS)
    scores = []
    for number in (0, 1, 0):
        start = given(folder, number)
        scores.append(algo.evaluate(ExchangeObject(weights=start)).metrics["val_dice"])
        held = algo.evaluator.network.state_dict()
        assert all(torch.equal(held[name], start[name]) for name in start)
    assert scores[0] == scores[2]


def test_functions_run_in_their_place_and_an_end_is_an_end(folder, data):
    said = []
    algo = client(folder, data, ROUNDS)
    trainer = algo.trainer
    assert isinstance(trainer, RoundTrainer)
    trainer.steps.insert(1, lambda: said.append("between"))
    for stage in trainer.stages:
        stage.add_event_handler(Events.STARTED, lambda engine: said.append(engine.stage))
    algo.train(ExchangeObject(weights=given(folder, 0)))
    assert said == ["finder", "between", "refiner"]
    said.clear()
    trainer.stages[0].add_event_handler(Events.ITERATION_COMPLETED, lambda engine: algo.abort())
    algo.train(ExchangeObject(weights=given(folder, 0)))
    assert said == ["finder"]
