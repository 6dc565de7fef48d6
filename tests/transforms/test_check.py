from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from common.checks import InputError
from common.transforms.check import CheckVolume, CheckVolumed
from tests.data.folders import write_nifti

SHAPE = (5, 6, 7)


def _image(channels=2):
    return MetaTensor(
        torch.rand(channels, *SHAPE, generator=torch.Generator().manual_seed(0)),
        torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])),
        meta={"filename_or_obj": "/x/scan.nii.gz"},
    )


def _label(values=(0, 1, 2), **changes):
    data = torch.tensor(values, dtype=torch.float32).repeat(210)[:210].reshape(1, *SHAPE)
    return MetaTensor(data, changes.get("affine", _image().affine), meta={"filename_or_obj": "/x/truth.nii.gz"})


def _check(image, label=None, num_classes=3, ignore_index=3):
    return CheckVolume(2, num_classes, ignore_index)(image, label)


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 1, 2, 3), (2, 3), (0,)])
def test_good_volumes_pass_unchanged(values):
    image, label = _image(), _label(values)
    before = image.clone()
    assert _check(image, label) is image
    assert torch.equal(image, before) and image.meta["filename_or_obj"] == "/x/scan.nii.gz"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_arrays_without_metadata_are_checked_too(dtype):
    image = np.arange(2 * 210).reshape(2, *SHAPE).astype(dtype)
    assert CheckVolume(2)(image) is image
    with pytest.raises(InputError, match="image 'image' has 2 channels"):
        CheckVolume(3)(image)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda x: x[:1],
            r"image 'scan.nii.gz' has 1 channels \(shape \(1, 5, 6, 7\)\): it must have 2.*in_channels the number",
        ),
        (lambda x: x[0], r"has shape \(5, 6, 7\) after loading: it must be one channel axis and three"),
        (lambda x: x[..., :0], r"has shape \(2, 5, 6, 0\): no axis may be empty"),
        (lambda x: x * 0 + 4, "image 'scan.nii.gz' is 4 everywhere in channel 0, 1: a constant channel shows nothing"),
        (lambda x: x * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1), "is 0 everywhere in channel 1:"),
    ],
)
def test_wrong_images(change, text):
    with pytest.raises(InputError, match=text):
        _check(change(_image()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("channel", [0, 1])
def test_values_that_are_not_finite(value, channel):
    image = _image()
    image[channel, 1, 2, 3:5] = value
    with pytest.raises(
        InputError, match="image 'scan.nii.gz' holds 2 values that are NaN or infinite: .*To mend it, replace them"
    ):
        _check(image)


@pytest.mark.parametrize(
    ("values", "ignore", "text"),
    [
        ((0, 1, 4), 3, r"label 'truth.nii.gz' holds \[0, 1, 4\]: labels must be 0 to 2, or 3 for unlabelled.*renumber"),
        ((0, 1, 3), None, r"holds \[0, 1, 3\]: labels must be 0 to 2\..*or ignore_index to 3 if it means unlabelled"),
        ((-1, 0), 3, r"holds \[-1, 0\]"),
        ((0, 4, 255), 255, r"holds \[0, 4, 255\]"),
        ((0, 100000), 3, r"holds \[0, 100000\]"),
        (tuple(range(20)), 3, "and 8 more"),
        ((0, 1, 0.5), 3, r"holds 0.5: labels must be whole numbers.*without interpolation"),
        ((0, float("nan")), 3, "labels must be whole numbers"),
        ((3,), 3, "is 3 everywhere: 3 means unlabelled, and something must be labelled"),
        ((-1,), -1, "is -1 everywhere"),
    ],
)
def test_wrong_labels(values, ignore, text):
    with pytest.raises(InputError, match=text):
        _check(_image(), _label(values), 3, ignore)


def test_ignore_may_be_negative_or_far():
    for ignore in (-100, 255, 10**6):
        _check(_image(), _label((0, 1, ignore)), 3, ignore)


def test_any_whole_number_passes_without_num_classes():
    _check(_image(), _label((0, 40000)), None, None)
    with pytest.raises(InputError, match="labels must be 0 or more"):
        _check(_image(), _label((-2, 0)), None, None)


def test_label_on_another_grid():
    with pytest.raises(
        InputError,
        match=r"'scan.nii.gz' has shape \(5, 6, 7\) and its label 'truth.nii.gz' \(5, 6, 6\): both must lie on",
    ):
        _check(_image(), _label()[..., :6])
    with pytest.raises(InputError, match=r"label 'truth.nii.gz' has 2 channels"):
        _check(_image(), torch.cat([_label(), _label()]))


@pytest.mark.parametrize("entry", [(0, 3), (2, 3), (0, 0), (1, 0)])
def test_affine_may_differ_by_rounding_only(entry):
    affine = _image().affine.clone()
    affine[entry] += 1e-3
    _check(_image(), _label(affine=affine))
    affine[entry] += 0.1
    with pytest.raises(InputError, match="are placed .* apart .*affines must agree.*resample the label"):
        _check(_image(), _label(affine=affine))


def test_affine_with_nan_is_refused():
    affine = _image().affine.clone()
    affine[0, 3] = float("nan")
    with pytest.raises(InputError, match="are placed nan apart"):
        _check(_image(), _label(affine=affine))


def test_dictionary_form_after_loading(tmp_path):
    rng = np.random.default_rng(0)
    write_nifti(tmp_path / "i.nii.gz", rng.normal(size=(*SHAPE, 2)).astype(np.float32))
    write_nifti(tmp_path / "l.nii.gz", rng.integers(0, 4, SHAPE).astype(np.uint8))
    write_nifti(tmp_path / "moved.nii.gz", rng.integers(0, 4, SHAPE).astype(np.uint8), spacing=(1.0, 2.0, 3.3))
    chain = Compose(
        [LoadImaged(["image", "label"], ensure_channel_first=True), CheckVolumed("image", 2, "label", 3, 3)]
    )
    good = {"image": str(tmp_path / "i.nii.gz"), "label": str(tmp_path / "l.nii.gz")}
    out = chain(good)
    assert out["image"].shape == (2, *SHAPE) and out["label"].shape == (1, *SHAPE)
    with pytest.raises(RuntimeError) as caught:
        chain(good | {"label": str(tmp_path / "moved.nii.gz")})
    assert "image 'i.nii.gz' and its label 'moved.nii.gz' are placed" in str(caught.value.__cause__)


def test_missing_keys():
    with pytest.raises(KeyError):
        CheckVolumed("image", 2)({})
    assert CheckVolumed("image", 2, allow_missing_keys=True)({"x": 1}) == {"x": 1}


@pytest.mark.parametrize(("values", "ignore_index"), [((0,), None), ((0, 3), 3)])
def test_a_label_may_be_asked_to_hold_something(values, ignore_index):
    check = CheckVolumed("image", 2, "label", 3, ignore_index, foreground=True)
    data = {"image": _image(), "label": _label((*values, 1))}
    assert check(data)["image"] is data["image"]
    data["label"] = _label(values)
    CheckVolumed("image", 2, "label", 3, ignore_index)(data)
    with pytest.raises(InputError, match=r"label 'truth.nii.gz' holds no class above 0.*take the case out of the list"):
        check(data)
