"""Projections that come to lie beside a volume: what they are, and that they are made once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.engines import PrepareBatchExtraInput
from monai.transforms import Compose, EnsureTyped, RandGaussianNoised
from torch.utils.data import RandomSampler

from common.checks import InputError
from common.data import DeferredCacheDataset
from common.geometry.projection import direction_angles, project
from common.transforms import ProjectVolume, ProjectVolumed
from common.transforms import project as module


def volume(channels: int = 2) -> torch.Tensor:
    return torch.randn(channels, 6, 4, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("projection", ["max", "sum"])
@pytest.mark.parametrize(("detector", "width"), [("cropped", 9), ("full", 11)])
def test_shape_and_values(projection, detector, width):
    found = ProjectVolume(5, projection, detector)(volume())
    assert found.shape == (5, 2, 4, width) and found.is_contiguous()
    assert torch.equal(found, project(volume()[None], direction_angles(5), projection, detector)[0])


@pytest.mark.parametrize(("projection", "reduce"), [("max", torch.amax), ("sum", torch.sum)])
def test_the_first_direction_looks_along_the_first_axis_and_the_middle_one_along_the_third(projection, reduce):
    cube = torch.rand(2, 7, 4, 9, generator=torch.Generator().manual_seed(2))
    first, middle = ProjectVolume(2, projection)(cube)
    torch.testing.assert_close(first, reduce(cube, 1))
    torch.testing.assert_close(middle[..., 1:-1], reduce(cube, 3).transpose(1, 2))  # 7 voxels on 9 bins
    assert not middle[..., 0].any() and not middle[..., -1].any()


def test_negative_intensities_stay_negative():
    found = ProjectVolume(1)(-1 - torch.rand(1, 3, 4, 5))
    assert (found < -1).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.bfloat16, torch.float32, torch.float64])
def test_types(dtype):
    given = (volume() * 50).abs().to(dtype)
    found = ProjectVolume(3)(given)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, ProjectVolume(3)(given.double()).to(found.dtype))


def test_the_volume_stays_and_the_projections_are_plain():
    image = MetaTensor(volume().requires_grad_(), affine=torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0])))
    given = {"image": image, "label": 1}
    data = ProjectVolumed("image", 4, postfix="views")(given)
    assert (
        set(data) == {"image", "label", "image_views"} and data["image"] is image and set(given) == {"image", "label"}
    )
    assert type(data["image_views"]) is torch.Tensor and not data["image_views"].requires_grad
    assert torch.equal(data["image_views"], ProjectVolume(4)(volume().numpy()))


def test_missing_keys_and_workers():
    transform = pickle.loads(pickle.dumps(ProjectVolumed(["image", "x"], 4, allow_missing_keys=True)))
    assert set(transform({"image": volume()})) == {"image", "image_projections"}
    with pytest.raises(KeyError):
        ProjectVolumed("x")({"image": volume()})


@pytest.mark.parametrize("dataset_class", [CacheDataset, DeferredCacheDataset])
def test_a_cached_volume_is_projected_once(monkeypatch, dataset_class):
    calls = []

    def counting(*arguments):
        calls.append(arguments)
        return project(*arguments)

    monkeypatch.setattr(module, "project", counting)
    cases = [{"image": volume(1) + k, "label": torch.full((1, 6, 4, 9), k)} for k in range(3)]
    steps = [EnsureTyped(["image", "label"]), ProjectVolumed("image", 4), RandGaussianNoised("image", 1.0)]
    dataset = dataset_class(cases, Compose(steps), copy_cache=False, progress=False)
    loader = DataLoader(dataset, batch_size=2, sampler=RandomSampler(dataset, True, 12))
    prepare = PrepareBatchExtraInput("image_projections")
    for _ in range(2):
        for batch in loader:
            image, label, (projections,), _ = prepare(batch, "cpu")
            assert image.shape == (2, 1, 6, 4, 9) and projections.shape == (2, 4, 1, 4, 9)
            for item in range(2):
                expected = ProjectVolume(4)(cases[int(label[item].max())]["image"])
                assert torch.equal(projections[item], expected)
                calls.pop()
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"directions": 0}, "directions is 0"),
        ({"projection": "mean"}, "projection is 'mean': it must be one of max, sum.*use 'max'"),
        ({"detector": "wide"}, "detector is 'wide': it must be one of cropped, full.*use 'cropped'"),
    ],
)
def test_refusals(arguments, said):
    with pytest.raises(InputError, match=said):
        ProjectVolume(**arguments)


def test_a_volume_without_channels_is_refused():
    with pytest.raises(InputError, match=r"shape \(6, 4, 9\): .*put EnsureChannelFirstd before"):
        ProjectVolume()(np.zeros((6, 4, 9), np.float32))


@pytest.mark.gpu
def test_gpu_stays_there():
    found = ProjectVolume(4)(volume().cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), ProjectVolume(4)(volume()))
