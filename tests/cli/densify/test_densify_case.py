"""The case that is made of an image and slices, and what was worked out on it brought back to the image's grid."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.cli.densify.case import class_names, coarse_planes, parse_downsample, read_array, refined, write_case
from common.cli.densify.steps import case_settings
from common.data.annotation import Annotation
from common.data.volume_file import VolumeFile

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "unet3d_sparse"

AFFINE = np.array([[0, -0.5, 0, 10.0], [0.5, 0, 0, -3], [0, 0, 2, 7], [0, 0, 0, 1]])


def volume(array, affine=AFFINE) -> VolumeFile:
    return VolumeFile(Path("scan.nii.gz"), array, affine, "micron", "nifti")


def annotation(shape, planes=([], [], [3, 7])) -> Annotation:
    label = np.full(shape, 2, np.uint8)
    for index in planes[2]:
        label[:, :, index] = 0
        label[2:6, 3:8, index] = 1
    return Annotation(label, (0, 100), [list(of) for of in planes], 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool, np.float16, np.int64])
def test_voxels_axes_and_grid_are_the_images_own(tmp_path, dtype):
    image = np.random.default_rng(0).integers(0, 2, (11, 13, 9)).astype(dtype)
    drawn = annotation(image.shape)
    label, notes = write_case(tmp_path / "data", volume(image), drawn, ["a", "b"], case="volume1")
    assert notes == [] and np.array_equal(label, drawn.label)
    stored = nibabel.load(tmp_path / "data" / "imagesTr" / "volume1.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj), image.astype(np.float64))
    np.testing.assert_allclose(stored.affine, AFFINE)
    assert stored.header.get_xyzt_units()[0] == "micron"
    found = nibabel.load(tmp_path / "data" / "labelsTr" / "volume1.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), drawn.label)
    assert found.get_data_dtype() == np.uint8


def test_the_list_says_what_there_is(tmp_path):
    image = np.zeros((11, 13, 9, 2), np.uint8)
    write_case(tmp_path / "data", volume(image), annotation(image.shape[:3]), ["a", "b"])
    listed = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert listed["labels"] == {"0": "a", "1": "b", "2": "unlabelled"} and len(listed["modality"]) == 2
    settings = case_settings(BUNDLE, tmp_path / "data")
    assert (settings["in_channels"], settings["num_classes"], settings["patch_size"]) == (2, 2, [16, 16, 16])


@pytest.mark.parametrize("channels", [(), (2,)])
@pytest.mark.parametrize("factor", [2, 3])
def test_blocks_have_means_and_the_classes_drawn_in_them(tmp_path, factor, channels):
    image = np.random.default_rng(0).normal(size=(11, 13, 9, *channels)).astype(np.float32)
    drawn = annotation(image.shape[:3])
    label, _ = write_case(tmp_path / "data", volume(image), drawn, ["a", "b"], factor)
    grey = read_array(tmp_path / "data" / "imagesTr" / "volume.nii.gz")
    size = tuple(-(-n // factor) for n in image.shape[:3])
    assert grey.shape == (*size, *channels) and label.shape == size
    for block in np.ndindex(size):
        part = tuple(slice(i * factor, (i + 1) * factor) for i in block)
        np.testing.assert_allclose(grey[block], image[part].mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
        inside = drawn.label[part][drawn.label[part] != 2]
        assert label[block] == (np.bincount(inside).argmax() if inside.size else 2)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_grid_of_blocks_has_their_centres(tmp_path, factor):
    """Grey values that are where they lie in the world tell where each block's mean lies."""
    at = np.stack(np.meshgrid(*(np.arange(n) for n in (6, 12, 6)), indexing="ij"), -1)
    image = (at @ AFFINE[:3, :3].T + AFFINE[:3, 3]).astype(np.float32)
    write_case(tmp_path / "data", volume(image), annotation(image.shape[:3], ([], [], [3])), ["a", "b"], factor)
    stored = nibabel.load(tmp_path / "data" / "imagesTr" / "volume.nii.gz")
    blocks = np.stack(np.meshgrid(*(np.arange(n) for n in stored.shape[:3]), indexing="ij"), -1)
    world = blocks @ stored.affine[:3, :3].T + stored.affine[:3, 3]
    np.testing.assert_allclose(np.asarray(stored.dataobj), world, atol=1e-4)


def test_a_class_that_blocks_lose_is_called_out(tmp_path):
    drawn = annotation((12, 12, 12))
    drawn.label[drawn.label == 1] = 0
    drawn.label[4, 4, 3] = 1
    _, notes = write_case(tmp_path / "data", volume(np.zeros((12, 12, 12))), drawn, ["a", "thin"], 2)
    assert notes == ["Warning: 'thin' has no voxel any more at --downsample 2."]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_blocks_are_spread_over_their_voxels(factor):
    coarse = np.random.default_rng(0).random(tuple(-(-n // factor) for n in (5, 6, 7))).astype(np.float32)
    fine = refined(coarse, factor, (5, 6, 7))
    for index in np.ndindex(5, 6, 7):
        assert fine[index] == coarse[tuple(i // factor for i in index)]


def test_planes_of_blocks():
    assert coarse_planes([[0, 1, 5], [], [8]], 2) == [[0, 2], [], [4]]


def test_names_of_classes():
    assert class_names((0, 7)) == ["background", "label 7"] and class_names((3, 7)) == ["label 3", "label 7"]
    assert class_names((0, 7), "['brain', 'tumour']") == ["brain", "tumour"]
    assert class_names((0, 7, 9), before=["brain", "tumour"]) == ["brain", "tumour", "label 9"]


@pytest.mark.parametrize("names", ["a", "a,b,c", "a,a"])
def test_names_that_do_not_fit(names):
    with pytest.raises(InputError, match="class_names are a.*hold the values 0, 7: each value has one name"):
        class_names((0, 7), names)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two"])
def test_blocks_of_no_voxels(value):
    with pytest.raises(InputError, match="downsample is"):
        parse_downsample(value)
