"""Drawn slices become one label of classes on the image's grid, however they were saved."""

from __future__ import annotations

import itertools

import h5py
import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.data.annotation import Annotation, annotated_planes, merge, read_annotation, to_values
from common.data.volume_file import read_volume
from common.geometry.planes import on_planes

SHAPE = (24, 20, 16)
AFFINE = np.array([[-0.8, 0, 0.1, 11], [0, -0.9, 0, 22], [0.2, 0, 2.5, -33], [0, 0, 0, 1]])
GRID = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
BALL = ((GRID - (12, 10, 8)) ** 2).sum(-1) <= 36  # the object, labelled 1, in a background of 0
SCATTER = np.random.default_rng(0).random(SHAPE)
CLASSES = np.where(BALL, 1, np.where(GRID[..., 0] < 12, 0, 2)).astype(np.uint8)


def _save(path, array, affine=AFFINE, unit="mm"):
    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def _sparse(dense, planes, unlabelled):
    return np.where(on_planes(dense.shape, planes), dense, unlabelled).astype(dense.dtype)


@pytest.fixture
def image(tmp_path):
    grey = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return read_volume(_save(tmp_path / "image.nii.gz", grey))


@pytest.fixture
def read(tmp_path, image):
    """Save arrays as files of slices and read them."""

    def of(*arrays, beside=image, affine=AFFINE, unit="mm", **options):
        files = [_save(tmp_path / f"slices{n}.nii.gz", array, affine, unit) for n, array in enumerate(arrays)]
        return read_annotation(files, beside, **options)

    return of


@pytest.mark.parametrize(("values", "warned"), [(20, False), (21, True)])
def test_numbers_of_objects_are_called_out(read, values, warned):
    numbered = 1 + GRID.sum(-1) % values
    notes = read(_sparse(numbered.astype(np.uint8), [[5], [], [7]], 0)).notes
    assert any(f"each of these {values} values is learned as a class" in note for note in notes) == warned


@pytest.mark.parametrize("given", [None, "3", 3, "255"])
@pytest.mark.parametrize("planes", [[[5], [9], [4, 11]], [[], [], [7]], [[2, 18], [3], []]])
def test_full_slices(read, planes, given):
    mark = 255 if given == "255" else 3
    found = read(_sparse(CLASSES, planes, mark), unlabelled=given)
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
    found = read(_sparse(dense, [[5], [9], [4]], mark))
    assert found.unlabelled == mark and found.values == (4, 9)


def test_a_few_holes_in_full_slices_are_unlabelled(read):
    label = _sparse(CLASSES, [[], [], [4, 11]], 3)
    label[3:6, 3:6, 4] = 3
    found = read(label)
    assert found.unlabelled == 3 and (found.label[3:6, 3:6, 4] == found.ignore_index).all()


@pytest.mark.parametrize("given", [None, "planes", "Planes"])
@pytest.mark.parametrize("planes", [[[], [], [8]], [[12], [10], [8]], [[], [], [3, 6, 9, 12]]])
def test_an_object_drawn_over_nothing_is_on_a_background_of_its_slices(read, planes, given):
    dense = np.where(BALL, 100, 0).astype(np.uint16)
    found = read(_sparse(dense, planes, 0), unlabelled=given)
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
        read(_sparse(CLASSES, [[], [], [7]], 3), unlabelled="plain")


# the files' places


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, 1, -1)])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_other_orders_of_axes_are_put_in_place_and_told(read, axes, signs):
    planes = [[5], [], [4, 11]]
    label = _sparse(CLASSES, planes, 3)
    orientation = np.array(list(zip(axes, signs, strict=True)))
    turned = nibabel.orientations.apply_orientation(label, orientation)
    affine = AFFINE @ nibabel.orientations.inv_ornt_aff(orientation, SHAPE)
    found = read(turned, affine=affine)
    np.testing.assert_array_equal(found.label, label)
    assert found.planes == planes
    told = " ".join(found.notes)
    assert ("put in the image's order" in told) == (axes != (0, 1, 2))
    assert ("flipped along" in told) == (signs != (1, 1, 1))


def test_slices_saved_alone_are_put_where_they_belong(read):
    affines = [AFFINE.copy(), AFFINE.copy()]
    affines[0][:3, 3], affines[1][:3, 3] = (AFFINE @ [0, 0, 4, 1])[:3], (AFFINE @ [2, 9, 3, 1])[:3]
    first = read(CLASSES[:, :, 4:5], affine=affines[0])
    assert first.planes == [[], [], [4]] and first.unlabelled == "planes"
    np.testing.assert_array_equal(first.label, _sparse(CLASSES, [[], [], [4]], 3))
    assert "its 24x20x1 voxels were placed at voxel (0, 0, 4)" in " ".join(first.notes)
    second = read(CLASSES[2:20, 9:10, 3:14] + 1, affine=affines[1])
    assert second.unlabelled is None and second.values == (1, 2, 3)
    expected = np.full(SHAPE, 3, np.uint8)
    expected[2:20, 9, 3:14] = CLASSES[2:20, 9, 3:14]
    np.testing.assert_array_equal(second.label, expected)


