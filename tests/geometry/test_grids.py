"""Grids of tiles, windows that stick out, labels on a finer grid."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.checks import InputError
from common.geometry.grids import argmax_on_grid, first_argmax, label_dtype, read_window, tile_starts, tiling_starts


@pytest.mark.parametrize("core", [1, 3, 4, 7])
@pytest.mark.parametrize("extent", [1, 2, 5, 8, 13])
def test_tiles_cover_an_axis_and_end_with_it(extent, core):
    for step in range(1, core + 1):
        starts = tile_starts(extent, core, step)
        covered = {voxel for start in starts for voxel in range(start, start + core)}
        assert covered >= set(range(extent)) and starts == sorted(set(starts))
        assert all(later - earlier <= step for earlier, later in zip(starts, starts[1:]))
        if extent >= core:
            assert starts[0] == 0 and starts[-1] + core == extent


@pytest.mark.parametrize("core", [4, 5, 7])
@pytest.mark.parametrize("extent", [1, 4, 8, 13, 22])
def test_aligned_tiles_start_on_multiples_and_cover_the_axis(extent, core):
    for align in range(1, core + 1):
        for step in range(1, core + 1):
            starts = tile_starts(extent, core, step, align)
            covered = {voxel for start in starts for voxel in range(start, start + core)}
            assert covered >= set(range(extent)) and all(start % align == 0 for start in starts)


@pytest.mark.parametrize("extent", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("core, shift", [(1, 0), (3, 2), (4, 0), (7, 5)])
def test_a_tiling_covers_every_voxel_once(extent, core, shift):
    covered = [voxel for start in tiling_starts(extent, core, shift) for voxel in range(start, start + core)]
    assert len(covered) == len(set(covered)) and set(covered) >= set(range(extent))


@pytest.mark.parametrize("mode, numpy_mode", [("reflect", "reflect"), ("replicate", "edge"), ("constant", "constant")])
@pytest.mark.parametrize("extent", [(6, 5, 7), (1, 2, 9), (3, 1, 1)])
def test_a_window_equals_one_cut_from_the_padded_volume(extent, mode, numpy_mode):
    volume = torch.rand(2, 3, *extent)
    padded = np.pad(volume.numpy(), [(0, 0), (0, 0)] + [(20, 20)] * 3, mode=numpy_mode)
    for start in [(0, 0, 0), (-1, -7, 0), (-17, 1, -3), (0, -2, 5)]:
        start = tuple(min(first, length - 1) for first, length in zip(start, extent))
        for size in [(1, 8, 2), (20, 11, 17), (4, 3, 4)]:
            expected = padded[(..., *(slice(a + 20, a + 20 + n) for a, n in zip(start, size)))]
            if any(a + n <= 0 for a, n in zip(start, size)):
                continue
            got = read_window(volume, start, size, mode)
            assert tuple(got.shape[2:]) == size and np.array_equal(got.numpy(), expected)


def test_a_window_inside_is_no_copy():
    volume = torch.rand(1, 1, 6, 6, 6)
    assert read_window(volume, (1, 2, 3), (3, 3, 3)).data_ptr() == volume[0, 0, 1, 2, 3].data_ptr()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    "coarse, fine", [((5, 4, 3), (11, 9, 8)), ((6, 7, 8), (3, 9, 8)), ((5, 6), (9, 13)), ((1, 2, 3), (4, 4, 4))]
)
def test_argmax_on_grid_equals_the_argmax_of_all_interpolated_classes(coarse, fine, align_corners):
    scores = torch.randn(2, 7, *coarse)
    mode = "trilinear" if len(coarse) == 3 else "bilinear"
    whole = F.interpolate(scores, size=fine, mode=mode, align_corners=align_corners).argmax(1, keepdim=True)
    got = argmax_on_grid(scores, fine, align_corners)
    assert got.dtype == torch.uint8 and torch.equal(got.long(), whole)


def test_only_one_class_is_held_on_the_fine_grid(monkeypatch):
    made, plain = [], F.interpolate

    def watch(scores, **settings):
        made.append(scores.shape[1])
        return plain(scores, **settings)

    monkeypatch.setattr(F, "interpolate", watch)
    argmax_on_grid(torch.randn(1, 5, 3, 3, 3), (6, 6, 6))
    assert made == [1] * 5


@pytest.mark.parametrize("align_corners, expected", [(False, [0, 0, 0, 1, 1, 1]), (True, [0, 0, 0, 1, 1, 1])])
def test_the_border_between_two_classes_stays_in_the_middle(align_corners, expected):
    scores = torch.tensor([[2.0, -2.0], [-2.0, 2.0]]).reshape(1, 2, 1, 2)
    assert argmax_on_grid(scores, (1, 6), align_corners).flatten().tolist() == expected


def test_equal_scores_give_the_lowest_class():
    planes = torch.randint(0, 3, (6, 200), generator=torch.Generator().manual_seed(0)).float()
    expected = [column.index(max(column)) for column in planes.T.tolist()]
    assert first_argmax(planes).tolist() == expected
    assert label_dtype(256) == torch.uint8 and label_dtype(257) == torch.int32


@pytest.mark.parametrize("shape, size", [((1, 1, 3, 3, 3), (6, 6, 6)), ((1, 2, 3, 3, 3), (6, 6))])
def test_argmax_on_grid_refuses_what_it_cannot_do(shape, size):
    with pytest.raises(InputError, match="at least two classes"):
        argmax_on_grid(torch.zeros(shape), size)
