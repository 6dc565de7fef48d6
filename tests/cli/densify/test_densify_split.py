"""Which slices are held out: spread, spared by training, and none that training needs."""

from __future__ import annotations

import numpy as np
import pytest

from common.cli.densify.split import beside_training, hold_out
from common.geometry.planes import on_planes

UNLABELLED = 2


def drawn(planes, size=(30, 28, 26), seed=0):
    """A label with two classes, at random, on the planes."""
    label = np.random.default_rng(seed).integers(0, 2, size).astype(np.uint8)
    return np.where(on_planes(size, planes), label, UNLABELLED)


PLANES = ([3, 9, 15, 21, 27], [4, 10, 16, 22], [5, 12, 20])


def count(planes) -> list[int]:
    return [len(of_axis) for of_axis in planes]


def test_about_a_fifth_that_were_drawn_and_every_axis_keeps_some():
    held_out = hold_out(drawn(PLANES), UNLABELLED, PLANES)
    assert sum(count(held_out)) == 2 and max(count(held_out)) == 1
    for out, of_axis in zip(held_out, PLANES, strict=True):
        assert set(out) < set(of_axis)


@pytest.mark.parametrize(("share", "number"), [(0.34, 4), (0.5, 6), (0.01, 1)])
def test_the_share_that_is_asked_for(share, number):
    assert sum(count(hold_out(drawn(PLANES), UNLABELLED, PLANES, share))) == number


def test_the_same_every_time():
    assert hold_out(drawn(PLANES), UNLABELLED, PLANES) == hold_out(drawn(PLANES), UNLABELLED, PLANES)


@pytest.mark.parametrize("planes", [([], [], []), ([4], [5], [6]), ([4, 9, 20], [], [])])
def test_too_few_planes_hold_none_out(planes):
    assert hold_out(drawn(planes), UNLABELLED, planes) is None


def test_none_where_none_is_wanted():
    assert hold_out(drawn(PLANES), UNLABELLED, PLANES, share=0) is None


@pytest.mark.parametrize("single", [0, 1, 2])
def test_the_only_plane_of_an_axis_stays_in_training(single):
    planes = [[2, 7, 13, 19], [2, 7, 13, 19], [2, 7, 13, 19]]
    planes[single] = [11]
    for share in (0.2, 0.5, 0.9):
        assert hold_out(drawn(planes), UNLABELLED, planes, share)[single] == []


@pytest.mark.parametrize("plane", [5, 11, 17, 23])
def test_a_class_of_one_plane_stays_in_training(plane):
    planes = ([], [], [5, 11, 17, 23])
    label = np.where(drawn(planes) == UNLABELLED, 3, 0)
    label[:, :9, :] = np.where(label[:, :9, :] == 0, 1, label[:, :9, :])
    label[2:5, 20:24, plane] = 2
    held_out = hold_out(label, 3, planes)
    assert sum(count(held_out)) == 1 and plane not in held_out[2]


def test_planes_that_show_more_classes_are_preferred():
    planes = ([], [], [3, 9, 15, 21])
    label = np.where(drawn(planes) == UNLABELLED, 2, 0)
    for index in (9, 21):
        label[5:9, 5:9, index] = 1
    assert hold_out(label, 2, planes)[2][0] in (9, 21)


def test_none_that_training_could_spare():
    planes = ([], [], [3, 9, 15, 21])
    label = np.where(drawn(planes) == UNLABELLED, 4, 0)
    for number, index in enumerate(planes[2]):
        label[:, :, index] = number
    assert hold_out(label, 4, planes) is None


def test_further_planes_add_to_those_held_out_before():
    before = ([9], [], [12])
    new = ([6, 12, 18], [1, 7], [])
    planes = [sorted({*old, *more}) for old, more in zip(PLANES, new, strict=True)]
    held_out = hold_out(drawn(planes), UNLABELLED, planes, 0.4, new, before)
    assert all(set(old) <= set(now) for old, now in zip(before, held_out, strict=True))
    added = [set(now) - set(old) for old, now in zip(before, held_out, strict=True)]
    assert sum(map(len, added)) == 2 and all(one <= set(of) for one, of in zip(added, new, strict=True))


def test_without_further_planes_those_before_stay():
    before = ([9], [], [12])
    assert hold_out(drawn(PLANES), UNLABELLED, PLANES, 0.2, ([], [], []), before) == [[9], [], [12]]
    assert hold_out(drawn(PLANES), UNLABELLED, PLANES, 0, before=before) == [[9], [], [12]]
    assert hold_out(drawn(PLANES), UNLABELLED, PLANES, 0.2, ([], [], [])) is None


def test_neighbours_in_training_are_noticed():
    dense = ([], [], list(range(10, 20)))
    assert beside_training(dense, ([], [], [12, 17]))
    assert not beside_training(dense, ([], [], [10, 11, 12, 13]))
    assert not beside_training(PLANES, ([9], [], [12]))
