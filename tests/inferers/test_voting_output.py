"""What the voting inferer makes of scores, what it returns, and its errors."""

import io
import sys

import pytest
import torch
from convolved import Convolved, volume_of
from monai.data import MetaTensor, decollate_batch

from common.checks import InputError
from common.inferers import VotingInferer


@pytest.mark.parametrize("terminal, drawn", [(True, True), (False, False)])
def test_the_progress_bar_is_for_terminals(monkeypatch, terminal, drawn):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    for progress in (False, True):
        VotingInferer(8, progress=progress)(volume_of(1, 1, 12, 12, 12), Convolved())
        assert bool(stream.getvalue()) == (drawn and progress)


def test_softmax_and_sigmoid_are_applied_before_the_mean():
    low, high = (lambda window, score=score: torch.cat([window * 0 + score, window * 0], 1) for score in (-9.0, 1.0))
    volume = torch.zeros(1, 1, 4, 4, 4)
    soft = VotingInferer(4, output="probabilities")(volume, [low, high])
    expected = (torch.sigmoid(torch.tensor(-9.0)) + torch.sigmoid(torch.tensor(1.0))) / 2
    torch.testing.assert_close(soft[:, 0], expected.expand(1, 4, 4, 4))
    sigmoid = VotingInferer(4, output="probabilities", activation="sigmoid")(volume, [low, high])
    torch.testing.assert_close(sigmoid[:, 0], expected.expand(1, 4, 4, 4))
    assert torch.equal(sigmoid[:, 1], torch.full((1, 4, 4, 4), 0.5))


@pytest.mark.parametrize(
    "vote, threshold, expected", [("mean", 0.6, 1), ("mean", 0.7, 0), ("majority", 0.5, 1), ("majority", 0.9, 0)]
)
def test_threshold(vote, threshold, expected):
    networks = [lambda window, p=p: torch.full_like(window, p) for p in (1.0, 0.8, 0.125)]
    inferer = VotingInferer(4, vote=vote, activation=None, threshold=threshold)
    result = inferer(torch.zeros(1, 1, 6, 5, 4), networks)
    assert result.dtype == torch.uint8 and result.shape == (1, 1, 6, 5, 4) and (result == expected).all()


def test_half_of_the_votes_is_no_majority():
    networks = [lambda window, p=p: torch.full_like(window, p) for p in (1.0, 0.0)]
    result = VotingInferer(4, vote="majority", activation=None, threshold=0.5)(torch.zeros(1, 1, 4, 4, 4), networks)
    assert not result.any()


def test_equal_scores_give_the_lowest_class():
    result = VotingInferer(4)(torch.zeros(1, 1, 5, 5, 5), lambda window: window.expand(-1, 4, -1, -1, -1))
    assert not result.any()


def test_more_than_256_classes_are_not_wrapped():
    def network(window):
        scores = window.expand(-1, 300, -1, -1).clone()
        scores[:, 290] += 1
        return scores

    result = VotingInferer(2, activation=None)(torch.zeros(1, 1, 3, 3), network)
    assert result.dtype == torch.int32 and (result == 290).all()


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_half_precision_is_summed_in_float32(output):
    network, volume = Convolved(padded=True), volume_of(1, 1, 9, 9, 9)
    inferer = VotingInferer(6, activation=None, output=output, mode="gaussian")
    half = inferer(volume, lambda window: network(window).half())
    assert torch.equal(half, inferer(volume, network))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert inferer(volume, network).dtype == half.dtype


def test_metadata_survives_and_inputs_are_left_alone():
    affine = torch.diag(torch.tensor([-0.7, 0.7, 3.0, 1.0], dtype=torch.float64))
    volume = MetaTensor(volume_of(1, 1, 9, 9, 9), affine=affine[None], meta={"filename_or_obj": ["case"]})
    volume.is_batch = True
    before = volume.clone()
    result = VotingInferer(6)(volume, lambda window: torch.cat([window, -window], 1))
    assert isinstance(result, MetaTensor) and result.is_batch
    case = decollate_batch(result)[0]
    assert torch.equal(case.affine, affine) and case.meta["filename_or_obj"] == "case"
    assert torch.equal(volume, before)
    identity = VotingInferer(6, activation=None, output="probabilities", mode="gaussian")(volume, lambda window: window)
    assert torch.equal(volume, before)
    torch.testing.assert_close(identity.as_tensor(), before.as_tensor())


def test_no_gradient_and_further_arguments_reach_the_network():
    network = Convolved(padded=True)
    result = VotingInferer(6, output="probabilities")(
        volume_of(1, 1, 6, 6, 6), lambda window, factor, shift: network(window) * factor + shift, 2.0, shift=1.0
    )
    assert not result.requires_grad


def shrunk(*lost):
    return lambda window: window[(slice(None), slice(None), *(slice(0, -n or None) for n in lost))].expand(
        -1, 2, -1, -1, -1
    )


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda v: VotingInferer(8)(v, shrunk(2, 2, 3)), r"window of \(8, 8, 8\) into \(6, 6, 5\).*even number"),
        (lambda v: VotingInferer(8)(v, lambda w: w.repeat(1, 2, 2, 2, 2)), r"into \(16, 16, 16\).*as large as"),
        (lambda v: VotingInferer(8)(v, [shrunk(2, 2, 2), shrunk(0, 0, 0)]), "keep to one output size"),
        (lambda v: VotingInferer(8)(v, [shrunk(0, 0, 0), lambda w: w.expand(-1, 3, -1, -1, -1)]), "number of classes"),
        (lambda v: VotingInferer(8, context=4)(v, shrunk(0, 0, 0)), r"margin of \(4, 4, 4\).*enlarge roi_size"),
        (lambda v: VotingInferer(8, votes=2, align=3)(v, shrunk(0, 0, 0)), r"cores of \(8, 8, 8\).*multiple of align"),
        (lambda v: VotingInferer(8, align=(4, 0, 1)), r"align=\(4, 0, 1\).*at least 1"),
        (lambda v: VotingInferer(8, align=(4, 9, 1))(v, shrunk(0, 0, 0)), r"starting on multiples of \(4, 9, 1\)"),
        (lambda v: VotingInferer(8)(v, lambda w: w), "one output channel.*sigmoid"),
        (lambda v: VotingInferer(8)(v, lambda w: [w, w]), "returned list for 1 windows.*one tensor"),
        (lambda v: VotingInferer(8)(v, []), "at least one network"),
        (lambda v: VotingInferer((8, 8))(v, shrunk(0, 0, 0)), "spatial axes as roi_size"),
        (lambda v: VotingInferer(8)(v, shrunk(0, 0, 0), mask=torch.ones(1, 1, 9, 9, 8)), "inputs' grid"),
        (lambda v: VotingInferer(8, overlap=1.0), "overlap must be at least 0 and less than 1"),
        (lambda v: VotingInferer(8, votes=0), "votes must be"),
        (lambda v: VotingInferer(8, mode="gauss"), "mode must be one of.*gaussian"),
        (lambda v: VotingInferer(8, output="probabilities", threshold=0.5), "threshold must be None"),
    ],
)
def test_errors_name_the_rule(call, text):
    with pytest.raises(InputError, match=text):
        call(volume_of(1, 1, 9, 9, 9))


def test_a_network_that_contradicts_its_output_size_is_named():
    network = Convolved(tell=True)
    network.output_size = lambda roi: tuple(length - 4 for length in roi)
    with pytest.raises(InputError, match=r"returned 3 channels of \(6, 6, 6\).*output_size"):
        VotingInferer(8)(volume_of(1, 1, 9, 9, 9), network)
