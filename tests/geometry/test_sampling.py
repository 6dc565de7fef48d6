"""Sampling and drawing against loops over voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common.geometry.sampling import ClassVoxels, LabelledVoxels, crop_patch, mirror_positions, sample_positions

SHAPES = [(9, 12, 7), (1, 8, 5), (2, 3, 1)]


def volume(shape, dtype=torch.float32, seed=0):
    return (torch.rand(2, *shape, generator=torch.manual_seed(seed)) * 200).to(dtype)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_mirroring_equals_numpy_padding(size):
    padded = np.pad(np.arange(size), 13, mode="reflect") if size > 1 else np.zeros(27, dtype=int)
    positions = torch.arange(-13, size + 13)
    assert mirror_positions(positions, size).tolist() == padded.tolist()
    halves = mirror_positions(positions[:-1] + 0.5, size)
    assert halves.min() >= 0 and halves.max() <= size - 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", [None, 0.0, 3.0])
@pytest.mark.parametrize("start", [(0, 0, 0), (-4, 2, 3), (5, -9, -6)])
def test_crop_equals_padding_then_slicing(shape, fill, start):
    size, pad = (4, 11, 3), 12
    source = volume(shape, torch.uint8)
    width = [(0, 0)] + [(pad, pad)] * 3
    if fill is None:
        padded = source.numpy()
        for axis, voxels in enumerate(shape, start=1):
            mode = "reflect" if voxels > 1 else "edge"
            padded = np.pad(padded, [w if i == axis else (0, 0) for i, w in enumerate(width)], mode=mode)
    else:
        padded = np.pad(source.numpy(), width, constant_values=int(fill))
    window = tuple(slice(s + pad, s + pad + n) for s, n in zip(start, size, strict=True))
    patch = crop_patch(source, start, size, fill)
    assert patch.dtype == torch.uint8 and np.array_equal(patch.numpy(), padded[(slice(None), *window)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int16])
@pytest.mark.parametrize(("fill", "mode"), [(None, "mirror"), (0.0, "grid-constant"), (3.0, "grid-constant")])
def test_linear_sampling_equals_scipy(shape, dtype, fill, mode):
    source, centre = volume(shape, dtype), [n // 2 for n in shape]
    field = torch.randn(3, 5, 6, 4, generator=torch.manual_seed(1)) * 6
    positions = field.double().numpy() + np.array(centre).reshape(3, 1, 1, 1)
    sampled = sample_positions(source, field, centre, fill)
    assert sampled.dtype == torch.float32
    for channel, out in zip(source.double().numpy(), sampled, strict=True):
        expected = map_coordinates(channel, positions, order=1, mode=mode, cval=fill or 0.0)
        np.testing.assert_allclose(out.numpy(), expected, atol=5e-3)  # values reach 200: 2.5e-5 of their range


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_nearest_sampling_takes_the_nearest_voxel_and_fills_outside(shape, dtype):
    source, centre = volume(shape, dtype), [n // 2 for n in shape]
    field = torch.randn(3, 5, 6, 4, generator=torch.manual_seed(2)) * 4
    sampled = sample_positions(source, field, centre, 3.0, nearest=True)
    assert sampled.dtype == dtype
    index = (field + torch.tensor(centre).reshape(3, 1, 1, 1)).round().long()
    limit = torch.tensor(shape).reshape(3, 1, 1, 1)
    inside = ((index >= 0) & (index < limit)).all(0)
    assert inside.any() and not inside.all()
    i, j, k = index.clamp(min=0).minimum(limit - 1)
    expected = torch.where(inside, source[:, i, j, k], torch.tensor(3, dtype=dtype))
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-5 if dtype.is_floating_point else 0)


def test_large_values_of_labels_survive():
    source = torch.full((1, 3, 3, 3), 70_000, dtype=torch.int32)
    assert (sample_positions(source, torch.zeros(3, 2, 2, 2), (1, 1, 1), 255.0, nearest=True) == 70_000).all()


def test_every_labelled_voxel_can_be_drawn_and_no_other():
    labels = torch.randint(0, 4, (5, 6, 7), generator=torch.manual_seed(3), dtype=torch.uint8)
    labels[2] = 3  # a slab with nothing labelled
    for without in ((3,), (3, 2)):
        labelled = LabelledVoxels(labels, without)
        drawn = [labelled.voxel(rank) for rank in range(labelled.total)]
        expected = [tuple(v) for v in np.argwhere(~np.isin(labels.numpy(), without)).tolist()]
        assert drawn == expected and len(expected) > 50
    assert LabelledVoxels(torch.full((2, 2, 2), 3), (3,)).total == 0


@pytest.mark.parametrize("value", [0, 2, 9])
def test_voxels_of_a_class_are_drawn_in_the_order_of_the_array(value):
    labels = torch.randint(0, 4, (5, 6, 7), generator=torch.manual_seed(3), dtype=torch.uint8)
    labels[[0, 3]] = 1  # slabs without it
    counted = ClassVoxels(labels, value)
    drawn = [counted.voxel(labels, rank) for rank in range(counted.total)]
    assert drawn == [tuple(v) for v in np.argwhere(labels.numpy() == value).tolist()]
    part = labels[1:4, 2:, ::2]  # a view that lies apart in memory
    assert ClassVoxels(part, value).total == int((part == value).sum())
