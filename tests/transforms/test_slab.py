"""Random slabs: the windows of the released code in their proportion, padding, agreement, random state."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose

from common.checks import InputError
from common.transforms.slab import RandSlab, RandSlabd, sweep_share


def case(extent, meta=True):
    """Slices that hold their own numbers."""
    image = torch.arange(extent, dtype=torch.float32).expand(1, 3, 2, extent).clone()
    label = image.to(torch.uint8) + 100
    if not meta:
        return {"image": image, "label": label}
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    return {key: MetaTensor(value, affine=affine) for key, value in {"image": image, "label": label}.items()}


@pytest.mark.parametrize(("extent", "sweep"), [(32, [0]), (33, [0, 1]), (57, [0, 25]), (90, [0, 25, 50, 58])])
def test_sweep_and_random_windows_come_in_the_released_proportion(extent, sweep):
    """Chances written out from the list of windows that the released code stores of such a volume."""
    random = 4 * int(2 * extent / 20)
    assert sweep_share(extent) == (sweep, random)
    chance = {start: random / (extent - 31) for start in range(extent - 31)}
    for start in sweep:
        chance[start] += 1
    draw, times = RandSlab().set_random_state(3), 6000
    found = Counter()
    for _ in range(times):
        draw.randomize(extent)
        found[draw.start] += 1
    assert set(found) <= set(chance)
    for start, weight in chance.items():
        p = weight / (len(sweep) + random)
        assert abs(found[start] - times * p) < 5 * (times * p * (1 - p)) ** 0.5 + 1e-9, start


@pytest.mark.parametrize("meta", [True, False])
def test_image_and_label_keep_the_same_slices_and_their_place(meta):
    data, transform = case(50, meta), RandSlabd(["image", "label"], slices=8, sweep_step=5).set_random_state(1)
    starts = set()
    for _ in range(30):
        slab = transform(data)
        start = int(slab["image"][0, 0, 0, 0])
        starts.add(start)
        assert slab["image"].shape == slab["label"].shape == (1, 3, 2, 8)
        assert slab["image"][0, 2, 1].tolist() == list(range(start, start + 8))
        assert torch.equal(slab["image"] + 100, slab["label"].float()) and slab["label"].dtype == torch.uint8
        assert slab["image"].is_contiguous() and slab["image"].untyped_storage().nbytes() == 4 * 48
        if meta:
            torch.testing.assert_close(slab["label"].affine[:3, 3], torch.tensor([0, 0, 3.0 * start]).double())
    assert len(starts) > 10


@pytest.mark.parametrize(
    ("extent", "before", "expected"),
    [(5, 1, [0, 0, 1, 2, 3, 4, 4, 4]), (1, 3, [0] * 8), (8, 0, list(range(8)))],
)
def test_short_volumes_repeat_their_border_slices(extent, before, expected):
    data = case(extent)
    slab = RandSlabd(["image", "label"], slices=8, sweep_step=8).set_random_state(0)(data)
    assert slab["image"][0, 1, 1].tolist() == expected
    assert slab["label"][0, 1, 1].tolist() == [100 + one for one in expected]
    torch.testing.assert_close(slab["image"].affine[2, 3].item(), -3.0 * before)


def test_a_cached_volume_is_left_alone_and_drawn_anew():
    transform = Compose([RandSlabd(["image", "label"], slices=8, sweep_step=8)]).set_random_state(2)
    dataset = CacheDataset([case(40, meta=False)], transform, copy_cache=False, progress=False)
    first = dataset[0]
    first["image"].zero_()
    assert torch.equal(dataset._cache[0]["image"], case(40, meta=False)["image"])
    assert len({int(dataset[0]["label"][0, 0, 0, 0]) for _ in range(20)}) > 3


def test_the_same_seed_gives_the_same_windows_also_in_workers():
    def drawn(seed, workers=0):
        torch.manual_seed(seed)  # MONAI's loader seeds the transforms by it
        transform = Compose([RandSlabd(["image", "label"], slices=8, sweep_step=8)])
        dataset = CacheDataset([case(60, meta=False)] * 6, transform, copy_cache=False, progress=False)
        return [int(batch["image"][0, 0, 0, 0, 0]) for batch in DataLoader(dataset, num_workers=workers)]

    assert drawn(4) == drawn(4) != drawn(5)
    assert drawn(4, workers=1) == drawn(4, workers=1) != drawn(5, workers=1)


def test_arrays_and_missing_keys():
    slab = RandSlab(slices=4, sweep_step=4).set_random_state(0)
    assert type(slab(case(9)["image"].numpy())) is np.ndarray
    assert RandSlabd("image", allow_missing_keys=True)({"x": 1}) == {"x": 1}
    with pytest.raises(KeyError):
        RandSlabd("image")({"x": 1})


@pytest.mark.parametrize("options", [{"slices": 0}, {"sweep_step": 0}, {"slices": 8, "sweep_step": 9}])
def test_steps_that_leave_slices_out_are_refused(options):
    with pytest.raises(InputError, match="leave out none.*sweep_step from 1 to the number of slices"):
        RandSlab(**options)


def test_entries_of_other_sizes_are_refused():
    data = {**case(9), "label": case(8)["label"]}
    with pytest.raises(InputError, match=r"'label' from memory has shape \(1, 3, 2, 8\) and the image"):
        RandSlabd(["image", "label"], slices=4, sweep_step=4)(data)