def test_what_sticks_out_of_the_image_is_left_out_and_told(read):
    label = np.pad(_sparse(CLASSES, [[], [], [4]], 3), ((2, 1), (0, 0), (0, 3)), constant_values=3)
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [-2, 0, 0, 1])[:3]
    found = read(label, affine=affine)
    np.testing.assert_array_equal(found.label, _sparse(CLASSES, [[], [], [4]], 3))
    assert f"{label.size - CLASSES.size} voxels outside of the image were left out" in " ".join(found.notes)


@pytest.mark.parametrize(("unit", "scale"), [("micron", 1.0), ("mm", 1e-3), ("mm", 1.0), ("unknown", 1.0)])
def test_tools_that_turn_micrometres_into_millimetres(tmp_path, read, unit, scale):
    image = read_volume(_save(tmp_path / "fine.nii.gz", np.zeros(SHAPE, np.float32), AFFINE, "micron"))
    label = _sparse(CLASSES, [[], [], [4]], 3)
    found = read(label, beside=image, affine=np.diag([scale] * 3 + [1]) @ AFFINE, unit=unit)
    np.testing.assert_array_equal(found.label, label)


def _moved(by=(0, 0, 0), scale=(1, 1, 1)):
    affine = AFFINE @ np.diag([*scale, 1.0])
    affine[:3, 3] = (AFFINE @ [*by, 1])[:3]
    return affine


@pytest.mark.parametrize(
    ("affine", "text"),
    [
        (_moved(scale=(2, 2, 1)), "another spacing: edges 1.649 x 1.8 x 2.502 beside .*24x20x16"),
        (_moved(by=(0.5, 0, 0)), "another position: .*between voxels"),
        (_moved(by=(30, 0, 0)), r"lies outside of 'image.nii.gz' \(its first voxel would be voxel \(30, 0, 0\)\)"),
        (np.diag([0.8, 0.9, 2.5, 1.0]), "another orientation: an axis is turned by"),
    ],
)
def test_slices_beside_the_images_voxels_are_refused(read, affine, text):
    with pytest.raises(InputError, match=text):
        read(_sparse(CLASSES, [[], [], [4]], 3), affine=affine)


def _tiff(path, array):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, np.ascontiguousarray(array.T), photometric="minisblack")
    return path


@pytest.mark.parametrize("kind", ["tif", "h5"])
def test_files_without_a_place_fit_by_their_shape(tmp_path, image, kind):
    label = _sparse(CLASSES, [[5], [], [4]], 3)
    if kind == "tif":
        path = _tiff(tmp_path / "slices.tif", label)
    else:
        path = tmp_path / "slices.h5"
        with h5py.File(path, "w") as stream:
            stream["label"], stream["raw"] = label.T, np.random.rand(*SHAPE[::-1])
    found = read_annotation(path, image)
    np.testing.assert_array_equal(found.label, label)
    assert f"'{path.name}' was placed by its shape alone" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (CLASSES.T, r"16x20x24 \(x y z\) .*the same axes in another order.*transpose it to zyx"),
        (CLASSES[:, :, :1], r"has shape 24x20x1 \(x y z\) and the image 'image.nii.gz' has 24x20x16"),
        (CLASSES[1:], "without an affine must have the image's shape"),
    ],
)
def test_another_shape_without_a_place_is_refused(tmp_path, image, array, text):
    with pytest.raises(InputError, match=text):
        read_annotation(_tiff(tmp_path / "slices.tif", array), image)


# several files


def test_files_of_one_axis_each_are_joined(read):
    parts = [[[5], [], []], [[], [9], []], [[], [], [4, 11]]]
    found = read(*[_sparse(CLASSES, planes, 3) for planes in parts])
    np.testing.assert_array_equal(found.label, _sparse(CLASSES, [[5], [9], [4, 11]], 3))
    assert found.planes == [[5], [9], [4, 11]]


def test_objects_drawn_in_several_files_have_the_background_of_their_own_slices(read):
    dense = BALL.astype(np.uint8)
    found = read(*[_sparse(dense, planes, 0) for planes in ([[12], [], []], [[], [], [4, 8]])])
    np.testing.assert_array_equal(found.label, _sparse(dense, [[12], [], [4, 8]], 2))


@pytest.mark.parametrize("disputed", ["error", "unlabelled", "last"])
def test_files_that_disagree(read, disputed):
    first, second = (_sparse(CLASSES, planes, 3) for planes in ([[], [], [4]], [[12], [], []]))
    changed = second.copy()
    changed[12, 3:5, 4] = 1
    assert (first[12, 3:5, 4] == 2).all()
    if disputed == "error":
        with pytest.raises(InputError, match=r"disagree at 2 voxels, the first at \(12, 3, 4\): 2 and then 1"):
            read(first, changed)
        return
    found = read(first, changed, disputed=disputed)
    expected = _sparse(CLASSES, [[12], [], [4]], 3)
    expected[12, 3:5, 4] = {"unlabelled": 3, "last": 1}[disputed]
    np.testing.assert_array_equal(found.label, expected)
    assert any(note.startswith("Warning: the slices disagree at 2 voxels") for note in found.notes)


