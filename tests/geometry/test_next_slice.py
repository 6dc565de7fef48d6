"""Which plane next: against a slow reading of the formula, by symmetry, and on awkward volumes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from common.checks import InputError
from common.geometry.next_slice import even_planes, random_planes, rank_planes


def unsettled(uncertainty, chosen, spacing, reach) -> float:
    """The sum that a set of planes leaves, voxel by voxel."""
    left = 0.0
    for position in itertools.product(*(range(size) for size in uncertainty.shape)):
        share = 1.0
        for axis, index in chosen:
            share *= 1 - math.exp(-abs(position[axis] - index) * spacing[axis] / reach)
        left += float(uncertainty[position]) * share
    return left


@pytest.mark.parametrize(
    ("size", "planes", "spacing", "reach"),
    [
        ((5, 6, 4), ((), (), ()), (1.0, 1.0, 1.0), 1.5),
        ((5, 6, 4), ((2,), (), (0, 3)), (0.5, 1.0, 3.0), 2.0),
        ((1, 7, 3), ((), (3,), ()), (1.0, 1.0, 1.0), 1.0),
    ],
)
def test_each_plane_is_the_one_that_settles_most(size, planes, spacing, reach):
    uncertainty = np.random.default_rng(3).random(size)
    chosen = [(axis, index) for axis, indices in enumerate(planes) for index in indices]
    for plane in rank_planes(uncertainty, planes, 4, spacing=spacing, reach=reach):
        before = unsettled(uncertainty, chosen, spacing, reach)
        rivals = {
            (axis, index): before - unsettled(uncertainty, [*chosen, (axis, index)], spacing, reach)
            for axis in range(3)
            for index in range(size[axis])
            if (axis, index) not in chosen
        }
        assert plane.gain == pytest.approx(max(rivals.values()) / uncertainty.sum(), rel=1e-4)
        assert rivals[plane.axis, plane.index] == pytest.approx(max(rivals.values()), rel=1e-4)
        chosen.append((plane.axis, plane.index))


def test_the_plane_of_a_single_uncertain_slice_comes_first_and_settles_it():
    uncertainty = torch.zeros(12, 10, 8)
    uncertainty[:, 7] = 0.5
    (first,) = rank_planes(uncertainty, count=1)
    assert first[:2] == (1, 7) and first.gain == pytest.approx(1.0)
    assert rank_planes(uncertainty, planes=((), (7,), ())) == []  # it is annotated, and no other one settles anything


def test_neighbours_of_annotated_and_of_ranked_planes_come_late():
    uncertainty = torch.ones(40, 4, 4)
    ranked = rank_planes(uncertainty, planes=((20,), (), ()), count=2, axes=(0,), reach=3.0)
    low, high = sorted(plane.index for plane in ranked)
    assert low + high == 40 and 6 <= low <= 12  # mirror images of one another, far from 20 and from the border
    gains = [plane.gain for plane in rank_planes(uncertainty, count=8, axes=(0,), reach=3.0)]
    assert gains == sorted(gains, reverse=True)


def test_voxels_and_what_they_measure_are_told_apart():
    uncertainty = np.random.default_rng(0).random((9, 8, 7))
    assert rank_planes(uncertainty, spacing=(2, 2, 6), reach=4.0) == rank_planes(
        uncertainty, spacing=(1, 1, 3), reach=2.0
    )
    # by default the reach follows the volume, so that the unit does not matter
    assert rank_planes(uncertainty, spacing=(2, 2, 6)) == rank_planes(uncertainty, spacing=(1, 1, 3))


def test_planes_stay_within_axes_and_candidates():
    uncertainty = np.random.default_rng(1).random((6, 6, 6))
    offered = ((1, 2), (), (3, 5))
    for found in (
        [plane[:2] for plane in rank_planes(uncertainty, ((1,), (), ()), 9, candidates=offered)],
        random_planes(uncertainty > 0.5, ((1,), (), ()), 9, candidates=offered),
        even_planes((6, 6, 6), ((1,), (), ()), 9, candidates=offered),
    ):
        assert sorted(found) == [(0, 2), (2, 3), (2, 5)]
    assert {plane.axis for plane in rank_planes(uncertainty, axes=(2, 0), count=4)} <= {0, 2}
    assert random_planes(uncertainty, count=0) == even_planes((6, 6, 6), count=0) == []


def test_what_was_given_stays_as_it_is():
    uncertainty = torch.rand(4, 5, 6, dtype=torch.float32)
    before = uncertainty.clone()
    rank_planes(uncertainty, planes=((1,), (), ()))
    assert torch.equal(uncertainty, before)
    assert rank_planes(torch.zeros(3, 3, 3)) == []


def test_random_planes_follow_the_foreground():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 1, 2], mask[0, 3, 2], mask[2, 1, 2] = True, True, True
    drawn = [random_planes(mask, count=1, seed=seed)[0] for seed in range(3000)]
    share = {plane: drawn.count(plane) / len(drawn) for plane in set(drawn)}
    expected = {(0, 0): 2 / 9, (0, 2): 1 / 9, (1, 1): 2 / 9, (1, 3): 1 / 9, (2, 2): 3 / 9}
    assert share.keys() == expected.keys()
    assert all(abs(share[plane] - expected[plane]) < 0.03 for plane in expected)


def test_random_planes_are_distinct_repeatable_and_come_without_foreground_too():
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[1, 1, 1] = True
    every = random_planes(mask, count=99, seed=4)
    assert sorted(every) == [(axis, index) for axis, size in enumerate((3, 4, 5)) for index in range(size)]
    assert set(every[:3]) == {(0, 1), (1, 1), (2, 1)}
    assert every == random_planes(torch.as_tensor(mask), count=99, seed=4) != random_planes(mask, count=99, seed=5)


@pytest.mark.parametrize(("count", "middles"), [(1, [44]), (3, [14, 44, 74])])
def test_even_planes_are_the_middles_of_equal_parts(count, middles):
    found = sorted(index for _, index in even_planes((90, 90, 90), count=count, axes=(1,)))
    assert np.abs(np.array(found) - middles).max() <= 1


def test_even_planes_take_turns_between_axes_and_fill_the_widest_gap():
    assert [axis for axis, _ in even_planes((30, 60, 90), count=6)] == [0, 1, 2, 0, 1, 2]
    assert even_planes((50, 50, 50), planes=((5, 10, 15), (25,), (25,)), count=1) == [(0, 38)]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rank_planes(torch.ones(1, 4, 4, 4)), "shape .1, 4, 4, 4.: planes are chosen in one of X Y Z"),
        (lambda: rank_planes(torch.ones(4, 4, 4), planes=((4,), (), ())), "annotated planes .* voxel indices, from 0"),
        (lambda: rank_planes(torch.ones(4, 4, 4), candidates=((), ())), "offered planes .* each of three axes"),
        (lambda: rank_planes(-torch.ones(4, 4, 4)), "values such as -1: each is a finite number"),
        (lambda: rank_planes(torch.full((4, 4, 4), math.nan)), "values such as nan"),
        (lambda: rank_planes(torch.full((4, 4, 4), math.inf)), "values such as inf"),
        (lambda: rank_planes(torch.ones(4, 4, 4), reach=0), "reach 0: both are distances above 0"),
        (lambda: rank_planes(torch.ones(4, 4, 4), spacing=(1, 0, 1)), "distances above 0"),
        (lambda: random_planes(torch.ones(4, 4)), "shape .4, 4."),
        (lambda: even_planes((4, 4, 4), axes=(3,)), r"axes \(3,\) were asked for: axes are some of 0, 1 and 2"),
        (lambda: even_planes((4, 4, 4), count=-1), "-1 planes"),
    ],
)
def test_what_can_not_be_is_refused(call, text):
    with pytest.raises(InputError, match=text):
        call()


@pytest.mark.gpu
def test_ranking_on_a_device_is_that_on_the_host():
    uncertainty = torch.rand(20, 18, 16)
    here = rank_planes(uncertainty, planes=((3,), (), (8,)))
    there = rank_planes(uncertainty.cuda(), planes=((3,), (), (8,)))
    assert [plane[:2] for plane in here] == [plane[:2] for plane in there]
