"""Drawn slices come to lie on the image's grid, however they were saved."""

from __future__ import annotations

import itertools

import h5py
import nibabel
import numpy as np
import pytest
from classed_slices import AFFINE, CLASSES, SHAPE, saved, sparse

from common.checks import InputError
from common.data.annotation import read_annotation
from common.data.volume_file import read_volume


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, 1, -1)])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_other_orders_of_axes_are_put_in_place_and_told(read, axes, signs):
    planes = [[5], [], [4, 11]]
    label = sparse(CLASSES, planes, 3)
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
    np.testing.assert_array_equal(first.label, sparse(CLASSES, [[], [], [4]], 3))
    assert "its 24x20x1 voxels were placed at voxel (0, 0, 4)" in " ".join(first.notes)
    second = read(CLASSES[2:20, 9:10, 3:14] + 1, affine=affines[1])
    assert second.unlabelled is None and second.values == (1, 2, 3)
    expected = np.full(SHAPE, 3, np.uint8)
    expected[2:20, 9, 3:14] = CLASSES[2:20, 9, 3:14]
    np.testing.assert_array_equal(second.label, expected)


def test_what_sticks_out_of_the_image_is_left_out_and_told(read):
    label = np.pad(sparse(CLASSES, [[], [], [4]], 3), ((2, 1), (0, 0), (0, 3)), constant_values=3)
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [-2, 0, 0, 1])[:3]
    found = read(label, affine=affine)
    np.testing.assert_array_equal(found.label, sparse(CLASSES, [[], [], [4]], 3))
    assert f"{label.size - CLASSES.size} voxels outside of the image were left out" in " ".join(found.notes)


@pytest.mark.parametrize(("unit", "scale"), [("micron", 1.0), ("mm", 1e-3), ("mm", 1.0), ("unknown", 1.0)])
def test_tools_that_turn_micrometres_into_millimetres(tmp_path, read, unit, scale):
    image = read_volume(saved(tmp_path / "fine.nii.gz", np.zeros(SHAPE, np.float32), AFFINE, "micron"))
    label = sparse(CLASSES, [[], [], [4]], 3)
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
        read(sparse(CLASSES, [[], [], [4]], 3), affine=affine)


def _tiff(path, array):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, np.ascontiguousarray(array.T), photometric="minisblack")
    return path


@pytest.mark.parametrize("kind", ["tif", "h5"])
def test_files_without_a_place_fit_by_their_shape(tmp_path, image, kind):
    label = sparse(CLASSES, [[5], [], [4]], 3)
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
