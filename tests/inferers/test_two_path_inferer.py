"""Which directions the two paths are trained on, and that nothing but seed, epoch and iteration decides on them."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.utils import set_determinism

from common.checks import InputError
from common.geometry.projection import sector_angles
from common.inferers import TwoPathInferer

VOLUME = torch.zeros(1, 1, 4, 3, 5)


class Recorder:
    """Stands for a network: notes the arguments of its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __call__(self, *arguments):
        self.calls.append(arguments)
        return len(self.calls)

    @property
    def angles(self) -> list[list[float]]:
        return [angles for _, _, angles in self.calls]


def recorded(inferer: TwoPathInferer, epochs: list[int], iterations: int = 3) -> list[list[float]]:
    network = Recorder()
    for epoch in epochs:
        inferer.begin_epoch(epoch)
        for _ in range(iterations):
            inferer(VOLUME, network)
    return network.angles


@pytest.mark.parametrize("redraw", ["epoch", "iteration"])
@pytest.mark.parametrize("sectors", [1, 4, 12, 20, 180, 250])
def test_one_direction_of_each_sector(sectors, redraw):
    for angles in recorded(TwoPathInferer(sectors, seed=3, redraw=redraw), [1, 2, 3]):
        assert len(angles) == sectors
        for k, angle in enumerate(angles):
            assert k * 180 / sectors <= angle < (k + 1) * 180 / sectors


def test_an_epoch_keeps_its_directions_and_the_next_has_others():
    first, second = recorded(TwoPathInferer(), [1]), recorded(TwoPathInferer(), [2])
    assert first[0] == first[1] == first[2] == sector_angles(12, 0, 1)
    assert second[0] == second[2] != first[0]


def test_directions_of_every_iteration():
    drawn = recorded(TwoPathInferer(redraw="iteration"), [1, 2], 50)
    assert len({tuple(angles) for angles in drawn}) == 100
    means = torch.tensor(drawn).mean(0) - torch.arange(12) * 15  # 0 .. 14, deviation of the mean 0.43
    assert (means - 7).abs().max() < 6 * 0.43


@pytest.mark.parametrize("redraw", ["epoch", "iteration"])
def test_an_epoch_draws_the_same_wherever_a_run_began(redraw):
    whole = recorded(TwoPathInferer(seed=7, redraw=redraw), [1, 2, 3, 4])
    assert whole[6:] == recorded(TwoPathInferer(seed=7, redraw=redraw), [3, 4])
    broken = TwoPathInferer(seed=7, redraw=redraw)
    recorded(broken, [1, 2, 3], iterations=2)
    assert whole[6:] == recorded(broken, [3, 4])


@pytest.mark.parametrize("redraw", ["epoch", "iteration"])
def test_seeds_differ_and_no_other_draw_is_touched(redraw):
    assert recorded(TwoPathInferer(seed=0, redraw=redraw), [1]) != recorded(TwoPathInferer(seed=1, redraw=redraw), [1])
    set_determinism(5)
    undisturbed = torch.rand(3)
    set_determinism(5)
    recorded(TwoPathInferer(redraw=redraw), [1, 2])
    assert torch.equal(torch.rand(3), undisturbed)
    torch.manual_seed(99)
    other = recorded(TwoPathInferer(redraw=redraw), [1, 2])
    set_determinism(None)
    assert other == recorded(TwoPathInferer(redraw=redraw), [1, 2])


def test_before_any_epoch_it_is_the_first():
    network = Recorder()
    TwoPathInferer(6)(VOLUME, network)
    assert network.angles == [sector_angles(6, 0, 1)]


def test_what_the_network_is_given():
    network, projections = Recorder(), torch.zeros(1, 4, 1, 3, 5)
    assert TwoPathInferer(4)(MetaTensor(VOLUME), network, MetaTensor(projections)) == 1
    TwoPathInferer(4)(VOLUME, network)
    assert [type(argument) for argument in network.calls[0]] == [torch.Tensor, torch.Tensor, list]
    assert network.calls[0][1].shape == projections.shape and network.calls[1][1] is None
    assert all(isinstance(angle, float) for angle in network.angles[0])  # as a script takes them


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"redraw": "never"}, "redraw is 'never': directions are drawn anew at each of: epoch, iteration.*'epoch'"),
        ({"sectors": 0}, "is 0"),
    ],
)
def test_refusals(arguments, said):
    with pytest.raises(InputError, match=said):
        TwoPathInferer(**arguments)
