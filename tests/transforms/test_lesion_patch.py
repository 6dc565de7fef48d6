"""Patches around lesions: where they lie, their shares, borders, counting once, errors."""

from __future__ import annotations

import gc
import pickle
from collections import Counter
from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose

from common.checks import InputError
from common.geometry.sampling import ClassVoxels
from common.transforms.lesion_patch import RandLesionPatch, RandLesionPatchd

SIZE = (4, 3, 2)


def case(shape=(10, 9, 8), organ=((1, 9), (1, 8), (1, 7)), lesions=(((3, 5), (2, 4), (3, 5)),)):
    """An image whose values are the voxels' own numbers, and a label."""
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    for value, boxes in ((1, (organ,) if organ else ()), (2, lesions)):
        for box in boxes:
            label[(0, *(slice(*ends) for ends in box))] = value
    image = torch.arange(1.0, 1.0 + label.numel()).reshape(label.shape)
    affine = torch.diag(torch.tensor([-1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    return {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine)}


def starts_of(data, times=1500, size=SIZE, seed=0, **options):
    """Counts of the first voxels of so many patches."""
    patcher = RandLesionPatch(size, **options).set_random_state(seed)
    found = Counter()
    for _ in range(times):
        patcher.randomize(data["label"])
        found[patcher.start] += 1
    return found


def close_to(found, chance):
    """Whether counts agree with chances, to five standard deviations each."""
    times = sum(found.values())
    assert abs(sum(chance.values()) - 1) < 1e-9 and set(found) <= set(chance)
    return all(abs(found[s] - times * p) < 5 * (times * p * (1 - p)) ** 0.5 + 1e-9 for s, p in chance.items())


def test_patches_of_a_lesion_hold_a_voxel_of_it_everywhere_alike():
    """The chances by going over every lesion voxel and every window inside the volume that holds it."""
    data = case(lesions=(((0, 2), (2, 4), (3, 5)), ((9, 10), (8, 9), (7, 8))))
    voxels = (data["label"][0] == 2).nonzero().tolist()
    chance = Counter()
    for voxel in voxels:
        axes = [
            [start for start in range(n - size + 1) if start <= v < start + size]
            for v, n, size in zip(voxel, data["label"].shape[1:], SIZE)
        ]
        windows = list(product(*axes))
        for window in windows:
            chance[window] += 1 / len(voxels) / len(windows)
    assert close_to(starts_of(data, 6000, lesion_share=1.0), chance)


def test_patches_of_the_organ_are_centred_on_it_and_stay_inside():
    data = case(organ=((0, 6), (0, 9), (2, 8)))
    label = data["label"][0]
    windows = []
    for voxel in (label == 1).nonzero().tolist():
        window = tuple(v - size // 2 for v, size in zip(voxel, SIZE))
        if all(0 <= start <= n - size for start, n, size in zip(window, label.shape, SIZE)):
            windows.append(window)
    assert windows and close_to(starts_of(data, 6000, lesion_share=0.0), {w: 1 / len(windows) for w in windows})


@pytest.mark.parametrize("share", [0.0, 0.3, 300 / 350, 1.0])
def test_the_share_of_patches_around_lesions(share):
    """Far apart, so that a patch tells its kind."""
    data = case((30, 9, 8), organ=((20, 28), (2, 7), (2, 6)), lesions=(((2, 4), (2, 4), (3, 5)),))
    found = starts_of(data, 3000, lesion_share=share)
    around = sum(count for start, count in found.items() if start[0] < 10)
    assert abs(around - 3000 * share) <= 5 * (3000 * share * (1 - share)) ** 0.5


def test_cases_without_lesion_give_the_organ_and_without_organ_the_lesion():
    assert len(starts_of(case(lesions=()), 300, lesion_share=1.0)) > 50
    found = starts_of(case(organ=None), 300, lesion_share=0.0)
    assert found and all(0 <= start[0] <= 4 for start in found)


def test_an_organ_at_the_border_that_can_not_be_a_centre():
    """The window is moved into the volume."""
    data = case(organ=((0, 1), (0, 1), (0, 1)), lesions=())
    assert set(starts_of(data, 20)) == {(0, 0, 0)}


@pytest.mark.parametrize("lesions", [(), (((1, 2), (4, 5), (1, 2)),)])
@pytest.mark.parametrize(
    ("shape", "size", "start"), [((3, 9, 8), (8, 9, 8), (-2, 0, 0)), ((3, 6, 2), (4, 9, 9), (0, -1, -3))]
)
def test_a_volume_smaller_than_the_patch_lies_in_its_middle(shape, size, start, lesions):
    data = case(shape, organ=((0, 3), (1, 5), (0, 2)), lesions=lesions)
    patch = RandLesionPatchd(["image", "label"], "label", size).set_random_state(0)(data)
    for key in ("image", "label"):
        expected = torch.zeros(1, *size, dtype=data[key].dtype)
        inside = tuple(slice(-s, -s + n) for s, n in zip(start, shape))
        expected[(0, *inside)] = data[key].as_tensor()[0]
        assert torch.equal(patch[key].as_tensor(), expected)
    torch.testing.assert_close(patch["image"].affine[:3, 3].tolist(), [-1.0 * start[0], 2.0 * start[1], 3.0 * start[2]])


def test_image_and_label_keep_their_place():
    data, transform = case(), RandLesionPatchd(["image", "label"], "label", SIZE).set_random_state(3)
    for _ in range(20):
        patch = transform(data)
        start = transform.patcher.start
        window = (slice(None), *(slice(s, s + n) for s, n in zip(start, SIZE)))
        for key in ("image", "label"):
            assert torch.equal(patch[key].as_tensor(), data[key].as_tensor()[window])
            assert patch[key].dtype == data[key].dtype and patch[key].is_contiguous()
            place = data[key].affine @ torch.tensor([*start, 1.0], dtype=torch.float64)
            torch.testing.assert_close(patch[key].affine[:, 3], place)
    patch["image"].as_tensor().zero_()
    assert torch.equal(data["image"], case()["image"])


def test_a_label_is_counted_once_and_again_when_it_changes(monkeypatch):
    counted = []
    monkeypatch.setattr(
        ClassVoxels, "__init__", lambda self, *given, _=ClassVoxels.__init__: (counted.append(1), _(self, *given))[1]
    )
    patcher, data = RandLesionPatch(SIZE, lesion_share=1.0).set_random_state(0), case()
    for _ in range(5):
        patcher.randomize(data["label"])
    assert len(counted) == 2
    data["label"].zero_()
    with pytest.raises(InputError, match="neither 2"):
        patcher.randomize(data["label"])
    assert len(patcher._counted) == 1
    del data
    gc.collect()
    assert len(patcher._counted) == 0
    with torch.inference_mode():
        label = case()["label"] + 0
        patcher.randomize(label)
    assert len(patcher._counted) == 0


def test_it_travels_to_workers_and_goes_on_with_its_random_state():
    transform, data = RandLesionPatchd(["image", "label"], "label", SIZE).set_random_state(3), case()
    transform(data)
    for twin in (pickle.loads(pickle.dumps(transform)), deepcopy(transform)):
        assert torch.equal(twin(data)["image"], deepcopy(transform)(data)["image"])


def test_the_same_seed_gives_the_same_patches_also_in_workers():
    plain = {key: value.as_tensor() for key, value in case().items()}

    def drawn(seed, workers=0):
        torch.manual_seed(seed)  # MONAI's loader seeds the transforms by it
        transform = Compose([RandLesionPatchd(["image", "label"], "label", SIZE)])
        dataset = CacheDataset([plain] * 8, transform, copy_cache=False, progress=False)
        return [int(batch["image"][0, 0, 0, 0, 0]) for batch in DataLoader(dataset, num_workers=workers)]

    assert drawn(4) == drawn(4) != drawn(5)
    assert drawn(4, workers=1) == drawn(4, workers=1) != drawn(5, workers=1)


def test_arrays_stay_arrays():
    data = case()
    patcher = RandLesionPatch(SIZE).set_random_state(1)
    patch = patcher(data["image"].numpy(), data["label"].numpy())
    assert type(patch) is np.ndarray and patch.shape == (1, *SIZE)
    label = patcher(data["label"].numpy(), randomize=False)
    assert label.dtype == np.uint8 and patch[0, 0, 0, 0] == 1 + np.ravel_multi_index(patcher.start, (10, 9, 8))


@pytest.mark.gpu
def test_on_a_device():
    data = {key: value.to("cuda") for key, value in case().items()}
    patch = RandLesionPatchd(["image", "label"], "label", SIZE).set_random_state(3)(data)
    twin = RandLesionPatchd(["image", "label"], "label", SIZE).set_random_state(3)(case())
    assert patch["image"].is_cuda and torch.equal(patch["label"].cpu(), twin["label"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch_size": 0}, "patch_size 0 was given: it counts voxels"),
        ({"patch_size": [4, 4]}, "three of them"),
        ({"patch_size": 4, "lesion_share": 1.2}, "lesion_share 1.2 was given: it must lie between 0 and 1"),
        ({"patch_size": 4, "lesion": 1}, "must be two labels"),
    ],
)
def test_arguments_out_of_range(options, said):
    with pytest.raises(InputError, match=said):
        RandLesionPatch(**options)


def test_what_can_not_be_drawn_from_is_told():
    data = case(organ=None, lesions=())
    data["label"].meta["filename_or_obj"] = "/x/a.nii.gz"
    transform = RandLesionPatchd(["image", "label"], "label", SIZE)
    with pytest.raises(InputError, match=r"'a\.nii\.gz' holds neither 2 \(lesion\) nor 1 \(organ\).*take the case out"):
        transform(data)
    with pytest.raises(InputError, match="both must be .* with one grid"):
        transform({**data, "image": data["image"][..., 1:]})
    with pytest.raises(KeyError):
        RandLesionPatchd(["image", "other"], "label", SIZE)(case())
