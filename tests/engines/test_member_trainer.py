"""The trainer of an ensemble, against members trained alone by a plain loop."""

from __future__ import annotations

import copy
import logging
import weakref

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.networks.nets import BasicUNet
from toy_members import DecodeWhereBright, Ensemble, cases, trainer

from common.checks import InputError
from common.engines import MemberTrainer
from common.losses import RoIAwareLoss
from common.networks.rois import RoIPrediction


def batches(count: int = 5, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    return [torch.utils.data.default_collate([case]) for case in cases(count, seed)]


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 0.05, weight_decay=0.1, amsgrad=True)


def alone(network: Ensemble, data, every: int = 1) -> list[float]:
    """Train each member by itself, stepping after `every` batches and at the end; mean losses of the batches."""
    losses = torch.zeros(len(data))
    for member in network.members.values():
        optimizer, loss_function = adam(member.parameters()), RoIAwareLoss()
        for number, batch in enumerate(data, start=1):
            loss = loss_function(DecodeWhereBright()(batch["image"], member, batch["label"]), batch["label"])
            (loss / every).backward()
            losses[number - 1] += loss.detach() / len(network.members)
            if number % every == 0 or number == len(data):
                optimizer.step()
                optimizer.zero_grad()
    return losses.tolist()


def assert_same(network: Ensemble, expected: Ensemble, **tolerance) -> None:
    for (name, found), other in zip(network.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, other, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


EXACT = {"rtol": 0, "atol": 0}


@pytest.mark.parametrize("every", [1, 2, 3, 10])
@pytest.mark.parametrize("decollate", [False, True])
def test_each_member_learns_as_if_alone(tmp_path, every, decollate):
    network, expected, losses = Ensemble(), Ensemble(), []
    stage = trainer(network, tmp_path, batches(), accumulation_steps=every, decollate=decollate)
    stage.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine._losses[-1].item()))
    stage.run()
    assert losses == pytest.approx(alone(expected, batches(), every), rel=1e-6)
    assert stage.history[0]["loss"] == pytest.approx(sum(losses) / 5, rel=1e-6)
    assert_same(network, expected, **EXACT)
    assert not all(torch.equal(a, b) for a, b in zip(network.parameters(), Ensemble().parameters(), strict=True))


def test_decollated_output_is_one_entry_for_each_item(tmp_path):
    stage = trainer(Ensemble(), tmp_path, torch.utils.data.DataLoader(cases(4), batch_size=2), decollate=True)
    seen = []
    stage.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output))
    stage.run()
    assert [len(output) for output in seen] == [2, 2]
    assert all(set(item) == {"image", "label", "loss"} and item["image"].shape[0] == 1 for item in seen[0])


def test_events_of_an_iteration(tmp_path):
    stage = trainer(Ensemble(), tmp_path, batches(1))
    seen = []

    def note(event):
        def noting(engine):
            grads = [sum(p.grad is not None for p in m.parameters()) for m in engine.network.members.values()]
            seen.append((event.name, "pred" in engine.state.output, "loss" in engine.state.output, *grads))

        return noting

    for event in IterationEvents:
        stage.add_event_handler(event, note(event))
    before = copy.deepcopy(stage.network.state_dict())
    unmoved = []
    stage.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED,
        lambda engine: unmoved.append(all(torch.equal(v, before[k]) for k, v in engine.network.state_dict().items())),
    )
    stage.run()
    # the only case has no region: encoder and locator alone have gradients
    assert seen == [
        ("FORWARD_COMPLETED", True, False, 0, 0),
        ("LOSS_COMPLETED", True, True, 0, 0),
        ("FORWARD_COMPLETED", True, False, 4, 0),
        ("LOSS_COMPLETED", True, True, 4, 0),
        ("BACKWARD_COMPLETED", False, True, 4, 4),
        ("MODEL_COMPLETED", False, True, 4, 4),
    ]
    assert unmoved == [True]  # a handler may still change the gradients


def test_a_member_is_freed_before_the_next_begins(tmp_path):
    alive: list[weakref.ref] = []

    class Watching(DecodeWhereBright):
        def __call__(self, inputs, network, targets):
            assert [ref() for ref in alive] == [None] * len(alive)
            found = super().__call__(inputs, network, targets)
            alive.append(weakref.ref(found.heat))
            return found

    trainer(Ensemble(), tmp_path, batches(2), inferer=Watching()).run()
    assert len(alive) == 4


def test_what_was_not_used_stays_where_it_is(tmp_path):
    """A decoder without regions is moved neither by momentum nor by weight decay; otherwise no kill could be undone."""
    with_region, without = batches(2)[1], batches(2)[0]
    once, twice = Ensemble(), Ensemble()
    trainer(once, tmp_path / "once", [with_region]).run()
    trainer(twice, tmp_path / "twice", [with_region, without]).run()
    for first, second in zip(once.members.values(), twice.members.values(), strict=True):
        assert torch.equal(first.decoder.weight, second.decoder.weight)
        assert not torch.equal(first.encoder.weight, second.encoder.weight)


