"""Foreground channels of a label map, and the label map of foreground probabilities."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.transforms import ForegroundChannels, ForegroundChannelsd, ForegroundLabel, ForegroundLabeld

AFFINE = torch.diag(torch.tensor([-0.7, 0.8, 2.0, 1.0], dtype=torch.float64))


def labels(classes: int = 4, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (1, 5, 3, 7)) -> torch.Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(3)).to(dtype)


def probabilities(classes: int = 3) -> torch.Tensor:
    values = torch.rand(classes, 4, 5, 6, generator=torch.Generator().manual_seed(4))
    values[:, 0] *= 0.4  # where no class reaches one half
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
@pytest.mark.parametrize("classes", [2, 4])
def test_channels_voxel_by_voxel(classes, dtype):
    given = labels(classes, dtype)
    found = ForegroundChannels(classes)(given)
    assert found.shape == (classes - 1, 5, 3, 7) and found.dtype == torch.uint8
    for position in np.ndindex(5, 3, 7):
        for k in range(1, classes):
            assert found[k - 1][position] == (given[0][position] == k)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.0, 1.0])
@pytest.mark.parametrize("classes", [1, 3])
def test_labels_voxel_by_voxel(classes, threshold):
    given = probabilities(classes)
    given[0, 1, 2, 3] = threshold  # reached, not passed
    given[1:, 1, 2, 3] = 0
    found = ForegroundLabel(threshold)(given)
    assert found.shape == (1, 4, 5, 6) and found.dtype == torch.uint8 and found[0, 1, 2, 3] == 1
    for position in np.ndindex(4, 5, 6):
        values = given[(slice(None), *position)].tolist()
        assert found[0][position] == (values.index(max(values)) + 1 if max(values) >= threshold else 0)


def test_what_is_not_a_number_is_background():
    given = torch.full((2, 1, 1, 2), 0.9)
    given[1, 0, 0, 0] = torch.nan
    assert ForegroundLabel()(given).flatten().tolist() == [0, 1]


def test_there_and_back():
    given = labels(4, torch.uint8)
    assert torch.equal(ForegroundLabel()(ForegroundChannels(4)(given).float()), given)


def test_nothing_is_found_in_nothing():
    assert not ForegroundChannels(3)(torch.zeros(1, 2, 3, 4)).any()
    assert not ForegroundLabel()(torch.zeros(2, 2, 3, 4)).any()


def test_metadata_survive_and_what_was_given_is_left_alone():
    label = MetaTensor(labels(), affine=AFFINE, meta={"filename_or_obj": "a.nii"})
    pred = MetaTensor(probabilities(), affine=AFFINE, meta={"filename_or_obj": "a.nii"})
    before = label.clone(), pred.clone()
    data = {"label": label, "pred": pred, "other": 1}
    found = ForegroundLabeld("pred", 0.5)(ForegroundChannelsd("label", 4)(data))
    assert found["other"] == 1 and data["label"] is label and data["pred"] is pred
    for key, channels in (("label", 3), ("pred", 1)):
        assert isinstance(found[key], MetaTensor) and len(found[key]) == channels
        assert torch.equal(found[key].affine, AFFINE) and found[key].meta["filename_or_obj"] == "a.nii"
        assert found[key].dtype == torch.uint8
    assert torch.equal(label, before[0]) and torch.equal(pred, before[1])


def test_arrays_stay_arrays():
    assert type(ForegroundChannels(3)(labels().numpy())) is np.ndarray
    assert type(ForegroundLabel()(probabilities().numpy())) is np.ndarray


def test_missing_keys():
    for transform in (ForegroundChannelsd, ForegroundLabeld):
        assert transform("x", allow_missing_keys=True)({"y": 1}) == {"y": 1}
        with pytest.raises(KeyError):
            transform("x")({"y": 1})


def test_workers_can_have_them():
    copied = pickle.loads(pickle.dumps(ForegroundChannelsd("label", 4)))
    assert torch.equal(copied({"label": labels()})["label"], ForegroundChannels(4)(labels()))


def test_refusals():
    with pytest.raises(InputError, match="num_classes is 1: there must be the background and at least one class"):
        ForegroundChannels(1)
    with pytest.raises(InputError, match=r"label in memory has shape \(2, 3, 3, 3\).*give class indices"):
        ForegroundChannels(2)(torch.zeros(2, 3, 3, 3))
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=f"threshold is {threshold}: it is compared with probabilities, 0 to 1"):
            ForegroundLabel(threshold)
    for shape in ((0, 2, 2, 2), (256, 1, 1, 1), (5,)):
        with pytest.raises(InputError, match="1 to 255 foreground classes"):
            ForegroundLabel()(torch.zeros(shape))


@pytest.mark.gpu
def test_gpu_stays_there():
    assert ForegroundChannels(4)(labels().cuda()).is_cuda
    found = ForegroundLabel()(probabilities().cuda())
    assert found.is_cuda and torch.equal(found.cpu(), ForegroundLabel()(probabilities()))
