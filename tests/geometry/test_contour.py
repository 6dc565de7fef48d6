"""The inner contour against a loop over voxels and their neighbours."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.geometry.contour import inner_contour

SHAPES = [(4, 6, 7), (1, 9, 8), (5, 1, 6), (3, 7, 1), (1, 1, 1)]


def blobs(shape, share=0.75, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def slow_contour(label, axis):
    """Object voxels of which one of the eight neighbours in the slice is inside the volume and background."""
    contour = torch.zeros(label.shape, dtype=torch.bool)
    plane = [other for other in range(3) if other != axis]
    for voxel in itertools.product(*map(range, label.shape)):
        for steps in itertools.product((-1, 0, 1), repeat=2):
            near = list(voxel)
            for other, step in zip(plane, steps):
                near[other] += step
            inside = all(0 <= index < length for index, length in zip(near, label.shape))
            if label[voxel] and inside and not label[tuple(near)]:
                contour[voxel] = True
    return contour


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_equals_a_loop_over_neighbours(shape, share, axis):
    label = blobs(shape, share)
    assert torch.equal(inner_contour(label, axis), slow_contour(label, axis))


def test_equals_the_label_less_its_eroded_slices():
    label = blobs((5, 20, 24), 0.9)
    core = np.stack([ndimage.binary_erosion(plane, np.ones((3, 3)), border_value=1) for plane in label.numpy()])
    contour = inner_contour(label)
    assert np.array_equal(contour.numpy(), label.numpy() & ~core)
    assert contour.any() and not contour.all() and core.any()


def test_a_square_has_a_frame_of_one_voxel_in_every_slice():
    label = torch.zeros(3, 9, 9)
    label[:, 2:7, 1:8] = 1
    contour = inner_contour(label)
    hole = torch.zeros(3, 9, 9, dtype=torch.bool)
    hole[:, 3:6, 2:7] = True
    assert torch.equal(contour, label.bool() & ~hole)  # the end slices are no contour: the plane alone counts


def test_what_is_thin_is_contour_altogether():
    label = torch.zeros(2, 8, 8)
    label[0, 3:5, 1:7], label[1, 2, 2] = 1, 1
    assert torch.equal(inner_contour(label), label.bool())


def test_the_border_of_the_volume_makes_no_contour():
    label = torch.zeros(1, 6, 6)
    label[:, :, :3] = 1
    expected = torch.zeros(1, 6, 6, dtype=torch.bool)
    expected[:, :, 2] = True
    assert torch.equal(inner_contour(label), expected)


@pytest.mark.parametrize("label", [torch.zeros(3, 5, 6), torch.ones(3, 5, 6)])
def test_nothing_and_everything_have_none(label):
    assert not inner_contour(label).any()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_leading_items_are_taken_by_themselves_and_left_as_they_were(dtype):
    label = blobs((2, 3, 4, 7, 6)).to(dtype)
    before = label.clone()
    contour = inner_contour(label)
    assert contour.dtype == torch.bool and torch.equal(label, before)
    for item, channel in itertools.product(range(2), range(3)):
        assert torch.equal(contour[item, channel], inner_contour(label[item, channel]))


def test_metadata_survive():
    label = MetaTensor(blobs((1, 4, 7, 6)).float(), affine=torch.diag(torch.tensor([4.0, 1.0, -1.0, 1.0])))
    contour = inner_contour(label)
    assert isinstance(contour, MetaTensor) and torch.equal(contour.affine, label.affine)
    assert torch.equal(contour.as_tensor(), inner_contour(label.as_tensor()))


@pytest.mark.parametrize("shape, axis", [((5, 6), 0), ((3, 5, 6), 3), ((3, 5, 6), -1)])
def test_other_axes_are_refused(shape, axis):
    with pytest.raises(InputError, match=f"axis={axis}: slices lie across one of the last three axes"):
        inner_contour(torch.ones(shape), axis)


@pytest.mark.gpu
def test_gpu_agrees():
    label = blobs((2, 1, 9, 33, 31), 0.9)
    assert torch.equal(inner_contour(label.cuda()).cpu(), inner_contour(label))
