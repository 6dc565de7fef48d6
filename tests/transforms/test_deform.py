"""Deformed patches: plain copies, exact geometry, agreement of image and label, random state, errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose

from common.checks import InputError
from common.transforms.deform import RandDeformedPatch, RandDeformedPatchd

OFF = {"rotation_degrees": 0, "scale_range": (1, 1), "sigma": 0}


def case(shape=(20, 17, 9), seed=0, channels=2):
    random = torch.manual_seed(seed)
    return {
        "image": torch.rand(channels, *shape, generator=random),
        "label": torch.randint(0, 4, (1, *shape), generator=random, dtype=torch.uint8),
    }


def patcher(**options):
    settings = {"patch_size": (12, 13, 8), "grid_spacing": 5, "sigma": 1.5, **options}
    return RandDeformedPatchd(["image", "label"], "label", **settings)


@pytest.mark.parametrize("label_size", [None, (6, 7, 4), (5, 6, 3), 1])
def test_all_off_is_plain_slicing(label_size):
    data = case((30, 30, 30))
    data["label"][:, :10] = data["label"][:, -10:] = 3
    data["label"][:, :, :10] = data["label"][:, :, -10:] = 3
    data["label"][..., :10] = data["label"][..., -10:] = 3
    transform = patcher(label_size=label_size, num_samples=5, **OFF).set_random_state(1)
    for patch, draw in zip(transform(data), transform.patcher.draws, strict=True):
        for key, size in (("image", (12, 13, 8)), ("label", transform.patcher.label_size)):
            window = tuple(slice(c - n // 2, c - n // 2 + n) for c, n in zip(draw.centre, size, strict=True))
            assert torch.equal(patch[key], data[key][(slice(None), *window)])


def test_the_deformed_path_equals_the_plain_one_in_the_limit():
    data = case((20, 17, 9))
    plain = patcher(num_samples=4, **OFF).set_random_state(5)(data)
    nearly = patcher(num_samples=4, **{**OFF, "sigma": 1e-9}).set_random_state(5)(data)
    for a, b in zip(plain, nearly, strict=True):
        torch.testing.assert_close(a["image"], b["image"], rtol=0, atol=2e-5)
        assert torch.equal(a["label"], b["label"])


@pytest.mark.parametrize("shape", [(20, 17, 9), (5, 40, 3), (1, 9, 9)])
@pytest.mark.parametrize("outside", ["mirror", "zero"])
def test_volumes_smaller_than_the_patch(shape, outside):
    data = case(shape)
    data["image"] += 1.0
    data["label"][data["label"] == 3] = 0
    (patch,) = patcher(patch_size=(12, 13, 14), outside=outside, **OFF).set_random_state(0)(data)
    assert patch["image"].shape == (2, 12, 13, 14) and patch["label"].shape == (1, 12, 13, 14)
    beyond = (patch["label"] == 3)[0]
    assert beyond.any() and (~beyond).sum() <= np.prod(shape)
    if outside == "zero":
        assert torch.equal(patch["image"][0] == 0, beyond)
    else:
        assert patch["image"].min() >= 1.0
        source = set(data["image"].flatten().tolist())
        assert set(patch["image"].flatten().tolist()) <= source


@pytest.mark.parametrize("label_size", [None, (4, 5, 2), (3, 2, 1)])
def test_the_drawn_voxel_is_labelled_and_stays_at_the_centre(label_size):
    data = case()
    data["label"][:] = 3
    data["label"][0, 18, 2, 4], data["label"][0, 3, 3, 8] = 1, 2
    transform = patcher(label_size=label_size, num_samples=20, sigma=4.0, rotation_degrees=40).set_random_state(2)
    size = transform.patcher.label_size
    found = [int(patch["label"][(0, *(n // 2 for n in size))]) for patch in transform(data)]
    drawn = [int(data["label"][(0, *draw.centre)]) for draw in transform.patcher.draws]
    assert found == drawn and set(found) == {1, 2}


def test_centres_are_uniform_over_the_labelled_voxels():
    data = case((4, 5, 6))
    transform = RandDeformedPatch(3, num_samples=4000, **OFF).set_random_state(0)
    transform.randomize(data["label"])
    hits = np.zeros((4, 5, 6))
    for draw in transform.draws:
        hits[draw.centre] += 1
    labelled = data["label"][0].numpy() != 3
    assert not hits[~labelled].any()
    expected = 4000 / labelled.sum()
    assert ((hits[labelled] - expected) ** 2 / expected).sum() < labelled.sum() + 4 * np.sqrt(2 * labelled.sum())


def test_share_of_foreground():
    data = case((10, 10, 10))
    data["label"][:] = 2
    data["label"][0, 0, 0, :2] = torch.tensor([0, 1])
    transform = RandDeformedPatch(3, num_samples=300, foreground_share=0.5, background_index=2).set_random_state(0)
    transform.randomize(data["label"])
    foreground = np.mean([draw.centre[:2] == (0, 0) and draw.centre[2] < 2 for draw in transform.draws])
    assert 0.4 < foreground < 0.6
    data["label"][:] = 2  # no foreground: background it is
    transform.randomize(data["label"])
    assert len(transform.draws) == 300


def positions_of(transform, draw, shape):
    """Positions read back from a volume that holds its own coordinates."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))
    return transform.sample(grid, draw, transform.field(draw), as_label=False)


