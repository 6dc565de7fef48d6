"""What the voting inferer runs and holds: windows, masks, sums."""

import pytest
import torch
from convolved import Convolved, volume_of

from common.inferers import VotingInferer
from common.inferers.rolling import RollingSums


def test_windows_whose_core_misses_the_mask_are_never_run():
    network, volume = Convolved(tell=True), volume_of(1, 1, 12, 12, 40)
    mask = torch.zeros(1, 1, 12, 12, 40)
    mask[0, 0, 5, 5, 2], mask[0, 0, 6, 6, 36] = 1, 1
    result = VotingInferer((8, 8, 8), overlap=0.0, activation=None)(volume, network, mask=mask)
    assert len(network.sizes) == 2
    full = VotingInferer((8, 8, 8), overlap=0.0, activation=None)(volume, network)
    assert torch.equal(result, full * (mask != 0))


@pytest.mark.parametrize("output, channels, runs", [("labels", 1, 0), ("probabilities", 3, 1)])
def test_an_empty_mask_gives_zeros(output, channels, runs):
    network = Convolved(tell=True)
    inferer = VotingInferer((8, 8, 8), activation=None, output=output)
    result = inferer(volume_of(2, 1, 9, 9, 9), network, mask=torch.zeros(2, 1, 9, 9, 9))
    assert result.shape == (2, channels, 9, 9, 9) and not result.any() and len(network.sizes) == runs


def test_a_batch_may_hold_one_empty_mask():
    volume, mask = volume_of(2, 1, 9, 9, 9), torch.ones(2, 1, 9, 9, 9)
    mask[0] = 0
    inferer = VotingInferer((8, 8, 8), activation=None, output="probabilities")
    result = inferer(volume, Convolved(), mask=mask)
    assert not result[0].any()
    assert torch.equal(result[1], inferer(volume[1:], Convolved())[0])


def test_windows_of_the_last_call_are_counted():
    volume, mask = volume_of(2, 1, 12, 12, 40), torch.zeros(2, 1, 12, 12, 40)
    inferer = VotingInferer(8, overlap=0.0, activation=None, sw_batch_size=3)
    for network in (Convolved(tell=True), Convolved(), [Convolved(), Convolved(seed=1)]):
        inferer(volume, network)
        assert inferer.windows == 2 * 2 * 2 * 7
    mask[1, 0, 5, 5, 2] = 1
    inferer(volume, Convolved(), mask=mask)
    assert inferer.windows == 1
    inferer(volume, Convolved(), mask=mask * 0)
    assert inferer.windows == 0


@pytest.fixture
def shapes_held(monkeypatch):
    """The shapes of all sums that are allocated during a test."""
    shapes, plain = [], RollingSums.__init__

    def watch(self, sums, *rest):
        shapes.append(tuple(sums.shape))
        plain(self, sums, *rest)

    monkeypatch.setattr(RollingSums, "__init__", watch)
    return shapes


@pytest.mark.parametrize(
    "extent, held",
    [((6, 6, 40), (6, 6, 8)), ((40, 6, 9), (8, 6, 9)), ((7, 30, 30), (7, 8, 30)), ((5, 6, 9), (5, 6, 8))],
)
def test_labels_hold_scores_of_one_window_height_only(shapes_held, extent, held):
    VotingInferer(8, overlap=0.5, activation=None)(volume_of(1, 1, *extent), Convolved(padded=True))
    assert shapes_held == [(3, *held)]


@pytest.mark.parametrize(
    "box, held",
    [
        ((slice(2, 7), slice(1, 5), slice(11, 40)), (3, 5, 4, 8)),
        ((slice(0, 9), slice(3, 4), slice(20, 23)), (3, 9, 1, 3)),
        ((slice(8, 9), slice(9, 10), slice(41, 42)), (3, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("settings", [dict(), dict(overlap=0.2, mode="gaussian"), dict(votes=4)], ids=str)
def test_sums_are_held_inside_the_box_of_the_mask_and_change_nothing(shapes_held, settings, box, held):
    network, volume = Convolved(), volume_of(1, 1, 9, 10, 42)
    mask = torch.zeros(1, 1, 9, 10, 42, dtype=torch.bool)
    mask[(..., *box)] = True
    mask[0, 0, 4, 3, 21:30] = False
    inferer = VotingInferer(10, activation=None, **settings)
    everywhere = inferer(volume, network)
    shapes_held.clear()
    assert torch.equal(inferer(volume, network, mask=mask), everywhere * mask)
    assert shapes_held == [held]
    assert torch.equal(inferer(volume, network, mask=mask.float() * 7), everywhere * mask)


@pytest.mark.parametrize("settings", [dict(votes=1), dict(votes=1, mode="gaussian"), dict(overlap=0.0)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_one_prediction_a_voxel_needs_no_sums(shapes_held, settings, masked):
    network, volume = Convolved(integer=False), volume_of(2, 1, 18, 12, 24, integer=False)
    mask = torch.rand(2, 1, 18, 12, 24, generator=torch.Generator().manual_seed(3)) < 0.003 if masked else None
    inferer = VotingInferer(8, sw_batch_size=2, **settings)
    labels = inferer(volume, network, mask=mask)
    assert labels.dtype == torch.uint8 and not shapes_held
    sums = VotingInferer(8, output="probabilities", **settings)(volume, network, mask=mask)
    assert torch.equal(labels, sums.argmax(1, keepdim=True).to(torch.uint8))
    assert labels.any()


@pytest.mark.parametrize(
    "settings, models, extent",
    [(dict(votes=2), 1, 12), (dict(votes=1), 2, 12), (dict(overlap=0.0), 1, 13), (dict(overlap=0.5), 1, 12)],
)
def test_several_predictions_a_voxel_are_summed(shapes_held, settings, models, extent):
    networks = [Convolved(seed=seed) for seed in range(models)]
    VotingInferer(8, activation=None, **settings)(volume_of(1, 1, 6, 6, extent), networks)
    assert len(shapes_held) == 1


def test_an_unknown_valid_network_is_run_once_too_often_and_a_padded_one_never():
    told, unknown, padded = Convolved(tell=True), Convolved(), Convolved(padded=True)
    inferer, volume = VotingInferer(8, overlap=0.0, activation=None), volume_of(1, 1, 12, 12, 12)
    for network, windows in ((told, 8), (unknown, 9), (padded, 8)):
        inferer(volume, network)
        assert len(network.sizes) == windows


def test_a_part_of_roi_size_that_is_not_positive_takes_the_whole_axis():
    network = Convolved(tell=True)
    VotingInferer((-1, 6, -1), activation=None)(volume_of(1, 1, 9, 8, 7), network)
    assert {size[2:] for size in network.sizes} == {(9, 6, 7)}


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [dict(), dict(votes=4, vote="majority"), dict(threshold=2.0, context=1)], ids=str)
def test_cuda_gives_the_same_labels_without_waiting_for_the_device(settings):
    network, volume = Convolved(tell=True), volume_of(2, 1, 19, 8, 11)
    inferer = VotingInferer((8, 7, 9), activation=None, **settings)
    expected = inferer(volume, network)
    network, volume = network.cuda(), volume.cuda()
    inferer(volume, network)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = inferer(volume, network)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got.is_cuda and torch.equal(got.cpu(), expected)
