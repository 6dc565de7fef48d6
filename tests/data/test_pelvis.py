from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from common.data.phantoms.anatomy import Patient
from common.data.phantoms.mr import LAYERS, SpinEcho, Tissue, coil_sensitivity, majority, measure
from common.data.phantoms.pelvis import TISSUES, make_pelvis
from common.data.phantoms.phantom import PhantomCase, is_without

SIZE = (96, 88, 28)
EVERYWHERE = np.ones((3, 3, 3), bool)


def _case(index: int, size=SIZE, **options) -> PhantomCase:
    return make_pelvis(np.random.default_rng([0, index]), size, index, **options)


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [_case(index) for index in range(8)]


@pytest.fixture(scope="module")
def pair() -> tuple[PhantomCase, PhantomCase]:
    """The middle of the same pelvis without and with its tumour, at about 1 mm, free of noise."""
    options = {"noise": 0, "field_of_view": (130, 140, 120)}
    return tuple(_case(3, (130, 140, 24), no_tumour=share, **options) for share in (1, 0))


def _body(case: PhantomCase) -> np.ndarray:
    parts, _ = ndimage.label(
        ndimage.gaussian_filter(case.image.astype(float), 1) > 0.15 * np.percentile(case.image, 95)
    )
    body = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(body, -1, 0)], -1)


def test_equal_seeds_make_equal_bytes_and_others_another_anatomy():
    first, again, other = (_case(index, (48, 44, 20)) for index in (0, 0, 1))
    assert first.image.tobytes() == again.image.tobytes() and first.label.tobytes() == again.label.tobytes()
    overlap = 2 * (first.label & other.label).sum() / (first.label.sum(dtype=int) + other.label.sum(dtype=int))
    assert overlap < 0.7


def test_every_case_has_one_tumour_of_a_patients_size(cases):
    for case in cases:
        parts, _ = ndimage.label(case.label, EVERYWHERE)
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() > 0.97 * sizes.sum()
        assert 4 < sizes.sum() * np.prod(case.spacing) / 1000 < 70


@pytest.mark.parametrize("index", range(6))
def test_the_tumour_is_there_on_a_small_grid(index):
    case = _case(index, (36, 32, 14))
    assert case.label.any() and set(np.unique(case.label)) == {0, 1}


def test_volume_length_side_and_shape_vary(cases):
    volumes, lengths, angles, filled = [], [], [], []
    for case in cases:
        places = np.argwhere(case.label == 1) * case.spacing
        volumes.append(len(places) * np.prod(case.spacing))
        lengths.append(np.ptp(places[:, 2]))
        # Towards which side the tumour lies of the middle of the rectum, about that of what it encloses or lines.
        low, high = places.min(0), places.max(0)
        angles.append(np.arctan2(*(places.mean(0) - (low + high) / 2)[:2]))
        filled.append(volumes[-1] / np.prod(high - low))
    assert max(volumes) > 2 * min(volumes) and max(lengths) > 1.5 * min(lengths)
    assert np.ptp(angles) > 2 and max(filled) > 1.3 * min(filled)


def test_no_interval_of_brightness_finds_the_tumour(cases):
    for case in cases:
        truth = case.label == 1
        for image in (case.image, ndimage.gaussian_filter(case.image.astype(float), 0.8)):
            edges = np.linspace(0, np.percentile(image, 99.5), 200)
            found, _ = np.histogram(image, edges)
            right, _ = np.histogram(image[truth], edges)
            # Every interval at once, from differences of cumulative counts.
            found, right = (np.concatenate([[0], np.cumsum(one)]) for one in (found, right))
            low, high = np.triu_indices(len(found), 1)
            dice = 2 * (right[high] - right[low]) / (found[high] - found[low] + truth.sum())
            assert 0 < dice.max() < 0.2


def test_solid_pieces_of_other_tissue_are_as_bright_as_the_tumour(cases):
    for case in cases:
        smooth = ndimage.gaussian_filter(case.image.astype(float), 0.5)
        inside = smooth[ndimage.binary_erosion(case.label == 1)]
        low, high = np.percentile(inside, (15, 85))
        alike = (smooth > low) & (smooth < high) & ~ndimage.binary_dilation(case.label == 1, iterations=2)
        pieces, count = ndimage.label(ndimage.binary_opening(alike))
        assert (np.bincount(pieces.ravel())[1:] * np.prod(case.spacing) > 500).sum() >= 3
        assert alike.sum() > 2 * (case.label == 1).sum()


def test_the_scale_of_the_numbers_is_arbitrary(cases):
    tops = [np.percentile(case.image, 95) for case in cases]
    assert max(tops) > 2 * min(tops) and min(tops) > 100


