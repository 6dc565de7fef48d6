"""The key metric that a learning rate waits for."""

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler

from common.handlers import KeyMetric


def evaluator(scores):
    """An evaluator whose validations give these scores, one after the other."""
    given = iter(scores)
    engine = Engine(lambda engine, batch: None)

    @engine.on(Events.COMPLETED)
    def score(engine):
        engine.state.key_metric_name = "val_mean_dice"
        engine.state.metrics.update({"val_mean_dice": next(given), "other": 9.0})

    return engine


def test_minus_infinity_before_the_first_validation():
    assert KeyMetric(evaluator([]))(Engine(lambda *_: None)) == -math.inf


@pytest.mark.parametrize(("score", "expected"), [(0.25, 0.25), (torch.tensor(0.5), 0.5), (math.nan, -math.inf)])
def test_the_last_value_as_a_plain_number(score, expected):
    engine = evaluator([0.1, score])
    engine.run([0])
    assert KeyMetric(engine)(None) == 0.1
    engine.run([0])
    found = KeyMetric(engine)(None)
    assert type(found) is float and found == expected


def test_a_plateau_is_counted_in_epochs_between_validations_too():
    """Best at epoch 2; patience 3 ends with epoch 6, whether or not epochs were validated."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.1, patience=3)
    trainer, validator, rates = Engine(lambda engine, batch: optimizer.step()), evaluator([0.5, 0.4, 0.3, 0.2]), []

    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda: validator.run([0]))
    LrScheduleHandler(plateau, print_lr=False, step_transform=KeyMetric(validator)).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.run([0], max_epochs=8)
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3)
