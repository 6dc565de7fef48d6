"""CT in Hounsfield units: what is refused, what is only doubted, what passes, and windows."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from common.checks import InputError
from common.transforms import CheckHounsfield, CheckHounsfieldd, HounsfieldWindow, HounsfieldWindowd
from tests.data.folders import write_nifti


def scan(air=-1000.0, noise=10.0):
    """A torso of fat, tissue and a little bone in air, about 40 % of it body: 1 30 28 26, HU."""
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (30, 28, 26)), indexing="ij"))
    radius = grid[:2].square().sum(0)
    values = torch.full(radius.shape, air)
    values[radius < 0.5] = -100.0
    values[radius < 0.4] = 50.0
    values[radius < 0.01] = 700.0
    values += noise * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(values[None], meta={"filename_or_obj": "/x/patient/scan.nii.gz"})


def cropped():
    return scan()[:, 6:24, 9:19]


def padded(value):
    image = scan()
    image[:, :4] = value
    return image


def blurred_padding():
    image = padded(-32768.0)
    image[:, 4] = 0.6 * image[:, 3] + 0.4 * image[:, 5]
    return image


def streaks():
    image = scan()
    image[:, 14, 14, 3:6] = torch.tensor([30000.0, -15000.0, -18000.0])
    return image


@pytest.mark.parametrize(
    "make",
    [scan, cropped, lambda: scan().clamp(-1024, 3071), lambda: scan().round().short(), lambda: padded(-8192.0)]
    + [lambda pad=pad: padded(pad) for pad in (-2000.0, -3024.0)]
    + [lambda: scan() * 1.05 + 20, lambda: scan()[..., :1], lambda: scan(noise=60.0), lambda: scan(noise=0.0)],
)
def test_a_ct_passes_unchanged_and_without_a_word(make, caplog):
    image = make()
    before = image.clone()
    assert CheckHounsfield()(image) is image and torch.equal(image, before)
    assert not caplog.records


def test_the_crop_has_no_air():
    assert -150 < cropped().min() < -100  # else the case above says nothing


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda x: (x.clamp(-160, 240) + 160) / 400, "as it was before it was normalised"),
        (lambda x: (x.clamp(-160, 240) + 160) / 200 - 1, "as it was before it was normalised"),
        (lambda x: (x - x.mean()) / x.std(), "as it was before it was normalised"),
        (lambda x: x / 1000, "as it was before it was normalised"),
        (lambda x: ((x.clamp(-160, 240) + 160) / 400 * 255).to(torch.uint8), "a grey picture of one window"),
        (lambda x: (x.clamp(-160, 240) + 160) / 2, "a grey picture of one window"),
        (
            lambda x: (x + 1024).clamp(min=0),
            r"apply the rescale slope and intercept .*subtract 1024.*leave out what is no CT",
        ),
        (lambda x: (x + 1024).clamp(min=0).short(), "subtract 1024"),
        (lambda x: torch.minimum(x, torch.tensor(-700.0)), r"nothing but air\) and apply the rescale intercept only"),
        (lambda x: x * 100, "undo its scaling"),
        (lambda x: x * 1e4, "undo its scaling"),
        (lambda x: torch.where(x > 0, x * 1e4, x), "undo its scaling"),
    ],
)
@pytest.mark.parametrize("make", [scan, lambda: scan(noise=30.0)])
def test_what_can_not_be_hounsfield_units(make, change, remedy):
    image = change(make())
    low, high = (f"{float(bound):g}".replace("+", r"\+") for bound in (image.min(), image.max()))
    text = rf"^image 'scan.nii.gz' holds values from {low} to {high}: a CT must be in Hounsfield units, with air"
    with pytest.raises(InputError, match=rf"{text} .*To mend it, .*{remedy}"):
        CheckHounsfield()(image)


def clipped_to_a_window():
    return scan().clamp(-160, 240)


def nothing_dark():
    return cropped().clamp(-25, 90)


def wide_picture():
    return scan().clamp(0, 400)


def stored_values_with_padding():
    image = scan() + 1024
    image[:, :3] = -2000.0
    return image


def rescaled_twice():
    image = scan() - 1024
    image[0, 14, 14, :2] = 400.0
    return image


@pytest.mark.parametrize(
    ("make", "doubt"),
    [
        (clipped_to_a_window, "much of it is -160, as if cut to a window; air can not be told"),
        (nothing_dark, "nothing is as dark as fat"),
        (wide_picture, "nothing is as dark as fat"),
        (lambda: padded(-32768.0), "the extremes are taken for padding or metal"),
        (blurred_padding, "the extremes are taken for padding or metal"),
        (streaks, "the extremes are taken for padding or metal"),
        (stored_values_with_padding, "as dense as bone; was the rescale intercept left out"),
        (rescaled_twice, "hardly anything is denser than air; was the rescale intercept applied twice"),
    ],
)
def test_what_is_odd_is_logged(make, doubt, caplog):
    image = make()
    assert CheckHounsfield()(image) is image
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and doubt in record.getMessage()
    assert record.getMessage().startswith("image 'scan.nii.gz' holds values from") and "patient" not in caplog.text


def test_arrays_are_named_by_their_key():
    with pytest.raises(InputError, match="image 'ct' holds values from 0 to 255"):
        CheckHounsfieldd("ct")({"ct": np.arange(256, dtype=np.uint8).reshape(1, 4, 8, 8)})
    with pytest.raises(KeyError):
        CheckHounsfieldd("ct")({})
    data = {"image": scan().numpy(), "x": 1}
    checked = CheckHounsfieldd(["image", "other"], allow_missing_keys=True)(data)
    assert checked["image"] is data["image"] and checked["x"] == 1


def test_the_file_is_named_after_loading(tmp_path):
    write_nifti(tmp_path / "stored.nii.gz", (scan()[0].numpy() + 1024).clip(0).astype(np.int16))
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadImaged("image", ensure_channel_first=True), CheckHounsfieldd("image")])(
            {"image": str(tmp_path / "stored.nii.gz")}
        )
    assert "image 'stored.nii.gz' holds values from 0 to" in str(caught.value.__cause__)


def test_volumes_that_were_recorded_raise_no_doubt(real_data, caplog):
    files = sorted(real_data.glob("*_ct/imagesTr/*.nii.gz"))
    assert files
    for file in files:
        CheckHounsfieldd("image")(LoadImaged("image", ensure_channel_first=True)({"image": str(file)}))
    assert not [record for record in caplog.records if record.name.startswith("common")]


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("window", "scaled"), [((-500, 500), (0, 1)), ((-2000, 3000), (-1, 1)), ((-160.5, 240.0), (5, 6.5))]
)
def test_windows_voxel_by_voxel(window, scaled, dtype):
    image = scan(noise=300.0).to(dtype)
    found = HounsfieldWindow(window, scaled)(image)
    expected = np.interp(image.numpy().astype(np.float64), window, scaled)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-6 * (1 + max(map(abs, scaled))))
    assert scaled[0] == found.min() if image.min() <= window[0] else scaled[0] < found.min()
    assert found.max() <= scaled[1]


def test_unsigned_values_do_not_wrap():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 4, 8, 8)
    torch.testing.assert_close(HounsfieldWindow((0, 255), (-1, 1))(image), image / 127.5 - 1)


def test_equal_tissue_is_equal_with_and_without_air():
    windowed = HounsfieldWindow((-500, 500), (0, 1))
    assert torch.equal(windowed(cropped()), windowed(scan())[:, 6:24, 9:19])


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(40, 5, 6), (1, 7, 3), (17, 1, 1)])
def test_centred_on_the_mean_inside_the_mask(size, kind):
    draw = torch.Generator().manual_seed(0)
    image = 400 * torch.randn(1, *size, generator=draw) - 100
    mask = torch.rand(1, *size, generator=draw) < 0.4
    plain = HounsfieldWindow((-500, 500), (0, 1))(image)
    found = HounsfieldWindow((-500, 500), (0, 1), centred=True)(image, mask.to(kind))
    torch.testing.assert_close(found, plain - plain[mask].double().mean().float(), rtol=0, atol=1e-6)


def test_each_entry_of_the_first_axis_has_a_mean_of_its_own():
    image = torch.cat([cropped(), cropped() + 200, cropped() - 300]).as_tensor()
    masks = torch.rand(image.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    masks[2] = False
    centred = HounsfieldWindow((-500, 500), (0, 1), centred=True)
    for chosen in (masks, masks[:1]):
        found = centred(image, chosen)
        for index in range(3):
            torch.testing.assert_close(
                found[index : index + 1], centred(image[index : index + 1], chosen[: index + 1][-1:])
            )
    batch = image[:, None]
    torch.testing.assert_close(centred(batch, masks[:, None]), centred(image, masks)[:, None])


def test_an_empty_mask_subtracts_nothing():
    image = scan()
    found = HounsfieldWindow((-500, 500), (0, 1), centred=True)(image, torch.zeros(image.shape, dtype=torch.bool))
    assert torch.equal(found, HounsfieldWindow((-500, 500), (0, 1))(image))


@pytest.mark.parametrize("centred", [False, True])
def test_the_image_is_left_as_it_was_and_its_metadata_survive(centred):
    image = scan()
    before = image.clone()
    mask = image > -500
    data = {"image": image, "body": mask, "name": "x"}
    found = HounsfieldWindowd("image", (-500, 500), (0, 1), centred, "body")(data)
    assert torch.equal(image, before) and data["image"] is image and found["body"] is mask and found["name"] == "x"
    assert isinstance(found["image"], MetaTensor) and found["image"].meta == image.meta
    assert type(HounsfieldWindow((-500, 500))(image.numpy())) is np.ndarray
    assert type(HounsfieldWindow((-500, 500))(image.as_tensor())) is torch.Tensor


def test_views_of_other_strides():
    image = scan().as_tensor()
    turned = image.permute(0, 3, 1, 2)
    windowed = HounsfieldWindow((-500, 500), centred=True)
    expected = windowed(image, image > -300).permute(0, 3, 1, 2)
    torch.testing.assert_close(windowed(turned, turned > -300), expected)
    coarse = image[:, ::2, ::2, ::2]
    torch.testing.assert_close(windowed(coarse, coarse > -300), windowed(coarse.clone(), (coarse > -300).clone()))


def test_a_mask_is_not_asked_for_where_nothing_is_centred():
    assert HounsfieldWindowd("image", (-500, 500), mask_key="body")({"image": scan()})["image"].max() <= 1
    assert (
        HounsfieldWindowd(["image", "x"], (-500, 500), allow_missing_keys=True)({"image": scan()})["image"].min() >= 0
    )


def test_transforms_travel_to_workers():
    for transform in (CheckHounsfieldd("image"), HounsfieldWindowd("image", (-500, 500), (0, 1), True, "body")):
        copy = pickle.loads(pickle.dumps(transform))
        data = {"image": scan(), "body": scan() > -500}
        assert torch.equal(copy(data)["image"], transform(data)["image"])


@pytest.mark.parametrize("window", [(500, -500), (0, 0), (0, 1, 2), (0,), (float("nan"), 1)])
def test_windows_rise(window):
    with pytest.raises(InputError, match=r"window \(.*\) was given: it must be two numbers, the lower one first"):
        HounsfieldWindow(window)
    with pytest.raises(InputError, match=r"scaled \(.*\) was given: it must be two numbers, the lower one first"):
        HounsfieldWindow((-500, 500), window)


def test_masks_that_do_not_fit():
    centred = HounsfieldWindow((-500, 500), (0, 1), centred="true")
    with pytest.raises(InputError, match="no mask came with image 'scan.nii.gz': where centred is set, .*BodyMaskd"):
        centred(scan())
    with pytest.raises(InputError, match=r"a mask of shape \(1, 30, 28, 25\) came with image 'scan.nii.gz' of \(1, 30"):
        centred(scan(), torch.ones(1, 30, 28, 25))
    with pytest.raises(InputError, match="centred was given without mask_key: .*name the mask's entry"):
        HounsfieldWindowd("image", (-500, 500), centred=True)


@pytest.mark.gpu
def test_windows_on_a_gpu_without_waiting():
    image = scan().as_tensor()
    expected = HounsfieldWindow((-500, 500), centred=True)(image, image > -500)
    device_image, device_mask = image.cuda(), (image > -500).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = HounsfieldWindow((-500, 500), centred=True)(device_image, device_mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), expected)