def test_the_body_lies_in_air_that_is_noise_alone(cases):
    for case in cases:
        body = _body(case)
        assert 0.35 < body.mean() < 0.85 and not (case.label == 1)[~body].any()
        air = case.image[~ndimage.binary_dilation(body, iterations=3)].astype(float)
        # Rayleigh: the mean of a magnitude without signal is 1.91 standard deviations.
        assert len(air) > 1000 and air.mean() / air.std() == pytest.approx(1.913, rel=0.06)


def test_a_case_without_tumour_is_the_same_pelvis(pair):
    healthy, ill = pair
    assert not healthy.label.any() and ill.label.any()
    near = ndimage.binary_dilation(ill.label == 1, EVERYWHERE, iterations=4)
    np.testing.assert_array_equal(healthy.image[~near], ill.image[~near])


def test_the_tumour_interrupts_the_dark_ring_of_muscle(pair):
    healthy, ill = pair
    tumour = ill.label == 1
    grey = np.median(ill.image[ndimage.binary_erosion(tumour)])
    ring = tumour & (healthy.image < 0.7 * grey)
    assert ring.sum() > 0.08 * tumour.sum()
    assert (ill.image[ring] > 0.75 * grey).mean() > 0.85


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0, []),
        (0.25, [3, 7]),
        (0.5, [1, 3, 5, 7]),
        (1.0, list(range(8))),
        (0.3, [3, 6]),
    ],
)
def test_share_of_cases_without_tumour(share, expected):
    assert [index for index in range(8) if is_without(index, share)] == expected


def test_asking_for_no_tumour_leaves_it_out():
    labels = [_case(index, (36, 32, 14), no_tumour="0.5").label for index in (0, 1)]
    assert labels[0].any() and not labels[1].any()


def test_no_size_is_too_small():
    case = _case(0, (8, 8, 8))
    assert case.image.shape == case.label.shape == (8, 8, 8) and case.image.std() > 0
    shallow = _case(0, (40, 36, 8), field_of_view=(330, 250, 30))
    assert shallow.image.shape == (40, 36, 8)


@pytest.mark.parametrize("echo", [80, 100, 120])
def test_brightness_follows_relaxation(echo):
    sequence = SpinEcho(4000, echo)
    order = [sequence(TISSUES[name]) for name in ("cortex", "muscle", "mucosa", "submucosa", "fluid")]
    assert order == sorted(order) and order[0] < 0.001
    assert SpinEcho(4000, echo + 20)(TISSUES["muscle"]) < sequence(TISSUES["muscle"])
    assert sequence(Tissue(1e9, 1e-3, 0.7)) == pytest.approx(0.7)


def test_a_slice_is_the_mean_of_its_layers():
    fine = np.zeros((6, 6, 2 * LAYERS), np.float32)
    fine[..., 2] = fine[..., 3:] = 9
    label = (fine > 0).astype(np.uint8)
    flat = np.ones((6, 6, 2), np.float32)
    shown = measure(fine, flat, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(shown.mean(-1), 6, rtol=1e-5)
    assert (shown[..., 0] < 3.5).all() and (shown[..., 1] > 8.5).all()
    np.testing.assert_array_equal(majority(label)[0, 0], (0, 1))
    label[..., 1] = 1
    np.testing.assert_array_equal(majority(label)[0, 0], (1, 1))


@pytest.mark.parametrize(("signal", "mean", "spread"), [(0.0, 1.2533, 0.6551), (30.0, 30.0167, 1.0)])
def test_noise_of_a_magnitude(signal, mean, spread):
    fine = np.full((60, 60, 20 * LAYERS), signal, np.float32)
    shown = measure(fine, np.ones((60, 60, 20), np.float32), 1.0, np.random.default_rng(0))
    assert shown.min() >= 0
    assert shown.mean() == pytest.approx(mean, rel=0.01) and shown.std() == pytest.approx(spread, rel=0.02)


def test_coils_light_what_is_near_them():
    patient = Patient((40, 30, 12 * LAYERS), (8.0, 8.0, 4.0), np.random.default_rng(0))
    field = coil_sensitivity(patient, 0.0, np.random.default_rng(1))
    assert field.shape == (40, 30, 12) and field.mean() == pytest.approx(1, rel=1e-5)
    rows = field[20, :, 6]
    assert rows[:4].mean() > 1.3 * rows[13:17].mean() and rows[-4:].mean() > 1.3 * rows[13:17].mean()
    assert np.abs(np.diff(field, axis=1)).max() < 0.3  # smooth
    np.testing.assert_allclose(coil_sensitivity(patient, 1.0, np.random.default_rng(1)), 1, rtol=1e-5)
