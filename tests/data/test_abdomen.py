from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from common.data.phantoms.abdomen import make_abdomen
from common.data.phantoms.anatomy import (
    Canvas,
    Patient,
    SmoothField,
    ellipsoid,
    push_aside,
    spline_tube,
    tube_distance,
)
from common.data.phantoms.phantom import PhantomCase

SIZE = (144, 116, 96)
ARTERY, VEIN, LIVER, SPLEEN, STOMACH, GALLBLADDER, PANCREAS = range(1, 8)
EVERYWHERE = np.ones((3, 3, 3), bool)


def _case(index: int, size=SIZE, **options) -> PhantomCase:
    return make_abdomen(np.random.default_rng([0, index]), size, index, **options)


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [_case(index) for index in range(3)]


def test_numbers_are_hounsfield_units():
    values = _case(0, (40, 32, 28)).image
    assert values.min() >= -1024 and values.max() <= 3071 and np.median(values[0]) < -900


@pytest.mark.parametrize("index", range(6))
def test_every_structure_is_there_on_a_small_grid(index):
    assert set(np.unique(_case(index, (64, 56, 48)).label)) == set(range(8))


def test_equal_seeds_make_equal_bytes_and_others_another_anatomy():
    first, again, other = (_case(index, (48, 40, 36)) for index in (0, 0, 1))
    assert first.image.tobytes() == again.image.tobytes() and first.label.tobytes() == again.label.tobytes()
    for value in (LIVER, STOMACH, SPLEEN):
        a, b = first.label == value, other.label == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) < 0.85


def _core(mask: np.ndarray) -> np.ndarray:
    core = ndimage.binary_erosion(mask, iterations=2)
    return core if core.sum() > 20 else ndimage.binary_erosion(mask)


@pytest.mark.parametrize(
    ("value", "low", "high", "spread"),
    [
        (ARTERY, 130, 180, 30),
        (VEIN, 145, 190, 30),
        (LIVER, 95, 130, 25),
        (SPLEEN, 105, 138, 25),
        (GALLBLADDER, -5, 25, 25),
        (PANCREAS, 75, 120, 40),
    ],
)
def test_brightness_of_the_structures(cases, value, low, high, spread):
    for case in cases:
        values = case.image[_core(case.label == value)]
        assert low < np.median(values) < high and 3 < values.std() < spread


def test_volumes_are_a_patients(cases):
    bounds = {
        ARTERY: (40, 160),
        VEIN: (25, 90),
        LIVER: (900, 2000),
        SPLEEN: (50, 300),
        STOMACH: (150, 650),
        GALLBLADDER: (10, 80),
        PANCREAS: (30, 130),
    }
    for case in cases:
        millilitres = np.bincount(case.label.ravel(), minlength=8) * np.prod(case.spacing) / 1000
        for value, (low, high) in bounds.items():
            assert low < millilitres[value] < high, value
        assert 0.03 < (case.label > 0).mean() < 0.09


def test_the_stomach_holds_wall_fluid_and_gas(cases):
    for case in cases:
        stomach = case.label == STOMACH
        gas = stomach & (case.image < -700)
        assert 0.03 < gas.sum() / stomach.sum() < 0.6
        # The patient lies supine: gas at the front, which is where y grows.
        _, front, _ = np.nonzero(gas)
        _, rest, _ = np.nonzero(stomach & (case.image > -100))
        assert front.mean() > rest.mean() + 20 / case.spacing[1]
        wall = stomach & ~ndimage.binary_erosion(stomach)
        assert 20 < np.median(case.image[wall & (case.image > -50)]) < 110


def test_organs_touch(cases):
    def contact(case: PhantomCase, first: int, second: int) -> int:
        return int((ndimage.binary_dilation(case.label == first) & (case.label == second)).sum())

    for case in cases:
        for pair in ((LIVER, GALLBLADDER), (LIVER, STOMACH), (PANCREAS, VEIN), (VEIN, LIVER)):
            assert contact(case, *pair) >= 10, pair
    for pair in ((PANCREAS, STOMACH), (SPLEEN, STOMACH)):
        assert sum(contact(case, *pair) > 0 for case in cases) >= 2, pair


