"""Regions of interest: found in a heat map, scaled, cropped from every scale of a feature pyramid."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.checks import InputError
from common.geometry.boxes import Box
from common.geometry.rois import (
    STRIDES,
    clipped_box,
    locate_rois,
    normalised_heat,
    pad_to_cells,
    pooled_label,
    pyramid_crop,
    pyramid_crops,
    scaled_box,
)


def smooth_heat(shape, seed=0):
    """A map with a few hills, 0 .. 1."""
    noise = np.random.default_rng(seed).normal(size=shape)
    hills = ndimage.gaussian_filter(noise, 1.2)
    return torch.from_numpy((hills - hills.min()) / max(np.ptp(hills), 1e-9)).float()


def slow_rois(heat, threshold, margin, top):
    """Cell by cell, with the components of scipy."""
    labels, found = ndimage.label(heat.numpy() >= threshold, ndimage.generate_binary_structure(3, 2))
    parts = []
    for number in range(1, found + 1):
        cells = [cell for cell in np.ndindex(*labels.shape) if labels[cell] == number]
        start = tuple(max(0, min(cell[axis] for cell in cells) - margin[axis]) for axis in range(3))
        stop = tuple(min(heat.shape[axis], max(cell[axis] for cell in cells) + 1 + margin[axis]) for axis in range(3))
        parts.append((-len(cells), cells[0], Box(start, stop)))
    return [box for _, _, box in sorted(parts)][:top]


@pytest.mark.parametrize("shape", [(6, 11, 13), (1, 12, 12), (5, 1, 9), (1, 1, 1)])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("margin, top", [((1, 2, 2), 10), ((0, 0, 0), None), ((2, 1, 0), 1)])
def test_equals_a_loop_over_cells(shape, threshold, margin, top):
    heat = smooth_heat(shape)
    assert locate_rois(heat, threshold, False, margin, top) == slow_rois(heat, threshold, margin, top)


def test_cells_that_touch_at_an_edge_are_one_region_and_at_a_corner_two():
    heat = torch.zeros(3, 3, 3)
    heat[0, 0, 0] = heat[0, 1, 1] = 1
    assert len(locate_rois(heat, margin=0)) == 1
    heat[0, 1, 1], heat[1, 1, 1] = 0, 1
    assert len(locate_rois(heat, margin=0)) == 2


def test_a_box_reaches_the_border_and_no_further():
    heat = torch.zeros(5, 8, 9)
    heat[0, 0, 0] = heat[4, 7, 8] = 1
    first, last = locate_rois(heat)
    assert first == Box((0, 0, 0), (2, 3, 3))
    assert last == Box((3, 5, 6), (5, 8, 9))


def test_a_map_above_the_threshold_is_one_region_of_everything():
    assert locate_rois(torch.full((3, 5, 4), 0.5)) == [Box((0, 0, 0), (3, 5, 4))]


def test_the_largest_of_many_are_kept():
    heat = torch.zeros(1, 30, 30)
    for index in range(14):
        heat[0, 2 * index, : index + 1] = 0.9
    boxes = locate_rois(heat, margin=0)
    assert [box.size[2] for box in boxes] == list(range(14, 4, -1))
    assert len(locate_rois(heat, margin=0, top=None)) == 14


@pytest.mark.parametrize("normalise, found", [(False, 0), (True, 1)])
def test_a_faint_map_has_a_region_only_when_normalised(normalise, found):
    heat = torch.full((2, 6, 6), 0.01)
    heat[1, 3, 3] = 0.02
    assert len(locate_rois(heat, normalise=normalise)) == found


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_has_none_when_normalised(value):
    assert locate_rois(torch.full((2, 4, 4), value), normalise=True) == []
    assert normalised_heat(torch.full((2, 4, 4), value)).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_normalised_heat_equals_the_formula(dtype):
    heat = smooth_heat((3, 5, 6)).mul(0.5).add(0.1).to(dtype)
    wide = heat.double()
    expected = (wide - wide.min()) / (wide.max() - wide.min())
    torch.testing.assert_close(normalised_heat(heat).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_cells_of_nan_are_never_found_and_hide_no_other(normalise):
    heat = torch.zeros(1, 8, 8)
    heat[0, 0, 0], heat[0, 5, 5] = torch.nan, 0.9
    assert locate_rois(heat, normalise=normalise, margin=0) == [Box((0, 5, 5), (1, 6, 6))]
    assert locate_rois(torch.full((2, 3, 3), torch.nan), normalise=normalise) == []


def test_leading_axes_gradients_and_the_map_itself_are_left_alone():
    heat = smooth_heat((4, 8, 9))
    before = heat.clone()
    assert locate_rois(heat[None, None].requires_grad_()) == locate_rois(heat)
    assert torch.equal(heat, before)
    with pytest.raises(InputError, match="components are those of one volume"):
        locate_rois(torch.zeros(2, 1, 4, 4, 4))


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_another_threshold_is_refused(threshold):
    with pytest.raises(InputError, match="a probability above 0, at most 1"):
        locate_rois(torch.zeros(2, 2, 2), threshold)


@pytest.mark.parametrize("margin", [-1, (1, 2), (0, 0.5, 0), (1, 2, -2)])
def test_another_margin_is_refused(margin):
    with pytest.raises(InputError, match="counts whole cells, 0 or more"):
        locate_rois(torch.zeros(2, 2, 2), margin=margin)


@pytest.mark.parametrize("top", [0, -1, 1.5])
def test_another_number_of_regions_is_refused(top):
    with pytest.raises(InputError, match="at least the largest region is kept"):
        locate_rois(torch.zeros(2, 2, 2), top=top)


def test_a_voxel_lies_at_the_same_place_in_the_crops_of_every_scale():
    """Each scale holds the coordinates of its voxels, so that a crop tells where it was taken."""
    extent = (3, 4, 5)
    features = []
    for stride in STRIDES:
        size = [length * step for length, step in zip(extent, stride)]
        features.append(torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"))[None])
    for start in itertools.product(*map(range, extent)):
        stop = tuple(min(first + 2, length) for first, length in zip(start, extent))
        crops = pyramid_crop(features, Box(start, stop))
        for cell in itertools.product(*(range(b - a) for a, b in zip(start, stop))):
            for crop, stride in zip(crops, STRIDES):
                inside = tuple(slice(i * step, (i + 1) * step) for i, step in zip(cell, stride))
                cells = crop[(0, slice(None), *inside)].flatten(1) // torch.tensor(stride)[:, None]
                assert (cells == torch.tensor([i + first for i, first in zip(cell, start)])[:, None]).all()
                assert cells.shape[1] == np.prod(stride)


def test_crops_are_views():
    features = [torch.zeros(1, 2, 8, 16, 16), torch.zeros(1, 2, 8, 8, 8), torch.zeros(1, 2, 4, 4, 4)]
    for feature, crop in zip(features, pyramid_crop(features, Box((1, 1, 1), (3, 4, 2)))):
        assert crop.untyped_storage().data_ptr() == feature.untyped_storage().data_ptr()
        crop.fill_(1)
        assert feature.sum() == crop.numel()


@pytest.mark.parametrize("box", [Box((0, 0, 0), (5, 1, 1)), Box((-1, 0, 0), (1, 1, 1)), Box((2, 2, 2), (2, 3, 3))])
def test_a_region_that_leaves_the_volume_is_refused(box):
    features = [torch.zeros(1, 2, 8, 16, 16), torch.zeros(1, 2, 8, 8, 8), torch.zeros(1, 2, 4, 4, 4)]
    with pytest.raises(InputError, match="a region lies inside every scale"):
        pyramid_crop(features, box)


def test_scaled_boxes_cover_their_cells_and_are_cut_at_the_border():
    box = Box((1, 0, 2), (3, 4, 3))
    voxels = {
        tuple(index // step for index, step in zip(voxel, STRIDES[0]))
        for voxel in itertools.product(*(range(a, b) for a, b in zip(*scaled_box(box, STRIDES[0]))))
    }
    assert voxels == set(itertools.product(*(range(a, b) for a, b in zip(*box))))
    assert scaled_box(box, 2) == Box((2, 0, 4), (6, 8, 6))
    assert clipped_box(scaled_box(box, STRIDES[0]), (5, 16, 11)) == Box((2, 0, 8), (5, 16, 11))


@pytest.mark.parametrize("shape", [(4, 8, 8), (5, 9, 11), (1, 1, 1), (1, 6, 4), (3, 3, 13)])
def test_pooled_label_and_padding_equal_loops(shape):
    generator = torch.Generator().manual_seed(3)
    label = (torch.rand(2, 2, *shape, generator=generator) < 0.04).to(torch.uint8)
    label[0, 0, -1, -1, -1] = 1
    extent = [-(-length // step) for length, step in zip(shape, STRIDES[0])]
    expected = torch.zeros(2, 2, *extent)
    for voxel in itertools.product(*map(range, shape)):
        cell = tuple(index // step for index, step in zip(voxel, STRIDES[0]))
        expected[(..., *cell)] = torch.maximum(expected[(..., *cell)], label[(..., *voxel)].float())
    assert torch.equal(pooled_label(label), expected)

    volume = torch.randn(2, 1, *shape, generator=generator)
    padded = pad_to_cells(volume)
    assert tuple(padded.shape[2:]) == tuple(length * step for length, step in zip(extent, STRIDES[0]))
    for voxel in itertools.product(*map(range, padded.shape[2:])):
        nearest = tuple(min(index, length - 1) for index, length in zip(voxel, shape))
        assert torch.equal(padded[(..., *voxel)], volume[(..., *nearest)])


def test_whole_cells_are_not_copied():
    volume = torch.zeros(1, 1, 4, 8, 12)
    assert pad_to_cells(volume) is volume


@pytest.mark.gpu
def test_gpu_agrees():
    heat = smooth_heat((6, 20, 24))
    for normalise in (False, True):
        assert locate_rois(heat.cuda(), 0.6, normalise) == locate_rois(heat, 0.6, normalise)


BOXES = [(0, Box((0, 1, 1), (2, 3, 4))), (1, Box((1, 0, 2), (3, 4, 5))), (0, Box((1, 2, 0), (3, 4, 5)))]


def pyramid():
    draw = torch.Generator().manual_seed(0)
    sizes = [(2, 3, 3 * a, 4 * b, 5 * c) for a, b, c in STRIDES]
    return [torch.randn(size, generator=draw, dtype=torch.float64).requires_grad_() for size in sizes]


@pytest.mark.parametrize("boxes", [[], BOXES[:1], BOXES, [(0, Box((0, 0, 0), (3, 4, 5)))] * 2])
@pytest.mark.parametrize("used", [slice(None), slice(1, None)])
def test_crops_at_once_equal_crops_one_by_one_and_so_do_gradients(boxes, used):
    features, alone = pyramid(), pyramid()
    crops = pyramid_crops(features, boxes)
    expected = [pyramid_crop([scale[item : item + 1] for scale in alone], box) for item, box in boxes]
    assert len(crops) == len(boxes)
    for found, other in zip(crops, expected):
        assert len(found) == 3 and all(torch.equal(a, b) for a, b in zip(found, other))
    for several in (crops[used], expected[used]):
        if several:
            sum((crop.sin() * (index + 1)).sum() for part in several for index, crop in enumerate(part)).backward()
    for scale, other in zip(features, alone):
        if other.grad is None:
            assert scale.grad is None
        else:
            torch.testing.assert_close(scale.grad, other.grad)


@pytest.mark.parametrize("items", [1, 2])
def test_the_only_region_may_be_the_whole_volume(items):
    features = [torch.randn(items, 1, 3 * a, 4 * b, 5 * c, requires_grad=True) for a, b, c in STRIDES]
    (crops,) = pyramid_crops(features, [(0, Box((0, 0, 0), (3, 4, 5)))])
    sum(crop.sum() for crop in crops).backward()
    assert all(scale.grad[0].eq(1).all() and scale.grad[1:].eq(0).all() for scale in features)


def test_crops_are_views_and_make_one_gradient_for_each_scale():
    features = pyramid()
    crops = pyramid_crops(features, BOXES)
    for part in crops:
        assert all(crop._is_view() and crop._base is scale for crop, scale in zip(part, features))
    made = []

    class Full(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            storage = result.untyped_storage().data_ptr() if isinstance(result, torch.Tensor) else 0
            if storage and result.shape == features[0].shape and storage not in made:
                made.append(storage)
            return result

    with Full():
        sum(crop.sum() for part in crops for crop in part).backward()
    assert len(made) == 1


def test_a_region_outside_a_scale_is_refused_before_any_is_cut():
    with pytest.raises(InputError, match="a region lies inside every scale"):
        pyramid_crops(pyramid(), [*BOXES, (0, Box((0, 0, 0), (4, 4, 5)))])
