"""Shape-based interpolation: signed distances against brute force; slopes, cones and balls; several axes; parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.checks import InputError
from common.geometry.slice_interpolation import interpolate_slices, signed_distances

HIDDEN = 7


def kept(dense, planes):
    """A dense label of which only these planes per axis are seen."""
    seen = torch.zeros(dense.shape, dtype=torch.bool)
    for axis, of_axis in enumerate(planes):
        for index in of_axis:
            seen.select(axis, index)[:] = True
    return torch.where(seen, dense, HIDDEN)


def labels_of(*arguments, **options):
    return interpolate_slices(*arguments, **options)[0].argmax(0)


def grid(shape, spacing=(1.0, 1.0, 1.0), middle=None):
    """Coordinates of voxel centres, from the middle of the volume, or from a voxel."""
    middle = middle or [(size - 1) / 2 for size in shape]
    axes = [(torch.arange(size) - at) * step for size, at, step in zip(shape, middle, spacing, strict=True)]
    return torch.meshgrid(*axes, indexing="ij")


def overlap(one, other):
    return float((one & other).sum() / (one | other).sum())


def to_boxes(point, mask, spacing):
    """From a voxel's centre to the nearest of the mask's voxels, by trying each of them."""
    found = [
        np.hypot(*(max(abs(a - b) - 0.5, 0) * step for a, b, step in zip(point, box, spacing, strict=True)))
        for box in np.argwhere(mask)
    ]
    return min(found)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 2.5)])
@pytest.mark.parametrize("hidden", [0.0, 0.6])
def test_signed_distances_are_those_of_brute_force(spacing, hidden):
    random = np.random.default_rng(3)
    plane = random.integers(0, 3, (7, 9)).astype(np.uint8)
    plane[1:5, 2:7] = 1
    plane[random.random(plane.shape) < hidden] = HIDDEN
    found = signed_distances(plane, 3, HIDDEN, spacing, absent=50.0)
    assert found.shape == (3, 7, 9) and found.dtype == np.float32
    for index in range(3):
        inside, others = plane == index, (plane != index) & (plane != HIDDEN)
        for point in np.ndindex(plane.shape):
            expected = to_boxes(point, others, spacing) - to_boxes(point, inside, spacing)
            assert found[(index, *point)] == pytest.approx(expected, abs=1e-5)
        assert (found[index][inside] > 0).all() and (found[index][others] < 0).all()


def test_a_class_that_is_absent_or_alone_in_a_plane():
    plane = np.full((4, 5), 2, dtype=np.uint8)
    plane[0, 0] = HIDDEN
    assert signed_distances(plane, 3, HIDDEN, (1.0, 1.0), absent=6.0)[:, 0, 0].tolist() == [-6, -6, 6]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_between_two_planes_a_straight_edge_is_met_exactly(axis, dtype, spacing):
    # an edge that lies before voxel 4 in the first plane and before voxel 16 in the last moves evenly between
    shape = [9, 20, 7]
    shape[axis], shape[(axis + 1) % 3] = 13, 20
    shape[(axis + 2) % 3] = 6
    across = torch.arange(13.0).view([-1 if a == axis else 1 for a in range(3)])
    along = torch.arange(20.0).view([-1 if a == (axis + 1) % 3 else 1 for a in range(3)])
    depth = (3.5 + across - along).expand(shape)  # voxels behind the edge
    dense = (depth > 0).to(dtype)
    planes = [[], [], []]
    planes[axis] = [0, 12]
    distances, sigma = interpolate_slices(kept(dense, planes), 2, HIDDEN, spacing)
    torch.testing.assert_close(distances[1], depth * spacing[(axis + 1) % 3], atol=1e-3, rtol=0)
    torch.testing.assert_close(distances[0], -distances[1])
    length = (across * (12 - across) / 12 * spacing[axis]).expand(shape)  # 1 / (1 / z_1 + 1 / z_2)
    torch.testing.assert_close(sigma, length, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 4.0)])
def test_a_cone(spacing):
    x, y, z = grid((41, 41, 21))
    cone = (torch.hypot(x, y) < 10 + 0.4 * z).long()
    found = labels_of(kept(cone, [[], [], [0, 20]]), 2, HIDDEN, spacing)
    assert overlap(found == 1, cone == 1) > 0.95


@pytest.mark.parametrize(
    ("planes", "least"), [([[10, 20, 30]] * 3, 0.95), ([[], [], range(5, 36, 5)], 0.93), ([[20]] * 3, 0.85)], ids=str
)
def test_a_ball(planes, least):
    x, y, z = grid((41, 41, 41))
    ball = (x**2 + y**2 + z**2 < 15**2).long()
    found = labels_of(kept(ball, planes), 2, HIDDEN)
    assert overlap(found == 1, ball == 1) > least


def test_more_slices_and_axes_come_nearer():
    x, y, z = grid((33, 35, 37))
    shape = ((x - 3) ** 2 + y**2 * 1.5 + z**2 < 120).long() + ((x + 4) ** 2 + (y - 3) ** 2 + z**2 < 25).long()
    scores = []
    for planes in ([[], [], [18]], [[], [17], [18]], [[], [11, 17, 23], [12, 18, 24]], [range(2, 33, 4)] * 3):
        found = labels_of(kept(shape, planes), 3, HIDDEN)
        scores.append(np.mean([overlap(found == index, shape == index) for index in range(3)]))
    assert scores == sorted(scores) and scores[-1] > 0.85


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.4, 1.0)])
@pytest.mark.parametrize("shape", [(12, 9, 15), (12, 9, 2), (3, 9, 15)])
def test_drawn_planes_are_met_exactly(spacing, shape):
    dense = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(2))
    planes = [[1], [0, 4, 8], [shape[2] - 1]]
    seeds = kept(dense, planes)
    distances, sigma = interpolate_slices(seeds, 4, HIDDEN, spacing)
    drawn = seeds != HIDDEN
    assert torch.equal(distances.argmax(0)[drawn], dense[drawn])
    assert (sigma[drawn] == 0).all() and (sigma[~drawn] > 0).all()


def test_one_plane_is_carried_through_the_volume():
    dense = torch.zeros(8, 9, 10, dtype=torch.long)
    dense[:, 2:5, 3:9] = 2
    found, sigma = interpolate_slices(kept(dense, [[5], [], []]), 3, HIDDEN, (2.0, 1.0, 1.0))
    assert torch.equal(found.argmax(0), dense)
    assert sigma[:, 0, 0].tolist() == pytest.approx([10, 8, 6, 4, 2, 0, 2, 4])
    assert (found[1] == -torch.inf).all()  # never drawn, so nowhere


def test_a_class_tapers_off_towards_a_plane_that_does_not_show_it():
    dense = torch.zeros(21, 21, 11, dtype=torch.long)
    dense[6:15, :, 0] = 1  # 4.5 from its middle to its outline
    found = labels_of(kept(dense, [[], [], [0, 10]]), 2, HIDDEN)
    # at height z: 4.5 (1 - z / 10) against half a mean gap (2.75) times z / 10
    assert found[10, 10].tolist() == [1] * 7 + [0] * 4
    widths = found[:, 10].sum(0).tolist()
    assert widths == sorted(widths, reverse=True) and widths[0] == 9 and widths[2] < 9


def test_an_axis_more_is_turned_with_the_volume_and_scale_means_nothing():
    x, y, z = grid((15, 17, 19))
    dense = (x + 0.5 * y > 1).long() + (z**2 + y**2 < 20).long()
    seeds, spacing = kept(dense, [[3, 12], [8], [4, 9, 15]]), (1.0, 0.5, 2.0)
    distances, sigma = interpolate_slices(seeds, 3, HIDDEN, spacing)
    turned, of_turned = interpolate_slices(seeds.permute(2, 0, 1).flip(0), 3, HIDDEN, (2.0, 1.0, 0.5))
    torch.testing.assert_close(turned.flip(1).permute(0, 2, 3, 1), distances, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(of_turned.flip(0).permute(1, 2, 0), sigma, atol=1e-4, rtol=1e-4)
    small, of_small = interpolate_slices(seeds, 3, HIDDEN, [step / 1000 for step in spacing])
    torch.testing.assert_close(small * 1000, distances, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(of_small * 1000, sigma, atol=1e-3, rtol=1e-3)


def test_planes_that_are_labelled_in_part():
    dense = torch.zeros(20, 20, 9, dtype=torch.long)
    dense[10:] = 1
    seeds = kept(dense, [[], [], [4]])
    seeds[:, 12:] = HIDDEN  # what is not drawn of the plane follows its nearest drawn voxels
    seeds[8:11] = HIDDEN  # the outline itself is not drawn: half way, in row 9
    distances, sigma = interpolate_slices(seeds, 2, HIDDEN)
    found = distances[1, :, :12]
    assert (found[:9] < 0).all() and (found[10:] > 0).all() and found[9].abs().max() < 1
    assert sigma[0, 0, 4] == 0 and sigma[0, 11, 4] == 0
    # 7.5 voxels in the plane to the edge of what is drawn, and 4 across
    assert float(sigma[0, 19, 4]) == pytest.approx(7.5) and float(sigma[0, 19, 0]) == pytest.approx(8.5)


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        (torch.full((5, 6, 7), HIDDEN), "no plane of the seeds is annotated.*or take the random walker"),
        (kept(torch.full((5, 6, 7), 4), [[2], [], []]), "the label holds 4"),
    ],
)
def test_seeds_that_do_not_do(seeds, text):
    with pytest.raises(InputError, match=text):
        interpolate_slices(seeds, 3, HIDDEN)


def test_lines_are_no_planes():
    seeds = torch.full((5, 6, 7), HIDDEN)
    seeds[2, 3] = 1
    with pytest.raises(InputError, match="starts from whole slices"):
        interpolate_slices(seeds, 3, HIDDEN)