class Nothing(DecodeWhereBright):
    """Neither a heat map nor a region."""

    def __call__(self, inputs, network, targets):
        return RoIPrediction(None, [], [], [])


@pytest.fixture
def scaled(monkeypatch):
    """A scaler that works without a GPU, kept for looking at."""
    kept = []

    def make() -> torch.amp.GradScaler:
        kept.append(torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3))
        return kept[-1]

    monkeypatch.setattr("torch.cuda.amp.GradScaler", make)
    return kept


no_cuda = pytest.mark.filterwarnings("ignore:CUDA is not available")


@no_cuda
@pytest.mark.parametrize("amp", [False, True])
def test_a_batch_without_anything_to_learn(tmp_path, scaled, amp):
    network = Ensemble()
    stage = trainer(network, tmp_path, batches(2), inferer=Nothing(), amp=amp)
    stage.run()
    assert stage.history[0]["loss"] == 0
    assert_same(network, Ensemble(), **EXACT)


@no_cuda
@pytest.mark.parametrize("every", [1, 2])
def test_scaled_gradients_make_the_same_steps(tmp_path, scaled, every):
    network, expected = Ensemble(), Ensemble()
    stage = trainer(network, tmp_path, batches(), amp=True, accumulation_steps=every)
    seen = []
    stage.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED,
        lambda engine: seen.append(engine.network.members["second"].locator.bias.grad.abs().item()),
    )
    stage.run()
    alone(expected, batches(), every)
    assert_same(network, expected, rtol=1e-4, atol=1e-6)
    assert min(seen) > 1  # it is the scaled gradient; the plain one is below 1
    steps = 5 if every == 1 else 3
    assert scaled[0].get_scale() == 2.0**11 and scaled[0]._growth_tracker.item() == steps - 3  # one update a step


@no_cuda
def test_an_overflow_of_one_member_skips_the_step_once(tmp_path, scaled):
    class Overflowing(DecodeWhereBright):
        def __call__(self, inputs, network, targets):
            found = super().__call__(inputs, network, targets)
            if network is last_member:
                found.heat.register_hook(lambda gradient: gradient * float("inf"))
            return found

    network = Ensemble()
    last_member = network.members["second"]
    trainer(network, tmp_path, batches(1), amp=True, inferer=Overflowing()).run()
    assert_same(network, Ensemble(), **EXACT)
    assert scaled[0].get_scale() == 2.0**9  # backed off by half, once


@no_cuda
def test_the_scale_goes_on_after_resuming(tmp_path, scaled):
    network, arguments = Ensemble(), {"amp": True, "max_epochs": 2}
    trainer(network, tmp_path, batches(), **arguments).run()
    again = trainer(Ensemble(), tmp_path, batches(), **{**arguments, "max_epochs": 3, "resume": True})
    scales = []
    again.add_event_handler(Events.EPOCH_STARTED, lambda engine: scales.append(engine.scaler.get_scale()))
    again.run()
    assert scales == [2.0**13]  # 10 steps doubled it 3 times
    trainer(Ensemble(), tmp_path, batches(), **{**arguments, "max_epochs": 3, "resume": True}).run()
    content = torch.load(tmp_path / "eval" / "resume_joint.pt", weights_only=True)
    assert content["scaler"]["scale"] == 2.0**15


def test_extra_arguments_of_a_batch_reach_the_inferer(tmp_path):
    seen = []

    class Noting(DecodeWhereBright):
        def __call__(self, inputs, network, targets, *args, **kwargs):
            seen.append((args, kwargs))
            return super().__call__(inputs, network, targets)

    def prepare(batch, device, non_blocking, **kwargs):
        return batch["image"], batch["label"], (7,), {"more": 8}

    trainer(Ensemble(), tmp_path, batches(1), inferer=Noting(), prepare_batch=prepare).run()
    assert seen == [((7,), {"more": 8})] * 2


def test_a_network_without_members_is_refused(tmp_path):
    network = BasicUNet(3, 1, 1, features=(2, 2, 2, 2, 2, 2))
    with pytest.raises(InputError, match="BasicUNet has no members: .*ModuleDict.*StageTrainer"):
        MemberTrainer(network, network, inferer=DecodeWhereBright())


def test_compile_is_refused(tmp_path):
    with pytest.raises(InputError, match="compile is set: .*leave it out"):
        trainer(Ensemble(), tmp_path, compile=True)


def test_a_loss_that_is_not_a_number_is_named(tmp_path, caplog):
    bad = batches(2)
    bad[1]["image"][0, 0, 1, 1, 1] = float("nan")
    with caplog.at_level(logging.CRITICAL), pytest.raises(InputError, match="the loss of stage 'joint' became nan"):
        trainer(Ensemble(), tmp_path, bad).run()


@pytest.mark.gpu
@pytest.mark.parametrize("amp", [False, True])
def test_gpu_learns(tmp_path, amp):
    network, expected = Ensemble().cuda(), Ensemble()
    stage = trainer(network, tmp_path, batches(), amp=amp, device="cuda")
    stage.run()
    losses = alone(expected, batches())
    assert stage.history[0]["loss"] == pytest.approx(sum(losses) / 5, rel=0.05)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
