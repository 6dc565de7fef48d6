"""Standardising inside the body: against numpy, on prepared volumes, and what is refused."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd

from common.checks import InputError
from common.geometry.otsu import otsu_body
from common.transforms import StandardiseBody, StandardiseBodyd
from tests.data.folders import write_nifti

LOGGER = "common.transforms.standardise"


def scan(scale=1.0, shift=0.0, spacing=(4.0, 1.0, 1.0)):
    """Air, a ring of fat and muscle, with noise: 1 7 30 28."""
    y, x = torch.linspace(-1, 1, 30)[:, None], torch.linspace(-1, 1, 28)
    radius = (x / 0.8) ** 2 + (y / 0.7) ** 2
    values = torch.zeros(1, 7, 30, 28)
    values[..., radius < 1] = 700.0
    values[..., radius < 0.7] = 300.0
    values += 30 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    affine = torch.diag(torch.tensor([*spacing, 1.0]))
    return MetaTensor(values.abs() * scale + shift, affine=affine, meta={"filename_or_obj": "/x/patient/scan.nii.gz"})


def prepared(seed=0, top=255):
    """Standardised, clipped at one standard deviation and stored as 8 bit, with air, as floats: 1 6 20 18."""
    values = 180 + 80 * torch.randn(1, 6, 20, 18, generator=torch.Generator().manual_seed(seed))
    values[..., :3] = 0
    return MetaTensor(values.round().clamp(0, top), meta={"filename_or_obj": "/x/patient/ready.nii.gz"})


@pytest.mark.parametrize("clip", [None, (-4.0, 1.0), (-0.5, 0.25)])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_against_numpy(factor, clip):
    image = scan(3.0, -200.0)
    before = image.clone()
    found, mask = StandardiseBody(factor, clip, closing=2)(image)
    inside = otsu_body(image, factor, closing=(2, 2)).numpy()
    values = image.numpy().astype(np.float64)
    expected = (values - values[inside].mean()) / values[inside].std()
    if clip:
        low = max(clip[0], expected.min())
        expected = (expected.clip(*clip) - low) / (clip[1] - low)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=2e-6)
    assert torch.equal(mask.bool(), torch.from_numpy(inside)) and 0.1 < inside.mean() < 0.9
    assert torch.equal(image, before) and found.dtype == torch.float32 and mask.dtype == torch.bool


def test_the_body_has_mean_0_and_deviation_1_and_air_is_below_it():
    found, mask = StandardiseBody(clip=None)(scan())
    inside = found[mask]
    assert abs(float(inside.mean())) < 1e-5 and abs(float(inside.std(correction=0)) - 1) < 1e-5
    assert found[~mask].max() < inside.quantile(0.5) and (~mask).any()


def test_what_the_clipped_range_becomes():
    found, _ = StandardiseBody(clip=(-4, 1))(scan())
    plain, _ = StandardiseBody(clip=None)(scan())
    darkest = plain.min()
    assert darkest > -4  # air is nearer to the mean than the bound
    assert found.min().abs() < 1e-6 and found.max() == 1
    within = plain < 1
    torch.testing.assert_close(found[within], (plain[within] - darkest) / (1 - darkest))
    assert 0.05 < (plain >= 1).float().mean() < 0.5


@pytest.mark.parametrize(("scale", "shift"), [(0.01, 0.0), (20.0, 0.0), (1.0, -1000.0), (2.0, 30000.0)])
def test_scale_and_offset_of_a_scanner_do_not_matter(scale, shift):
    expected, mask = StandardiseBody()(scan())
    found, other = StandardiseBody()(scan(scale, shift))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(mask, other)


def test_the_closing_is_a_length_in_a_slice():
    image = scan()
    image[..., :16, 13:15] = 0  # a slit of two voxels down to the middle, open to the outside
    assert not StandardiseBody(closing=0)(image)[1][0, :, 8, 13].any()
    # the second axis in space has voxels of 5 mm, the third of 1 mm: across the slit it has to reach one voxel
    wide, thin = (
        MetaTensor(image.as_tensor(), affine=torch.diag(torch.tensor(edges)))
        for edges in ([1.0, 5.0, 1.0, 1.0], [1.0, 1.0, 5.0, 1.0])
    )
    assert StandardiseBody(closing=2)(wide)[1][0, :, 8, 13].all()
    assert not StandardiseBody(closing=2)(thin)[1][0, :, 8, 13].any()
    assert StandardiseBody(closing=5)(thin)[1][0, :, 8, 13].all()
    assert StandardiseBody(closing=2)(image.numpy())[1][0, :, 8, 13].all()  # of an array a voxel counts as 1 mm


def test_metadata_and_type_survive():
    image = scan(spacing=(3.0, 0.7, 0.6))
    for found in StandardiseBody()(image):
        assert isinstance(found, MetaTensor) and found.meta["filename_or_obj"] == image.meta["filename_or_obj"]
        assert torch.equal(found.affine, image.affine)
    for found in StandardiseBody()(image.numpy()):
        assert type(found) is np.ndarray


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_the_image_does_not_matter(dtype):
    image = scan(0.2).round()  # whole numbers that bfloat16 has
    expected, mask = StandardiseBody()(image)
    found, other = StandardiseBody()(image.to(dtype))
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float32 and torch.equal(mask, other)


def test_the_order_in_memory_does_not_matter():
    image = scan()
    turned = image.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    for found, expected in zip(StandardiseBody()(turned), StandardiseBody()(image), strict=True):
        assert torch.equal(found, expected) and not turned.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int16])
@pytest.mark.parametrize("top", [255, 254, 250])
@pytest.mark.parametrize("flag", ["auto", " Auto", True, "true"])
def test_prepared_volumes_pass_unharmed(flag, top, dtype):
    image = prepared(top=top).to(dtype)
    found, mask = StandardiseBody(prepared=flag)(image)
    assert torch.equal(found, image.float() / 255) and found.dtype == torch.float32
    assert mask.all() and mask.shape == image.shape and mask.dtype == torch.bool


def darker():
    return prepared().clamp(max=240)


def brighter():
    return prepared().clamp(min=10)


def between():
    image = prepared()
    image[0, 3, 4, 5] = 17.5
    return image


def unclipped():
    """A raw scan of 8 bit: one voxel is the brightest."""
    image = (scan() * 0.3).round().clamp(0, 254)
    image[0, 3, 15, 14] = 255
    return image


@pytest.mark.parametrize("make", [darker, brighter, between, unclipped, scan, lambda: prepared() * 2])
def test_all_others_are_standardised(make, caplog):
    caplog.set_level(logging.INFO)
    image = make()
    found, mask = StandardiseBody()(image)
    expected, _ = StandardiseBody(prepared=False)(image)
    assert torch.equal(found, expected) and not torch.equal(found, image / 255) and not mask.all()
    assert not caplog.records


@pytest.mark.parametrize("flag", [False, "false"])
def test_a_prepared_volume_can_be_standardised(flag):
    found, mask = StandardiseBody(prepared=flag, clip=None)(prepared())
    assert abs(float(found[mask].mean())) < 1e-5 and not mask.all()


def test_recognising_is_said_once(caplog):
    transform = StandardiseBody()
    with caplog.at_level(logging.INFO, LOGGER):
        for seed in range(3):
            transform(prepared(seed))
    (record,) = caplog.records
    assert record.levelname == "INFO" and "'ready.nii.gz' holds whole numbers from 0 to 255" in record.getMessage()
    assert "only divided by 255" in record.getMessage() and "set prepared to false" in record.getMessage()
    caplog.clear()
    with caplog.at_level(logging.INFO, LOGGER):
        StandardiseBody(prepared=True)(prepared())
    assert not caplog.records


def test_dictionary_form_in_a_pipeline(tmp_path):
    file = tmp_path / "scan.nii.gz"
    write_nifti(file, scan()[0].permute(2, 1, 0).numpy().round().astype(np.int16), (1.0, 1.0, 4.0))
    load = [LoadImaged("image", ensure_channel_first=True), Orientationd("image", axcodes="SPL", labels=None)]
    data = {"image": str(file), "other": 1}
    found = Compose([*load, pickle.loads(pickle.dumps(StandardiseBodyd("image", mask_key="c", closing=3)))])(data)
    image = Compose(load)(data)["image"]
    expected, mask = StandardiseBody(closing=3)(image)
    assert torch.equal(found["image"], expected) and torch.equal(found["c"], mask) and found["other"] == 1
    assert torch.equal(found["image"].affine, image.affine) and found["image"].shape == (1, 7, 30, 28)
    assert set(data) == {"image", "other"} and data["image"] == str(file)
    assert "body" in StandardiseBodyd("image")({"image": image})
    assert StandardiseBodyd("y", allow_missing_keys=True)(data) == data
    with pytest.raises(KeyError, match="y"):
        StandardiseBodyd("y")(data)


@pytest.mark.parametrize("value", [0.0, 255.0, -1000.0, float("nan"), float("inf")])
@pytest.mark.parametrize("flag", ["auto", True, False])
def test_a_volume_that_shows_nothing(flag, value):
    image = scan()
    image[:] = value
    with pytest.raises(InputError, match=r"'scan.nii.gz' holds values from .*must be finite and differ.*how the file"):
        StandardiseBody(prepared=flag)(image)


def test_one_voxel_without_a_number():
    image = scan()
    image[0, 1, 2, 3] = float("nan")
    with pytest.raises(InputError, match="from nan to nan: they must be finite"):
        StandardiseBody()(image)


@pytest.mark.parametrize("value", [1.0, 0.1, 1e6 + 0.1])
def test_a_mask_is_no_scan(value):
    image = scan()
    image[:] = (scan()[:, :1] > 200).flip(-1).logical_or(scan()[:, :1] > 200) * value
    with pytest.raises(InputError, match=r"body .* in image 'scan.nii.gz' has \d+ voxels of one value: .*a label map"):
        StandardiseBody()(image)


def test_what_is_refused():
    with pytest.raises(InputError, match=r"'scan.nii.gz' has shape \(2, 7, 30, 28\): it must be \(1, D, H, W\)"):
        StandardiseBody()(MetaTensor(torch.zeros(2, 7, 30, 28), meta=scan().meta))
    with pytest.raises(InputError, match=r"from .* to .*: prepared volumes hold 0 to 255.*auto or false"):
        StandardiseBody(prepared=True)(scan())
    with pytest.raises(InputError, match="prepared is 'maybe': it must be auto, true or false"):
        StandardiseBody(prepared="maybe")
    for clip in ((1, -4), (1, 1), (0, 1, 2), (float("nan"), 1)):
        with pytest.raises(InputError, match=r"clip \(.*\) was given: .*the lower one first, or null"):
            StandardiseBody(clip=clip)
    for factor in (0, 1.1, float("nan")):
        with pytest.raises(InputError, match=f"otsu_factor {factor} was given: it must be above 0"):
            StandardiseBody(factor)
    for closing in (-1, float("inf")):
        with pytest.raises(InputError, match=f"closing {closing} was given: it must be a length in mm"):
            StandardiseBody(closing=closing)
    with pytest.raises(InputError, match="the mask of one image is put into 'body'"):
        StandardiseBodyd(["a", "b"])


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    for found, expected in zip(StandardiseBody()(scan().cuda()), StandardiseBody()(scan()), strict=True):
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), expected)