def test_rotation_and_scale_are_rigid_in_voxels_of_a_volume_that_is_no_cube():
    shape, options = (60, 80, 100), {"rotation_degrees": 25, "scale_range": (0.8, 1.25), "sigma": 0}
    transform = RandDeformedPatch((9, 15, 21), grid_spacing=4, **options).set_random_state(3)
    label = torch.full((1, *shape), 3, dtype=torch.uint8)
    label[0, 30, 40, 50] = 1
    transform.randomize(label)
    found = positions_of(transform, transform.draws[0], shape).double()
    torch.testing.assert_close(found[:, 4, 7, 10], torch.tensor([30.0, 40, 50], dtype=torch.float64), rtol=0, atol=1e-4)
    offsets = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in (9, 15, 21)), indexing="ij")).double()
    moved = found - torch.tensor([30.0, 40, 50], dtype=torch.float64).reshape(3, 1, 1, 1)
    ratio = moved.norm(dim=0)[offsets.norm(dim=0) > 0] / offsets.norm(dim=0)[offsets.norm(dim=0) > 0]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-4, atol=0)
    assert 0.8 <= 1 / ratio[0] <= 1.25 and (moved - offsets).abs().max() > 1


def test_rotation_is_rigid_in_millimetres_where_the_voxel_size_is_known():
    affine = torch.diag(torch.tensor([-0.5, 0.5, 4.0, 1.0], dtype=torch.float64))
    label = MetaTensor(torch.ones(1, 40, 40, 12, dtype=torch.uint8), affine=affine)
    transform = RandDeformedPatch((9, 9, 5), rotation_degrees=20, sigma=0, scale_range=(1, 1)).set_random_state(0)
    transform.randomize(label)
    size = torch.tensor([0.5, 0.5, 4.0], dtype=torch.float64)
    turned = size[:, None] * torch.from_numpy(transform.draws[0].matrix) / size
    torch.testing.assert_close(turned @ turned.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(turned) > 0.999 and not torch.allclose(turned, torch.eye(3, dtype=torch.float64))


def test_displacements_are_a_b_spline_of_the_stated_sigma():
    options = {"rotation_degrees": 0, "scale_range": (1, 1), "grid_spacing": 8, "sigma": 4.0}
    transform = RandDeformedPatch((40, 40, 40), num_samples=30, **options).set_random_state(0)
    transform.randomize(torch.ones(1, 8, 8, 8))
    controls = np.stack([draw.displacements for draw in transform.draws])
    assert controls.std() == pytest.approx(4.0, rel=0.02) and abs(controls.mean()) < 0.05
    offsets = torch.stack(torch.meshgrid(*(torch.arange(40.0) - 20,) * 3, indexing="ij"))
    bends = torch.stack([transform.field(draw) - offsets for draw in transform.draws])
    assert (bends[:, :, 20, 20, 20].abs() < 1e-5).all()
    # between two voxels far apart both displacements are independent, each about 0.34 sigma
    assert 1.6 < (bends[:, :, 2, 2, 2] - bends[:, :, 36, 36, 36]).std() < 2.4


def test_image_and_label_stay_on_each_other():
    coarse = torch.randint(0, 3, (1, 5, 6, 4), generator=torch.manual_seed(4)).float()
    label = torch.nn.functional.interpolate(coarse[None], scale_factor=8, mode="nearest")[0]
    (patch,) = RandDeformedPatchd(["image", "label"], "label", (32, 32, 24), grid_spacing=12).set_random_state(1)(
        {"image": label.clone(), "label": label.to(torch.int16)}
    )
    inside = patch["label"] != 3
    # linear and nearest agree but for voxels at a border between labels
    close = (patch["image"] - patch["label"]).abs()[inside] < 0.5
    assert patch["label"].dtype == torch.int16 and close.float().mean() > 0.8
    assert ((patch["image"][inside] == patch["label"][inside]).float().mean()) > 0.4


def test_the_label_window_is_the_middle_of_the_full_label():
    data = case((40, 40, 40))
    (full,) = patcher(patch_size=(20, 24, 16)).set_random_state(7)(data)
    (small,) = patcher(patch_size=(20, 24, 16), label_size=torch.Size((8, 12, 4))).set_random_state(7)(data)
    assert torch.equal(small["label"], full["label"][:, 6:14, 6:18, 6:10])
    assert torch.equal(small["image"], full["image"])


def test_affine_follows_the_patch():
    affine = torch.tensor([[0, 0, -2.0, 5], [1.5, 0, 0, -3], [0, 0.8, 0, 7], [0, 0, 0, 1]], dtype=torch.float64)
    data = case((40, 40, 40))
    data = {k: MetaTensor(v, affine=affine, meta={"filename_or_obj": f"{k}.nii"}) for k, v in data.items()}
    for options in (OFF, {"sigma": 0.0}):
        transform = patcher(label_size=(6, 5, 4), **options).set_random_state(4)
        (patch,) = transform(data)
        (draw,) = transform.patcher.draws
        assert patch["label"].meta["filename_or_obj"] == "label.nii" and isinstance(patch["image"], MetaTensor)
        world = (affine @ torch.tensor([*draw.centre, 1.0], dtype=torch.float64))[:3]
        for key, size in (("image", (12, 13, 8)), ("label", (6, 5, 4))):
            here = torch.tensor([*(n // 2 for n in size), 1.0], dtype=torch.float64)
            torch.testing.assert_close((patch[key].affine @ here)[:3], world)
        if options is not OFF:  # a corner of the patch, too, lies where the field says
            corner = torch.from_numpy(draw.matrix) @ torch.tensor([-6.0, -6, -4], dtype=torch.float64)
            field = transform.patcher.field(draw)[:, 0, 0, 0].double()
            torch.testing.assert_close(field, corner, rtol=0, atol=1e-4)
            there = (affine @ torch.cat([corner + torch.tensor(draw.centre), torch.ones(1)]))[:3]
            torch.testing.assert_close(patch["image"].affine[:3, 3], there)
    assert torch.equal(data["image"].affine, affine)


def test_random_state_alone_decides():
    data = case()
    first = patcher(num_samples=3).set_random_state(11)(data)
    np.random.seed(99), torch.manual_seed(99)
    again, other = patcher(num_samples=3).set_random_state(11)(data), patcher(num_samples=3).set_random_state(12)(data)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first, again, strict=True) for k in a)
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0]["image"], first[1]["image"])


