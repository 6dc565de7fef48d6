"""A CT's slices: tilted, repeated, missing, of odd sizes."""

from __future__ import annotations

import logging

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from common.checks import InputError
from common.transforms import CheckSlices, CheckSlicesd

SPACING = (4.0, 5.0, 3.0)


def body(slices=30, seed=0):
    """An ellipsoid with a soft border that changes evenly from slice to slice, with noise; 100 x 125 x 90 mm."""
    x, y, z = np.meshgrid(np.linspace(-1, 1, 25), np.linspace(-1, 1, 25), np.linspace(-0.5, 0.5, slices), indexing="ij")
    inside = 1050 / (1 + np.exp((x**2 + y**2 + z**2 - 0.8) * 9)) - 1000
    wave = 60 * np.sin(9 * x + 11 * z) * np.cos(7 * y - 13 * z)
    return (inside + wave + np.random.default_rng(seed).normal(0, 4, inside.shape)).astype(np.float32)


def volume(values, affine=None):
    affine = np.diag([*SPACING, 1.0]) if affine is None else affine
    return MetaTensor(torch.from_numpy(values.copy())[None], affine=affine, meta={"filename_or_obj": "/x/a.nii.gz"})


def warnings(caplog, image):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert CheckSlices()(image) is image
    return [record.getMessage() for record in caplog.records]


def turned(degrees, axis=2):
    """A rotation about one axis, put before the spacing."""
    affine, (first, second) = np.eye(4), [a for a in range(3) if a != axis]
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine[first, first], affine[first, second], affine[second, first], affine[second, second] = cos, -sin, sin, cos
    return affine


def tilted(degrees):
    """A gantry that is tilted: the slices move along y as they go up."""
    affine = np.diag([*SPACING, 1.0])
    affine[1, 2] = SPACING[2] * np.sin(np.deg2rad(degrees))
    affine[2, 2] = SPACING[2] * np.cos(np.deg2rad(degrees))
    return affine


ORIENTED = [
    np.diag([*SPACING, 1.0]),
    np.diag([-4.0, 5.0, -3.0, 1.0]),
    turned(20) @ np.diag([*SPACING, 1.0]),
    turned(35, 0) @ np.diag([-4.0, 5.0, 3.0, 1.0]),
    tilted(0.5),
]


@pytest.mark.parametrize("affine", ORIENTED)
def test_a_whole_scan_passes_without_a_word(caplog, affine):
    assert warnings(caplog, volume(body(), affine)) == []


@pytest.mark.parametrize("shape", [1, 2, 5, 7, 8])
def test_thin_volumes_pass(caplog, shape):
    image = volume(body()[..., :shape])
    assert [text for text in warnings(caplog, image) if "copies" in text or "missing" in text] == []


@pytest.mark.parametrize(("degrees", "said"), [(-12, r"12\.0 degrees"), (1.5, r"1\.5 degrees"), (30, r"30\.0 degrees")])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_tilted_gantry_is_refused(degrees, said, order):
    values, affine = body().transpose(order), tilted(degrees)
    affine[:, :3] = affine[:, list(order)]
    with pytest.raises(InputError, match=f"'a.nii.gz' has axes that are {said} off a right angle.*dcm2niix"):
        CheckSlicesd("image")({"image": volume(values, turned(40, 1) @ affine)})


def test_voxels_without_a_size_are_refused():
    affine = np.diag([4.0, 5.0, 3.0, 1.0])
    image = volume(body())
    for broken in (0.0, np.nan):
        affine[1, 1] = broken
        image.affine = torch.from_numpy(affine)
        with pytest.raises(InputError, match="has voxels of .* mm: every axis needs a length above 0"):
            CheckSlices()(image)


def with_copies(values, numbers):
    """Copies of slices put in behind them."""
    return np.insert(values, [number + 1 for number in numbers], values[..., list(numbers)], axis=2)


def test_some_repeated_slices_are_told(caplog):
    (text,) = warnings(caplog, volume(with_copies(body(), [4, 20])))
    assert "'a.nii.gz' has 2 slices that are copies of the one before (number 5, 22, from 0)" in text
    (text,) = warnings(caplog, volume(with_copies(body(60), range(1, 56, 5))))
    assert "11 slices" in text and "number 2, 8, 14, 20, 26, 32, 38, 44 and 3 more" in text


