"""The bar of a stage and the time that it says is left: over all epochs, also of a run that goes on."""

from __future__ import annotations

import io

import pytest
from ignite.engine import Engine, Events
from tqdm import tqdm

from common.engines import stage_records
from common.engines.stage_records import StageRecords


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(stage_records.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def bars(monkeypatch):
    """What bars were made with, and, as `bars.drawn`, the terminal that they are drawn on at each step."""
    made = type("Bars", (list,), {"drawn": io.StringIO()})()
    made.drawn.isatty = lambda: True

    def bar(**kwargs):
        made.append(kwargs)
        return tqdm(**kwargs, file=made.drawn, mininterval=0, miniters=1)

    monkeypatch.setattr(stage_records, "tqdm", bar)
    return made


def run(records: StageRecords, clock, per_iteration: float, validation: float = 0.0, done: int = 0) -> list[str]:
    """Four epochs of five iterations, of which `done` were done before; what was told to be left after each."""
    told = []

    def step(*_):
        clock[0] += per_iteration

    def epoch(engine):
        clock[0] += validation
        told.append(records.time_left(engine))

    trainer = Engine(step)
    records.open(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, epoch)
    if done:
        trainer.load_state_dict({"epoch": done, "max_epochs": 4, "epoch_length": 5})
    trainer.run(range(5), max_epochs=4)
    return told


def test_what_is_left_is_that_of_all_epochs(tmp_path, clock):
    assert run(StageRecords("model", tmp_path), clock, 2.0) == ["30 s left", "20 s left", "10 s left", "0 s left"]


def test_validations_have_their_share(tmp_path, clock):
    assert run(StageRecords("model", tmp_path), clock, 2.0, validation=10.0)[:2] == ["60 s left", "40 s left"]


def test_what_was_done_before_took_no_time(tmp_path, clock):
    assert run(StageRecords("model", tmp_path), clock, 2.0, done=2) == ["10 s left", "0 s left"]


@pytest.mark.parametrize(("seconds", "told"), [(20.0, "5 min left"), (700.0, "2.9 h left"), (6.5, "98 s left")])
def test_its_unit_fits(tmp_path, clock, seconds, told):
    assert run(StageRecords("model", tmp_path), clock, seconds)[0] == told


def test_a_stage_that_may_end_early_tells_the_most(tmp_path, clock, bars):
    assert run(StageRecords("model", tmp_path, may_end_early=True), clock, 2.0)[0] == "at most 30 s left"
    assert ", at most " in bars.drawn.getvalue()


def test_one_bar_runs_over_all_epochs(tmp_path, clock, bars, monkeypatch):
    monkeypatch.setattr(stage_records, "_FORMAT", "<{desc} {n} of {total}{postfix}>{remaining}")
    run(StageRecords("liver", tmp_path), clock, 2.0, done=1)
    assert [(one["total"], one["initial"], one["disable"]) for one in bars] == [(20, 5, None)]
    assert [f"<liver {n} of 20, epoch {e} of 4>" in bars.drawn.getvalue() for n, e in ((6, 2), (20, 4))] == [True, True]


def test_each_run_of_a_trainer_has_its_bar(tmp_path, clock, bars):
    records, trainer = StageRecords("liver", tmp_path), Engine(lambda *_: None)
    for _ in range(2):
        records.open(trainer)
        trainer.run(range(5), max_epochs=1)
    assert [one["total"] for one in bars] == [5, 5] and records._bar is None


def test_no_bar_in_a_log(tmp_path, clock, capsys):
    run(StageRecords("model", tmp_path), clock, 2.0)
    assert capsys.readouterr().err == ""