def test_the_same_seed_draws_the_same_centres_whatever_is_turned_off():
    data = case()
    full, off = patcher(num_samples=4).set_random_state(3), patcher(num_samples=4, **OFF).set_random_state(3)
    full(data), off(data)
    assert [d.centre for d in full.patcher.draws] == [d.centre for d in off.patcher.draws]


def test_data_in_is_left_alone_and_other_keys_come_along():
    data = {**case(), "name": "a", "extra": [1]}
    before = {key: data[key].clone() for key in ("image", "label")}
    first, second = patcher(num_samples=2).set_random_state(0)(data)
    assert all(torch.equal(before[key], data[key]) for key in before)
    assert list(first) == list(data) and first["name"] == "a"
    assert first["extra"] == [1] and first["extra"] is not second["extra"]


def test_in_a_cached_data_set_and_in_worker_processes():
    transform = Compose([patcher(num_samples=2)]).set_random_state(0)
    assert isinstance(pickle.loads(pickle.dumps(transform)), Compose)
    data = [{k: MetaTensor(v) for k, v in case(seed=seed).items()} for seed in range(2)]
    loader = DataLoader(CacheDataset(data, transform, progress=False), batch_size=2, num_workers=1)
    (batch,) = list(loader)
    assert batch["image"].shape == (4, 2, 12, 13, 8) and batch["label"].dtype == torch.uint8


