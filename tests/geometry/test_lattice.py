from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest

from common.geometry.lattice import OffLattice, lattice_map

RNG = np.random.default_rng(0)


def _oblique(spacing=(0.7, 0.8, 2.5), origin=(11.0, -22.0, 33.0)):
    rotation, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * spacing, origin
    return affine


def _transformed(array, affine, axes, signs):
    """The same voxels in another order, by nibabel."""
    orientation = np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    turned = nibabel.orientations.apply_orientation(array, orientation)
    return turned, affine @ nibabel.orientations.inv_ornt_aff(orientation, array.shape)


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_turned_volumes_come_back_voxel_for_voxel(axes, signs):
    array, affine = RNG.integers(0, 1000, (4, 5, 6)), _oblique()
    turned, other = _transformed(array, affine, axes, signs)
    found = lattice_map(other, affine, turned.shape)
    np.testing.assert_array_equal(found.turn(turned), array)
    assert found.start(turned.shape) == (0, 0, 0)
    assert found.permuted == (axes != (0, 1, 2))


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_a_crop_is_found_where_it_was_cut(axes, signs):
    array, affine = RNG.integers(0, 1000, (7, 8, 9)), _oblique()
    moved = affine.copy()
    moved[:3, 3] = (affine @ [2, 3, 4, 1])[:3]
    crop, other = _transformed(array[2:6, 3:4, 4:9], moved, axes, signs)
    found = lattice_map(other, affine, crop.shape)
    assert found.start(crop.shape) == (2, 3, 4)
    np.testing.assert_array_equal(found.turn(crop), array[2:6, 3:4, 4:9])


def test_every_voxel_centre_keeps_its_place_in_the_world():
    array, affine = RNG.integers(0, 9, (3, 4, 5)), _oblique()
    turned, other = _transformed(array, affine, (1, 2, 0), (-1, 1, -1))
    found = lattice_map(other, affine, turned.shape)
    for voxel in np.ndindex(*turned.shape):
        target = [s * voxel[a] + o for s, a, o in zip(found.signs, found.axes, found.offset, strict=True)]
        np.testing.assert_allclose(affine @ [*target, 1], other @ [*voxel, 1], atol=1e-9)


def test_what_headers_round_is_borne():
    affine = _oblique()
    assert lattice_map(affine.astype(np.float32), affine, (500, 500, 300)).axes == (0, 1, 2)
    fine = np.diag([1e-4, 1e-4, 3e-4, 1.0])
    assert lattice_map(fine, fine, (9, 9, 9)).offset == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "shape", "text"),
    [
        (lambda affine: affine @ np.diag([1, 1, 1.5, 1]), (4, 5, 6), "another spacing: edges 0.7 x 0.8 x 3.75 beside"),
        (lambda affine: affine @ np.diag([2, 2, 2, 1]), (4, 5, 6), "another spacing"),
        (lambda affine: affine @ _turn(10), (4, 5, 6), "another orientation: an axis is turned by 10.0 degrees"),
        (lambda affine: affine @ _shift(0.5), (4, 5, 6), r"another position: its first voxel lies at voxel \(0.5, 0, "),
        (lambda affine: affine @ np.diag([1.001, 1, 1, 1]), (400, 5, 6), "another"),
        (lambda affine: affine @ np.diag([0, 1, 1, 1]), (4, 5, 6), "no inverse"),
    ],
)
def test_what_differs_is_named(change, shape, text):
    affine = np.diag([0.7, 0.8, 2.5, 1.0])
    with pytest.raises(OffLattice, match=text):
        lattice_map(change(affine), affine, shape)


def test_a_thousandth_of_an_edge_matters_over_many_voxels_alone():
    affine = np.diag([0.7, 0.8, 2.5, 1.0])
    assert lattice_map(affine @ np.diag([1.001, 1, 1, 1]), affine, (4, 5, 6)).offset == (0, 0, 0)


def _turn(degrees):
    # seen in voxels of different edges, so that the world's angle is the one given
    angle, edges = np.radians(degrees), np.diag([0.7, 0.8, 2.5, 1.0])
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.linalg.inv(edges) @ rotation @ edges


def _shift(voxels):
    matrix = np.eye(4)
    matrix[0, 3] = voxels
    return matrix
