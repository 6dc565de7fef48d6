"""Drawn slices become one label of classes, whatever values were drawn with."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from classed_slices import BALL, CLASSES, GRID, SCATTER, SHAPE, saved, sparse

from common.checks import InputError
from common.data.annotation import annotated_planes, read_annotation, to_values
from common.data.volume_file import read_volume
from common.geometry.planes import on_planes


@pytest.mark.parametrize(("values", "warned"), [(20, False), (21, True)])
def test_numbers_of_objects_are_called_out(read, values, warned):
    numbered = 1 + GRID.sum(-1) % values
    notes = read(sparse(numbered.astype(np.uint8), [[5], [], [7]], 0)).notes
    assert any(f"each of these {values} values is learned as a class" in note for note in notes) == warned


@pytest.mark.parametrize("given", [None, "3", 3, "255"])
@pytest.mark.parametrize("planes", [[[5], [9], [4, 11]], [[], [], [7]], [[2, 18], [3], []]])
def test_full_slices(read, planes, given):
    mark = 255 if given == "255" else 3
    found = read(sparse(CLASSES, planes, mark), unlabelled=given)
    on = on_planes(SHAPE, planes)
    values = sorted({0, 1, 2} & set(CLASSES[on].tolist()))
    assert found.values == tuple(values) and found.unlabelled == mark and found.planes == planes
    assert found.num_classes == found.ignore_index == len(values) and found.label.dtype == np.uint8
    np.testing.assert_array_equal(found.label != found.ignore_index, on)
    np.testing.assert_array_equal(to_values(found.label[on], found.values), CLASSES[on])
    assert found.voxels == [int((CLASSES[on] == value).sum()) for value in values]
    assert ("as given" if given else f"found to be value {mark}") in " ".join(found.notes)


@pytest.mark.parametrize("mark", [0, 7, 255, -1])
def test_the_value_of_unlabelled_voxels_is_found_whatever_it_is(read, mark):
    dense = np.where(BALL, 4, 9).astype(np.int16)
    found = read(sparse(dense, [[5], [9], [4]], mark))
    assert found.unlabelled == mark and found.values == (4, 9)


def test_a_few_holes_in_full_slices_are_unlabelled(read):
    label = sparse(CLASSES, [[], [], [4, 11]], 3)
    label[3:6, 3:6, 4] = 3
    found = read(label)
    assert found.unlabelled == 3 and (found.label[3:6, 3:6, 4] == found.ignore_index).all()


@pytest.mark.parametrize("given", [None, "planes", "Planes"])
@pytest.mark.parametrize("planes", [[[], [], [8]], [[12], [10], [8]], [[], [], [3, 6, 9, 12]]])
def test_an_object_drawn_over_nothing_is_on_a_background_of_its_slices(read, planes, given):
    dense = np.where(BALL, 100, 0).astype(np.uint16)
    found = read(sparse(dense, planes, 0), unlabelled=given)
    on = on_planes(SHAPE, planes)
    assert found.unlabelled == "planes" and found.values == (0, 100) and found.planes == planes
    np.testing.assert_array_equal(to_values(found.label[on], found.values), dense[on])
    assert (found.label[~on] == found.ignore_index).all()
    assert given or "pass --unlabelled 0 if 0 is unlabelled everywhere" in " ".join(found.notes)


@pytest.mark.parametrize(("gap", "unlabelled"), [(0, 0), (1, "planes")])
def test_one_value_that_nearly_fills_its_slices(read, gap, unlabelled):
    label = np.zeros(SHAPE, np.uint8)
    label[:, gap:, [3, 9]] = 1
    if unlabelled == 0:
        with pytest.raises(InputError, match="only one class is labelled, value 1"):
            read(label)
        return
    found = read(label)
    assert found.unlabelled == "planes" and found.values == (0, 1) and found.planes == [[], [], [3, 9]]


def test_strokes_are_read_as_such_when_that_is_said(read):
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[3, 2:18, 5], strokes[10:14, 10, 8], strokes[12, 8:12, 8] = 2, 1, 1
    found = read(strokes, unlabelled="0")
    assert found.values == (1, 2) and found.voxels == [int((strokes == v).sum()) for v in (1, 2)]
    np.testing.assert_array_equal(found.label != 2, strokes != 0)


def test_unlabelled_text_must_be_understood(read):
    with pytest.raises(InputError, match="unlabelled is 'plain': .* or the word planes"):
        read(sparse(CLASSES, [[], [], [7]], 3), unlabelled="plain")


@pytest.mark.parametrize(
    ("array", "options", "text"),
    [
        (CLASSES, {"unlabelled": 3}, r"every voxel is labelled \(no voxel has the unlabelled value 3\)"),
        (
            np.random.default_rng(0).integers(0, 3, SHAPE),
            {"unlabelled": "planes"},
            "every voxel is labelled, with the values 0, 1, 2",
        ),
        (CLASSES + 1, {}, "hold the values 1, 2, 3 and none of them looks unlabelled.*--unlabelled VALUE"),
        (1 + (SCATTER > 0.5) + (SCATTER > 0.92), {}, "hold the values 1, 2, 3 and none of them looks unlabelled"),
        (BALL.astype(np.uint8), {}, "side by side, as in a dense label"),
        (sparse(BALL.astype(np.uint8), [[], [], [4, 8]], 0), {"unlabelled": 0}, "only one class is labelled, value 1"),
        (sparse(np.full(SHAPE, 5), [[], [], [4, 8]], 0), {}, "only one class is labelled, value 5"),
        (sparse(np.zeros(SHAPE), [[], [], [4, 8]], 255), {}, "only one class is labelled, value 0"),
        (np.zeros(SHAPE, np.uint8), {}, "nothing is labelled: the slices hold 0"),
        (np.zeros(SHAPE, np.uint8), {"unlabelled": "planes"}, "nothing is labelled"),
        (np.full(SHAPE, 3), {"unlabelled": 3}, "nothing is labelled: the slices hold 3 and unlabelled is 3"),
        (np.random.default_rng(0).random(SHAPE), {}, "which is no whole number: they look like grey values"),
        (np.arange(np.prod(SHAPE)).reshape(SHAPE), {}, "7680 different values: they look like grey values"),
        (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100, {}, "holds 100 different values: they look like grey"),
        (np.zeros((*SHAPE, 3), np.uint8), {}, "has 3 channels: a label has one number a voxel"),
    ],
)
def test_what_can_not_be_read_is_said(read, array, options, text):
    with pytest.raises(InputError, match=text):
        read(array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int32), **options)


@pytest.mark.parametrize("grey", [np.random.default_rng(0).random(SHAPE), np.indices(SHAPE).prod(0) % 251])
def test_image_and_slices_swapped(tmp_path, read, grey):
    label = read_volume(saved(tmp_path / "drawn.nii.gz", sparse(CLASSES, [[], [], [4]], 3)))
    grey = grey.astype(np.float32) if grey.dtype.kind == "f" else grey.astype(np.uint8)
    with pytest.raises(InputError, match="'drawn.nii.gz' holds a few whole numbers.*swap 'drawn.nii.gz' and 'slices0"):
        read(grey, beside=label)


def test_no_slices_at_all(image):
    with pytest.raises(InputError, match="no slices were given"):
        read_annotation([], image)


@pytest.mark.parametrize(("planes", "warned"), [([[], [], [4, 8]], True), ([[3], [], [4]], False)])
def test_one_axis_alone_works_and_warns(read, planes, warned):
    notes = read(sparse(CLASSES, planes, 3)).notes
    assert any(note.startswith("Warning: slices were drawn across z only") for note in notes) == warned


def test_strays_are_labelled_and_warned_of(read):
    label = sparse(CLASSES, [[], [6], [4]], 3)
    label[3, 15, 12] = 1
    found = read(label)
    assert found.planes == [[], [6], [4]] and found.label[3, 15, 12] == 1
    assert any(note.startswith("Warning: 1 labelled voxels lie apart") for note in found.notes)


def test_whole_numbers_may_be_stored_as_fractions(read):
    found = read(sparse(CLASSES, [[], [], [4]], 3).astype(np.float32))
    np.testing.assert_array_equal(found.label, sparse(CLASSES, [[], [], [4]], 3))


def test_annotated_planes_hold_partly_labelled_ones():
    label = sparse(CLASSES, [[], [6], [4, 11]], 3)
    label[:12, :, 11] = 3
    assert annotated_planes(label, 3) == [[], [6], [4, 11]]


@pytest.mark.parametrize(("values", "dtype"), [((0, 100), np.uint8), ((0, 300), np.uint16), ((-1, 2), np.int8)])
def test_values_of_the_user_come_back(values, dtype):
    back = to_values(np.array([[0, 1, 0]], np.uint8), values)
    assert back.dtype == dtype and back.tolist() == [[values[0], values[1], values[0]]]


def test_the_one_slice_of_a_brain(real_data):
    folder = real_data / "microscopy" / "sparse_brain"
    image = read_volume(folder / "tumor.tif")
    found = read_annotation(folder / "labels_one_slice.tif", image)
    assert found.planes == [[], [], [70]] and found.values == (0, 100) and found.unlabelled == "planes"
    assert found.voxels == [240 * 240 - 2343, 2343]
    with pytest.raises(InputError, match="dense label"):
        read_annotation(folder / "dense_result.tif", image)


@pytest.mark.parametrize("name", ["1135_mini", "1136_mini", "sample_ovule"])
def test_every_tenth_slice_of_dense_objects(real_data, tmp_path, name):
    path = real_data / "microscopy" / f"{name}.h5"
    image = read_volume(path)
    with pytest.raises(InputError, match="side by side, as in a dense label|a number for each object"):
        read_annotation(path, image)
    with h5py.File(path) as stream:
        dense = stream["label"][()]
    # nuclei in a background of 0; cells without gaps, as three classes beside an unlabelled 0
    dense = (1 + dense % 3 if name == "sample_ovule" else dense > 0).astype(np.uint8)
    sparse = np.zeros_like(dense)
    sparse[5::10], sparse[:, 40] = dense[5::10], dense[:, 40]
    with h5py.File(tmp_path / "few.h5", "w") as stream:
        stream["label"] = sparse
    found = read_annotation(tmp_path / "few.h5", image)
    full = name == "sample_ovule"
    assert found.planes == [[], [40], list(range(5, len(dense), 10))]
    assert found.values == ((1, 2, 3) if full else (0, 1)) and found.unlabelled == (0 if full else "planes")
    on = on_planes(image.shape, found.planes)
    np.testing.assert_array_equal(to_values(found.label[on], found.values), dense.T[on])
    assert (found.label[~on] == found.ignore_index).all()
