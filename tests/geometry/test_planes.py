from __future__ import annotations

import numpy as np
import pytest

from common.geometry.planes import covering_planes, on_planes


def _ball(shape, centre, radius):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return ((grid - centre) ** 2).sum(-1) <= radius**2


@pytest.mark.parametrize(
    ("shape", "planes"),
    [
        ((24, 25, 26), [[], [], [7]]),
        ((24, 25, 26), [[3], [20], [11]]),
        ((24, 25, 26), [[0, 23], [0, 24], [0, 25]]),
        ((24, 25, 26), [[5, 6, 7], [12], []]),
        ((40, 40, 6), [[2, 9, 17, 30], [5, 6, 20], [1, 4]]),
        ((40, 40, 3), [[2, 9, 17, 30], [5, 15, 20], []]),  # more planes than the volume has voxels across z
        ((30, 30, 6), [list(range(10)), [], []]),  # fewer voxels on each than on the planes that they cross in a band
        ((30, 4, 30), [[], [1], [3, 9, 15, 21, 27]]),
        ((9, 1, 9), [[], [0], []]),
    ],
)
def test_full_planes_are_found(shape, planes):
    assert covering_planes(on_planes(shape, planes)) == planes


@pytest.mark.parametrize(
    ("planes", "drawn"),
    [
        ([[], [], [15]], [[], [], [15]]),
        ([[], [], [6, 9, 15, 20, 23]], [[], [], [6, 9, 15, 20, 23]]),
        ([[14], [16], [15]], [[14], [16], [15]]),
        ([[10, 20], [13], [8, 15, 22]], [[10, 20], [13], [8, 15, 22]]),
        ([[], [13, 14, 15], [3]], [[], [13, 14, 15], []]),  # nothing of the object lies on the last one
    ],
)
def test_planes_on_which_an_object_was_drawn_are_found(planes, drawn):
    ball = _ball((32, 32, 32), (15, 15, 15), 11)
    assert covering_planes(ball & on_planes(ball.shape, planes)) == drawn


def test_the_tip_of_an_object_goes_to_its_own_slice():
    drawn = np.zeros((40, 40, 20), bool)
    for z, radius in ((4, 10), (8, 7), (12, 4)):
        drawn[:, :, z] = _ball((40, 40, 1), (20, 20, 0), radius)[:, :, 0]
    drawn[20, 19:22, 16] = drawn[21, 20, 16] = True  # a cross of four voxels
    assert covering_planes(drawn) == [[], [], [4, 8, 12, 16]]


def test_a_line_goes_to_the_axis_of_the_other_slices():
    drawn = np.zeros((40, 20, 20), bool)
    drawn[10:15, 5:15, 3] = drawn[12, 4:12, 16] = True
    assert covering_planes(drawn) == [[], [], [3, 16]]


def test_a_slip_of_the_pen_annotates_no_slice():
    drawn = np.zeros((40, 40, 20), bool)
    drawn[:, :, 5] = drawn[7, 7, 11] = True
    assert covering_planes(drawn) == [[], [], [5]]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_nearly_full_planes_of_a_random_choice_are_found(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(12, 40, 3))
    planes = [sorted(rng.choice(size, rng.integers(1, 4), replace=False).tolist()) for size in shape]
    drawn = on_planes(shape, planes) & (rng.random(shape) < 0.95)
    assert covering_planes(drawn) == planes


def test_all_that_was_drawn_is_held_but_strays():
    drawn = np.random.default_rng(0).random((8, 9, 10)) < 0.3
    held = on_planes(drawn.shape, covering_planes(drawn))
    assert (held & drawn).sum() == drawn.sum()


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 1, 1)])
def test_nothing_drawn_has_no_planes(shape):
    assert covering_planes(np.zeros(shape, bool)) == [[], [], []]


def test_nothing_is_changed():
    drawn = on_planes((6, 6, 6), [[1], [], [2]])
    before = drawn.copy()
    covering_planes(drawn)
    np.testing.assert_array_equal(drawn, before)


def test_on_planes_marks_these_planes_alone():
    mask = on_planes((3, 4, 5), [[1], [], [0, 4]])
    for x, y, z in np.ndindex(3, 4, 5):
        assert mask[x, y, z] == (x == 1 or z in (0, 4))