def test_array_form_gives_image_and_label_of_one_draw():
    data = case()
    transform = RandDeformedPatch((12, 13, 8), grid_spacing=5, sigma=1.5).set_random_state(11)
    (image,) = transform(data["image"], data["label"])
    (label,) = transform(data["label"], randomize=False, as_label=True)
    (both,) = patcher().set_random_state(11)(data)
    assert torch.equal(image, both["image"]) and torch.equal(label, both["label"])


def test_nothing_labelled_names_the_file():
    label = MetaTensor(torch.full((1, 6, 6, 6), 3), meta={"filename_or_obj": "kidney_2.nii.gz"})
    with pytest.raises(InputError, match=r"nothing is labelled in 'kidney_2.nii.gz'.*not 3 \(ignore_index\)"):
        patcher()({"image": torch.rand(1, 6, 6, 6), "label": label})


def test_image_and_label_of_different_size():
    with pytest.raises(InputError, match=r"'image'.*\(1, 6, 6, 5\).*\(1, 6, 6, 6\).*one grid"):
        patcher()({"image": torch.rand(1, 6, 6, 5), "label": torch.zeros(1, 6, 6, 6)})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"label_size": 14}, "between 1 and patch_size"),
        ({"scale_range": (1.1, 0.9)}, "the lower one first"),
        ({"scale_range": (0.0, 1.0)}, "above 0"),
        ({"sigma": -1}, "must not be negative"),
        ({"outside": "reflect"}, "'mirror' or 'zero'"),
        ({"num_samples": 0}, "at least 1"),
        ({"foreground_share": 2}, "between 0 and 1"),
        ({"grid_spacing": 0}, "spacing above 0"),
        ({"patch_size": (4, 0, 4), "label_size": 1}, "between 1 and patch_size"),
    ],
)
def test_arguments_out_of_range(options, text):
    with pytest.raises(InputError, match=text):
        patcher(**options)


@pytest.mark.parametrize("label_keys", ["seg", ["label", "seg"], ()])
def test_label_keys_are_among_the_keys(label_keys):
    with pytest.raises(InputError, match="every label must be among the keys"):
        RandDeformedPatchd(["image", "label"], label_keys, 4)


@pytest.mark.gpu
def test_on_a_cuda_device():
    data = case((40, 40, 40))
    (here,) = patcher().set_random_state(8)(data)
    (there,) = patcher().set_random_state(8)({key: value.cuda() for key, value in data.items()})
    assert there["image"].is_cuda and there["label"].dtype == torch.uint8
    torch.testing.assert_close(there["image"].cpu(), here["image"], rtol=0, atol=1e-4)
    # a position half-way between two voxels may round to either
    assert (there["label"].cpu() == here["label"]).float().mean() > 0.999