def test_a_copy_in_the_place_of_another_slice_is_a_copy_and_a_jump(caplog):
    values = body()
    values[..., 20] = values[..., 19]
    copy, jump = warnings(caplog, volume(values))
    assert "(number 20, from 0)" in copy and "after slice 20 (from 0)" in jump


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_every_slice_twice_is_refused(order):
    values = np.repeat(body(15), 2, axis=2).transpose(order)
    affine = np.diag([*SPACING, 1.0])
    affine[:, :3] = affine[:, list(order)]
    with pytest.raises(InputError, match="has 15 of 30 slices that are copies.*every slice once.*interpolate linearly"):
        CheckSlices()(volume(values, affine))
    flat = np.repeat(body(1), 9, axis=2)
    with pytest.raises(InputError, match="has 8 of 9 slices that are copies"):
        CheckSlices()(volume(flat))


def test_slices_that_differ_beyond_the_sampled_voxels_are_no_copies(caplog):
    """Wide slices are sampled; what differs between the samples counts too."""
    values = np.tile(body(20), (6, 6, 1))
    values[..., 11] = values[..., 10]
    values[1, 1, 11] += 1
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    assert warnings(caplog, volume(values, affine)) == []
    values[1, 1, 11] -= 1
    assert len(warnings(caplog, volume(values, affine))) == 1


@pytest.mark.parametrize("value", [-1000.0, -3024.0, 0.0])
def test_padding_passes(caplog, value):
    values = body(40)
    values[..., :9] = values[..., 30:] = value
    assert warnings(caplog, volume(values)) == []
    values[..., 15:17] = value
    assert warnings(caplog, volume(values)) == []


@pytest.mark.parametrize("at", [3, 10, 25])
def test_missing_slices_are_told(caplog, at):
    values = np.delete(body(60), range(at, at + 8), axis=2)
    padded = np.pad(values, ((0, 0), (0, 0), (2, 0)), constant_values=-1000)
    for image, number in ((values, at - 1), (padded, at + 1)):
        (text,) = warnings(caplog, volume(image))
        assert f"changes much more after slice {number} (from 0) than around: are slices missing?" in text


SIZES = [
    ((4.0, 5.0, 12.0), "has slices of 12 mm"),
    ((4.0, 5.0, 0.05), "has slices of 0.05 mm"),
    ((9.0, 5.0, 3.0), "has voxels of 9 x 5 mm within slices"),
    ((0.4, 0.5, 3.0), "is 10 x 12.5 x 90 mm large"),
    ((4.0, 5.0, 99.0), "is 100 x 125 x 2970 mm large"),
]


@pytest.mark.parametrize(("spacing", "said"), SIZES)
def test_odd_sizes_are_told(caplog, spacing, said):
    assert any(said in text for text in warnings(caplog, volume(body(), np.diag([*spacing, 1.0]))))


def test_arrays_have_slices_along_the_last_axis(caplog):
    values = with_copies(body(), [7])
    caplog.set_level(logging.WARNING)
    array = values[None]
    assert CheckSlicesd(["image", "other"], allow_missing_keys=True)({"image": array})["image"] is array
    assert "image 'image' has 1 slices" in caplog.text
    with pytest.raises(InputError, match="one channel and three axes"):
        CheckSlices()(np.stack([values, values]))
    with pytest.raises(KeyError):
        CheckSlicesd("image")({})


@pytest.mark.parametrize("dtype", [torch.int16, torch.float16, torch.float64])
def test_any_type_of_numbers(caplog, dtype):
    assert warnings(caplog, volume(body()).to(dtype)) == []


@pytest.mark.parametrize("folder", ["liver_ct", "abdomen_ct"])
def test_recorded_scans_pass_and_gaps_in_them_are_told(real_data, caplog, tmp_path, folder):
    path = next((real_data / folder / "imagesTr").iterdir())
    assert warnings(caplog, LoadImage(ensure_channel_first=True)(path)) == []
    scan = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.delete(scan.dataobj, range(40, 50), axis=2), scan.affine), tmp_path / "gap.nii")
    (text,) = warnings(caplog, LoadImage(ensure_channel_first=True)(tmp_path / "gap.nii"))
    assert "after slice 39 (from 0)" in text
