"""Slices of several files and of several rounds become one label."""

from __future__ import annotations

import numpy as np
import pytest
from classed_slices import BALL, CLASSES, GRID, SHAPE, sparse

from common.checks import InputError
from common.data.annotation import Annotation, merge
from common.geometry.planes import on_planes


def test_files_of_one_axis_each_are_joined(read):
    parts = [[[5], [], []], [[], [9], []], [[], [], [4, 11]]]
    found = read(*[sparse(CLASSES, planes, 3) for planes in parts])
    np.testing.assert_array_equal(found.label, sparse(CLASSES, [[5], [9], [4, 11]], 3))
    assert found.planes == [[5], [9], [4, 11]]


def test_objects_drawn_in_several_files_have_the_background_of_their_own_slices(read):
    dense = BALL.astype(np.uint8)
    found = read(*[sparse(dense, planes, 0) for planes in ([[12], [], []], [[], [], [4, 8]])])
    np.testing.assert_array_equal(found.label, sparse(dense, [[12], [], [4, 8]], 2))


@pytest.mark.parametrize("disputed", ["error", "unlabelled", "last"])
def test_files_that_disagree(read, disputed):
    first, second = (sparse(CLASSES, planes, 3) for planes in ([[], [], [4]], [[12], [], []]))
    changed = second.copy()
    changed[12, 3:5, 4] = 1
    assert (first[12, 3:5, 4] == 2).all()
    if disputed == "error":
        with pytest.raises(InputError, match=r"disagree at 2 voxels, the first at \(12, 3, 4\): 2 and then 1"):
            read(first, changed)
        return
    found = read(first, changed, disputed=disputed)
    expected = sparse(CLASSES, [[12], [], [4]], 3)
    expected[12, 3:5, 4] = {"unlabelled": 3, "last": 1}[disputed]
    np.testing.assert_array_equal(found.label, expected)
    assert any(note.startswith("Warning: the slices disagree at 2 voxels") for note in found.notes)


def test_disputed_is_one_of_three(read):
    with pytest.raises(InputError, match="disputed is 'first': it must be one of error, unlabelled, last"):
        read(CLASSES, disputed="first")


def test_known_classes_keep_their_order_and_one_may_come_alone(read):
    found = read(sparse(np.full(SHAPE, 5), [[], [], [4]], 0).astype(np.uint8), classes=(9, 5, 2))
    assert found.values == (9, 5, 2) and set(np.unique(found.label)) == {1, 3}
    grown = read(sparse(np.full(SHAPE, 7), [[], [], [4]], 0).astype(np.uint8), classes=(9, 5))
    assert grown.values == (9, 5, 7) and set(np.unique(grown.label)) == {2, 3}


def test_new_slices_are_added_and_count_where_they_were_drawn_anew():
    old = Annotation(sparse(CLASSES, [[], [], [4, 11]], 3), (0, 10, 20), [[], [], [4, 11]], 255, ["old"])
    values = np.where(GRID[..., 1] < 10, 10, 7)  # class 7 is new
    new_label = np.where(on_planes(SHAPE, [[5], [], [4]]), np.where(values == 10, 1, 0), 2).astype(np.uint8)
    new = Annotation(new_label, (7, 10), [[5], [], [4]], 255, ["new"])
    both = merge(old, new)
    assert both.values == (0, 10, 20, 7) and both.ignore_index == 4 and both.planes == [[5], [], [4, 11]]
    fresh = on_planes(SHAPE, [[5], [], [4]])
    drawn_before = on_planes(SHAPE, [[], [], [4, 11]])
    before = np.array([0, 10, 20])[np.minimum(old.label, 2)]
    expected = np.where(fresh, values, np.where(drawn_before, before, -1))
    np.testing.assert_array_equal(np.array([0, 10, 20, 7, -1])[both.label], expected)
    anew, changed = int((fresh & ~drawn_before).sum()), int((fresh & drawn_before & (before != values)).sum())
    assert f"{anew} voxels were labelled that were not before, and {changed} were labelled otherwise" in both.notes[1]
    assert both.notes[0] == "new" and "New classes: 7" in both.notes[2] and both.unlabelled == 255


def test_the_same_slices_again_change_nothing():
    old = Annotation(sparse(CLASSES, [[], [], [4, 11]], 3), (0, 1, 2), [[], [], [4, 11]])
    both = merge(old, old)
    np.testing.assert_array_equal(both.label, old.label)
    assert "0 voxels were labelled that were not before, and 0" in both.notes[0]


def test_slices_of_another_grid_are_not_added():
    old = Annotation(sparse(CLASSES, [[], [], [4]], 3), (0, 1, 2), [[], [], [4]])
    new = Annotation(old.label[1:], old.values, old.planes)
    with pytest.raises(InputError, match="both must belong to the same image"):
        merge(old, new)


def test_slices_that_fill_the_volume_are_refused():
    old = Annotation(sparse(CLASSES, [[], [], [4]], 3), (0, 1, 2), [[], [], [4]])
    with pytest.raises(InputError, match="every voxel is labelled"):
        merge(old, Annotation(CLASSES, (0, 1, 2), [[], [], list(range(16))]))