def test_disputed_is_one_of_three(read):
    with pytest.raises(InputError, match="disputed is 'first': it must be one of error, unlabelled, last"):
        read(CLASSES, disputed="first")


# what is refused, and what is warned of


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
        (_sparse(BALL.astype(np.uint8), [[], [], [4, 8]], 0), {"unlabelled": 0}, "only one class is labelled, value 1"),
        (_sparse(np.full(SHAPE, 5), [[], [], [4, 8]], 0), {}, "only one class is labelled, value 5"),
        (_sparse(np.zeros(SHAPE), [[], [], [4, 8]], 255), {}, "only one class is labelled, value 0"),
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
    label = read_volume(_save(tmp_path / "drawn.nii.gz", _sparse(CLASSES, [[], [], [4]], 3)))
    grey = grey.astype(np.float32) if grey.dtype.kind == "f" else grey.astype(np.uint8)
    with pytest.raises(InputError, match="'drawn.nii.gz' holds a few whole numbers.*swap 'drawn.nii.gz' and 'slices0"):
        read(grey, beside=label)


def test_no_slices_at_all(image):
    with pytest.raises(InputError, match="no slices were given"):
        read_annotation([], image)


@pytest.mark.parametrize(("planes", "warned"), [([[], [], [4, 8]], True), ([[3], [], [4]], False)])
def test_one_axis_alone_works_and_warns(read, planes, warned):
    notes = read(_sparse(CLASSES, planes, 3)).notes
    assert any(note.startswith("Warning: slices were drawn across z only") for note in notes) == warned


def test_strays_are_labelled_and_warned_of(read):
    label = _sparse(CLASSES, [[], [6], [4]], 3)
    label[3, 15, 12] = 1
    found = read(label)
    assert found.planes == [[], [6], [4]] and found.label[3, 15, 12] == 1
    assert any(note.startswith("Warning: 1 labelled voxels lie apart") for note in found.notes)


def test_known_classes_keep_their_order_and_one_may_come_alone(read):
    found = read(_sparse(np.full(SHAPE, 5), [[], [], [4]], 0).astype(np.uint8), classes=(9, 5, 2))
    assert found.values == (9, 5, 2) and set(np.unique(found.label)) == {1, 3}
    grown = read(_sparse(np.full(SHAPE, 7), [[], [], [4]], 0).astype(np.uint8), classes=(9, 5))
    assert grown.values == (9, 5, 7) and set(np.unique(grown.label)) == {2, 3}


def test_whole_numbers_may_be_stored_as_fractions(read):
    found = read(_sparse(CLASSES, [[], [], [4]], 3).astype(np.float32))
    np.testing.assert_array_equal(found.label, _sparse(CLASSES, [[], [], [4]], 3))


# more slices later


def test_new_slices_are_added_and_count_where_they_were_drawn_anew():
    old = Annotation(_sparse(CLASSES, [[], [], [4, 11]], 3), (0, 10, 20), [[], [], [4, 11]], 255, ["old"])
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
    old = Annotation(_sparse(CLASSES, [[], [], [4, 11]], 3), (0, 1, 2), [[], [], [4, 11]])
    both = merge(old, old)
    np.testing.assert_array_equal(both.label, old.label)
    assert "0 voxels were labelled that were not before, and 0" in both.notes[0]


def test_slices_of_another_grid_are_not_added():
    old = Annotation(_sparse(CLASSES, [[], [], [4]], 3), (0, 1, 2), [[], [], [4]])
    new = Annotation(old.label[1:], old.values, old.planes)
    with pytest.raises(InputError, match="both must belong to the same image"):
        merge(old, new)


def test_slices_that_fill_the_volume_are_refused():
    old = Annotation(_sparse(CLASSES, [[], [], [4]], 3), (0, 1, 2), [[], [], [4]])
    with pytest.raises(InputError, match="every voxel is labelled"):
        merge(old, Annotation(CLASSES, (0, 1, 2), [[], [], list(range(16))]))


def test_annotated_planes_hold_partly_labelled_ones():
    label = _sparse(CLASSES, [[], [6], [4, 11]], 3)
    label[:12, :, 11] = 3
    assert annotated_planes(label, 3) == [[], [6], [4, 11]]


@pytest.mark.parametrize(("values", "dtype"), [((0, 100), np.uint8), ((0, 300), np.uint16), ((-1, 2), np.int8)])
def test_values_of_the_user_come_back(values, dtype):
    back = to_values(np.array([[0, 1, 0]], np.uint8), values)
    assert back.dtype == dtype and back.tolist() == [[values[0], values[1], values[0]]]


# recorded volumes


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