def test_structures_are_in_one_piece(cases):
    for case in cases:
        for value in range(1, 8):
            parts, _ = ndimage.label(case.label == value, EVERYWHERE)
            sizes = np.bincount(parts.ravel())[1:]
            assert sizes.max() > 0.9 * sizes.sum(), value


def test_vessels_branch_and_are_thin(cases):
    for case in cases:
        for value, trunk in ((ARTERY, 14), (VEIN, 11)):
            vessel = case.label == value
            depth = ndimage.distance_transform_edt(vessel, sampling=case.spacing)
            assert depth.max() < trunk
            # Cutting away what is thick leaves many thin branches.
            thick = ndimage.distance_transform_edt(depth < 4, sampling=case.spacing) < 6
            parts, count = ndimage.label(vessel & ~thick, EVERYWHERE)
            assert (np.bincount(parts.ravel())[1:] > 10).sum() >= 3
        vein_in_liver = (case.label == VEIN) & ndimage.binary_closing(case.label == LIVER, iterations=5)
        assert 0.1 < vein_in_liver.sum() / (case.label == VEIN).sum() < 0.9


def test_borders_are_mixtures():
    case = _case(0, noise=0)
    liver, image = case.label == LIVER, case.image.astype(float)
    inside = ndimage.binary_erosion(liver, iterations=3)
    # Where liver meets fat, voxels at the border hold some of both.
    band = ndimage.binary_dilation(liver, iterations=2) & ~ndimage.binary_erosion(liver, iterations=2)
    mixed = band & (image > -70) & (image < np.median(image[inside]) - 45)
    near_fat = ndimage.binary_dilation(image < -90, iterations=3)
    assert mixed.sum() > 0.15 * (band & near_fat).sum() > 100


def test_noise_is_of_the_asked_strength_and_has_a_grain():
    size, options = (96, 80, 40), {"field_of_view": (400, 320, 160)}
    quiet, loud = (_case(2, size, noise=level, **options) for level in (0, 20))
    np.testing.assert_array_equal(quiet.label, loud.label)
    noise = (loud.image.astype(float) - quiet.image)[32:64, 28:52]
    assert noise.std() == pytest.approx(20, rel=0.15) and abs(noise.mean()) < 1
    beside = np.mean(noise[1:] * noise[:-1]) / noise.var()
    further = np.mean(noise[4:] * noise[:-4]) / noise.var()
    assert 0.15 < beside < 0.8 and further < 0.15


def test_the_body_fills_its_share_and_the_table_lies_apart(cases):
    for case in cases:
        solid = ndimage.binary_opening(case.image > -500)
        parts, count = ndimage.label(solid)
        body = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
        body = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(body, -1, 0)], -1)
        assert 0.3 < body.mean() < 0.55 and not (body[0].any() or body[-1].any() or body[:, 0].any())
        assert (case.label > 0)[~body].sum() == 0
        beneath = (case.image > -500) & ~ndimage.binary_dilation(body, iterations=2)
        _, rows, _ = np.nonzero(beneath)
        assert np.percentile(rows, 95) < np.nonzero(body)[1].mean() - 70 / case.spacing[1]


def test_unlabelled_tissue_looks_like_the_organs(cases):
    for case in cases:
        background = ndimage.binary_erosion(case.label == 0, iterations=2)
        millilitre = np.prod(case.spacing) / 1000
        smooth = ndimage.gaussian_filter(case.image.astype(float), 1)
        # Cava, heart and coils like vessels; muscle and coils like pancreas; gas in the colon like gas in the stomach.
        for low, high, least in ((135, 185, 150), (75, 115, 80), (-30, 40, 200)):
            assert (background & (smooth > low) & (smooth < high)).sum() * millilitre > least


def test_no_interval_of_brightness_finds_a_structure(cases):
    edges = np.arange(-1024, 401, 8)
    for value in (ARTERY, VEIN, STOMACH, GALLBLADDER, PANCREAS):
        for case in cases:
            smooth, truth = ndimage.gaussian_filter(case.image.astype(float), 0.8), case.label == value
            found, _ = np.histogram(smooth, edges)
            right, _ = np.histogram(smooth[truth], edges)
            # Every interval at once, from differences of cumulative counts.
            found, right = (np.concatenate([[0], np.cumsum(one)]) for one in (found, right))
            low, high = np.triu_indices(len(found), 1)
            dice = 2 * (right[high] - right[low]) / (found[high] - found[low] + truth.sum())
            assert 0 < dice.max() < 0.6, value


