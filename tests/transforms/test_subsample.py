"""Volumes on every n-th voxel, and where these lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from common.checks import InputError
from common.transforms import Subsample, Subsampled

# oblique, anisotropic, the second axis flipped
AFFINE = torch.tensor(
    [[0.6, 0.3, 0.0, -11.0], [0.2, -0.7, 0.1, 5.0], [0.0, 0.1, 3.0, 40.0], [0, 0, 0, 1]], dtype=torch.float64
)


def volume(shape=(7, 4, 5), dtype=torch.float32):
    values = torch.arange(int(np.prod(shape))).reshape(1, *shape).to(dtype)
    return MetaTensor(values, affine=AFFINE, meta={"filename_or_obj": "/x/a.nii.gz", "note": [1]})


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float32])
@pytest.mark.parametrize("shape", [(7, 4, 5), (1, 6, 2), (2, 1, 1)])
@pytest.mark.parametrize("factor", [2, (2, 3, 1), (1, 1, 1), [9, 2, 2]])
def test_every_voxel_stays_where_it_was(shape, factor, dtype):
    image = volume(shape, dtype)
    small = Subsample(factor)(image)
    steps = np.broadcast_to(factor, 3)
    assert isinstance(small, MetaTensor) and small.dtype == dtype
    assert small.shape[1:] == tuple(max(-(-n // f), 1) for n, f in zip(shape, steps))
    for position in np.ndindex(*small.shape[1:]):
        source = np.array(position) * steps
        assert small[(0, *position)] == image[(0, *source)]
        here = small.affine @ torch.tensor([*position, 1.0], dtype=torch.float64)
        torch.testing.assert_close(here, AFFINE @ torch.tensor([*source, 1.0], dtype=torch.float64))


def test_metadata_survive_and_the_input_is_left_alone():
    image = volume()
    before = image.clone()
    small = Subsample(2)(image)
    assert small.meta["filename_or_obj"] == "/x/a.nii.gz" and small.meta["note"] == [1]
    assert small.meta["note"] is not image.meta["note"]
    assert torch.equal(image, before) and torch.equal(image.affine, AFFINE)
    torch.testing.assert_close(small.pixdim, 2 * image.pixdim)


def test_the_large_volume_is_let_go():
    small = Subsample(2)(volume())
    assert small.is_contiguous() and small.untyped_storage().nbytes() == small.numel() * 4
    once = volume()
    assert Subsample(1)(once).data_ptr() != once.data_ptr()


def test_what_can_not_be_inverted_says_so():
    turned = Orientation("LPS", labels=None)(volume())
    assert turned.applied_operations and not Subsample(2)(turned).applied_operations


def test_image_and_label_stay_on_one_grid():
    data = {"image": volume(), "label": volume(dtype=torch.uint8), "x": 3}
    small = Subsampled(["image", "label", "other"], 2, allow_missing_keys=True)(data)
    assert small["image"].shape == small["label"].shape == (1, 4, 2, 3) and small["x"] == 3
    assert torch.equal(small["image"].affine, small["label"].affine) and torch.equal(small["image"], small["label"])
    with pytest.raises(KeyError):
        Subsampled("mask")(data)


def test_arrays_stay_arrays():
    assert type(Subsample(2)(volume().numpy())) is np.ndarray
    assert type(Subsample(2)(volume().as_tensor())) is torch.Tensor


def test_a_factor_is_a_whole_number():
    with pytest.raises(InputError, match="downsampling factor 1.5 was given"):
        Subsampled("image", 1.5)
