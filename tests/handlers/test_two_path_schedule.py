"""Directions and weight of the two paths from epoch to epoch."""

from __future__ import annotations

import pytest
from ignite.engine import Engine, Events
from monai.losses import DiceLoss

from common.handlers import TwoPathSchedule
from common.inferers import TwoPathInferer
from common.losses import TwoPathLoss, joint_weight


def run(last: int, first: int = 1, redraw: str = "epoch", start: float = 0.99) -> list[tuple[list[float], float]]:
    """What every iteration of epochs `first` to `last` is trained with; a run that begins later was resumed."""
    inferer, loss, seen = TwoPathInferer(4, seed=2, redraw=redraw), TwoPathLoss(DiceLoss(sigmoid=True), start), []

    def network(inputs, projections, angles):
        seen.append((angles, loss.weight))

    trainer = Engine(lambda engine, batch: inferer(batch, network))
    TwoPathSchedule(inferer, loss).attach(trainer)
    trainer.load_state_dict({"epoch": first - 1, "max_epochs": last, "epoch_length": 2})
    trainer.run([[0], [0]])
    return seen


@pytest.mark.parametrize("start", [0.99, 0.5])
def test_the_weight_falls_with_the_epochs(start):
    assert [weight for _, weight in run(6, start=start)[::2]] == [joint_weight(n, start) for n in range(1, 7)]


@pytest.mark.parametrize("redraw", ["epoch", "iteration"])
@pytest.mark.parametrize("first", [2, 4])
def test_a_resumed_run_goes_on_as_an_unbroken_one(first, redraw):
    whole = run(5, redraw=redraw)
    assert len({tuple(angles) for angles, _ in whole}) == (5 if redraw == "epoch" else 10)
    assert run(5, first, redraw) == whole[2 * (first - 1) :]


def test_a_second_run_of_the_same_trainer_begins_anew():
    inferer, loss, weights = TwoPathInferer(4), TwoPathLoss(DiceLoss(sigmoid=True), 0.9), []
    trainer = Engine(lambda engine, batch: weights.append((loss.weight, tuple(inferer.angles))))
    TwoPathSchedule(inferer, loss).attach(trainer)
    trainer.run([0], max_epochs=3)
    trainer.state.max_epochs = None
    trainer.run([0], max_epochs=3)
    assert weights[:3] == weights[3:] and weights[0][0] == 0.9 != weights[1][0]


def test_it_comes_before_the_first_iteration():
    inferer = TwoPathInferer(4)
    trainer, order = Engine(lambda engine, batch: order.append(inferer.epoch)), []
    TwoPathSchedule(inferer, TwoPathLoss(DiceLoss(sigmoid=True))).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: order.append("end"))
    trainer.run([0], max_epochs=2)
    assert order == [1, "end", 2, "end"]