def test_smooth_field_agrees_with_itself_and_has_unit_variance():
    field = SmoothField((400.0, 300.0, 200.0), 20.0, np.random.default_rng(0), 3)
    axes = [np.linspace(0, edge, n) for edge, n in ((400, 41), (300, 36), (200, 27))]
    values = field.on_axes(axes)
    assert values.shape == (3, 41, 36, 27) and values.dtype == np.float32
    np.testing.assert_allclose(values.std(axis=(1, 2, 3)), 1, rtol=0.1)
    # Half the distance of control points apart, and four times it.
    assert (values[:, 1:] * values[:, :-1]).mean() > 0.7 > 0.1 > abs((values[:, 8:] * values[:, :-8]).mean())
    picked = np.random.default_rng(1).integers(0, (41, 36, 27), (50, 3))
    points = np.stack([axis[k] for axis, k in zip(axes, picked.T)], 1)
    np.testing.assert_allclose(field.at(points), values[(slice(None), *picked.T)].T, atol=1e-4)


def test_a_place_in_the_patient_is_found_again():
    patient = Patient((80, 64, 60), (5.0, 5.0, 5.0), np.random.default_rng(3))
    points = np.random.default_rng(0).uniform(-80, 80, (40, 3))
    voxels = patient.locate(points) / patient.spacing - 0.5
    found = [ndimage.map_coordinates(one, voxels.T, order=1) for one in patient.coordinates]
    np.testing.assert_allclose(np.stack(found, 1), points, atol=0.3)
    box = patient.box((-30, -20, -10), (30, 20, 10))
    x, y, z = patient.coordinates
    outside = np.ones(patient.shape, bool)
    outside[box] = False
    assert not (outside & (abs(x) < 30) & (abs(y) < 20) & (abs(z) < 10)).any()


def test_distance_to_an_ellipsoid():
    at = np.meshgrid(*[np.linspace(-20, 20, 33)] * 3, indexing="ij")
    radius = np.sqrt((at[0] - 1) ** 2 + (at[1] - 2) ** 2 + (at[2] + 3) ** 2)
    np.testing.assert_allclose(ellipsoid(at, (1, 2, -3), (8, 8, 8)), radius - 8, atol=1e-4)
    long = ellipsoid(at, (0, 0, 0), (16, 6, 6), (0, 0, 90))
    inside = (at[0] / 6) ** 2 + (at[1] / 16) ** 2 + (at[2] / 6) ** 2 < 1
    np.testing.assert_array_equal((long < 0)[~np.isclose(long, 0, atol=1e-3)], inside[~np.isclose(long, 0, atol=1e-3)])
    slope = np.linalg.norm(np.gradient(long, 1.25), axis=0)[np.abs(long) < 2]
    assert np.percentile(np.abs(slope - 1), 98) < 0.2


def test_a_voxel_cut_in_two_is_a_mixture():
    patient = Patient((40, 16, 16), (2.0, 2.0, 2.0), np.random.default_rng(0))
    canvas = Canvas(patient, -1000.0)
    plane = np.broadcast_to(patient.axes[0][:, None, None] - np.float32(20.5), patient.shape)
    canvas.paint((slice(None),) * 3, plane, 100.0, 3)
    np.testing.assert_allclose(canvas.values[8:12, 0, 0], (100, 100, 0.25 * 100 - 0.75 * 1000, -1000))
    np.testing.assert_array_equal(canvas.label[8:12, 0, 0], (3, 3, 0, 0))


def test_a_tube_is_led_round_another():
    obstacle = spline_tube([(0, 0, -50), (0, 0, 0), (0, 0, 50)], [12, 12, 12])
    tube = spline_tube([(-60, 3, 0), (0, 3, 0), (60, 3, 0)], [3, 3, 3])
    assert tube_distance(tube.points, obstacle).min() < -8
    moved = push_aside(tube, obstacle, 2.0)
    assert tube_distance(moved.points, obstacle).min() > 3 + 2 - 1.5
    np.testing.assert_allclose(moved.points[[0, -1]], tube.points[[0, -1]], atol=1e-6)
    far = push_aside(tube, spline_tube([(0, 99, -50), (0, 99, 50)], [9, 9]), 2.0)
    np.testing.assert_array_equal(far.points, tube.points)
