from __future__ import annotations

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from common.checks import InputError
from common.data import phantom_dataset, training_cases
from common.data.decathlon import write_volume
from common.data.phantoms import head_neck
from common.data.phantoms.head_neck import GLAND, OTHER_VESSEL, SIZE, WANTED, make_head_neck, paint_head_neck
from common.data.phantoms.neck_vessels import Vessel, draw_vessels

SMALL = (40, 96, 80)
TINY = (24, 40, 32)
EVERYWHERE = np.ones((3, 3, 3), bool)


def _case(index: int, size=SMALL, **options):
    return make_head_neck(np.random.default_rng([0, index]), size, index, **options)


@pytest.fixture(scope="module")
def cases():
    return [_case(index) for index in range(4)]


@pytest.fixture(scope="module")
def tiny():
    return [_case(index, TINY) for index in range(4)]


@pytest.fixture(scope="module")
def large():
    return _case(0, SIZE)


@pytest.fixture(scope="module")
def painted():
    return [paint_head_neck(np.random.default_rng(seed), SMALL, head_neck.FIELD_OF_VIEW)[0] for seed in range(4)]


@pytest.fixture(scope="module")
def trees() -> list[list[Vessel]]:
    return [draw_vessels(np.random.default_rng(seed), 0.9) for seed in range(5)]


def test_equal_seeds_make_equal_bytes_and_others_another_anatomy(tiny):
    first, other, again = tiny[0], tiny[1], _case(0, TINY)
    assert first.image.tobytes() == again.image.tobytes() and first.label.tobytes() == again.label.tobytes()
    overlap = 2 * (first.label & other.label).sum() / (first.label.sum(dtype=int) + other.label.sum(dtype=int))
    assert overlap < 0.7


def test_so_few_voxels_are_wanted_at_full_size(large):
    assert large.image.shape == large.label.shape == SIZE
    assert large.image.dtype == np.int16 and large.label.dtype == np.uint8 and set(np.unique(large.label)) == {0, 1}
    assert 0.002 < large.label.mean() < 0.005


def test_and_more_on_coarse_grids(cases, tiny):
    assert all(0.003 < case.label.mean() < 0.009 for case in cases)
    assert all(0.012 < case.label.mean() < 0.035 for case in tiny)


def test_the_tree_hangs_together_from_the_neck_to_the_head(cases, tiny, large):
    for case in (*cases, *tiny, large):
        _, count = ndimage.label(case.label, EVERYWHERE)
        assert 1 <= count <= 3
        heights = np.flatnonzero(case.label.any(axis=(0, 2)))
        assert heights[0] == 0 and heights[-1] > 0.8 * case.label.shape[1]
        assert len(heights) == heights[-1] + 1


def test_tubes_of_the_wanted_tree_touch(trees):
    for vessels in trees:
        left = [vessel.tube for vessel in vessels if vessel.wanted]
        reached = [left.pop()]
        for tube in reached:
            near = [other for other in left if _gap(tube, other).min() < 0]
            reached += near
            left = [other for other in left if not any(other is one for one in near)]
        assert not left


def test_other_vessels_pass_close_by_and_hardly_touch(trees):
    for vessels in trees:
        wanted = [vessel.tube for vessel in vessels if vessel.wanted]
        gaps = np.concatenate(
            [
                np.min([_gap(vessel.tube, tube).min(axis=1) for tube in wanted], axis=0)
                for vessel in vessels
                if not vessel.wanted
            ]
        )
        # Only where the external carotids leave the fork.
        assert 0 < (gaps < 0).mean() < 0.02 and (gaps < 4).mean() > 0.04


def _gap(first, second) -> np.ndarray:
    apart = np.linalg.norm(first.points[:, None] - second.points, axis=2)
    return apart - first.outer[:, None] - second.outer


def test_wanted_vessels_come_last_so_that_nothing_covers_them(trees):
    for vessels in trees:
        flags = [vessel.wanted for vessel in vessels]
        assert flags == sorted(flags) and 14 <= sum(flags) <= 17 and flags.count(False) > 15


def test_other_vessels_are_longer_and_as_wide_as_those_that_are_wanted(trees):
    for kind in (np.mean, lambda radii: np.percentile(radii, 90)):
        wide = [
            kind(np.concatenate([one.tube.outer for vessels in trees for one in vessels if one.wanted == flag]))
            for flag in (True, False)
        ]
        assert wide[0] == pytest.approx(wide[1], rel=0.15)
    counts = [sum(len(one.tube.points) for vessels in trees for one in vessels if one.wanted == f) for f in (1, 0)]
    assert counts[1] > 1.5 * counts[0]


def test_turbulence_takes_signal_from_vessels_of_both_kinds(trees):
    for flag in (True, False):
        flow = np.concatenate([one.flow for vessels in trees for one in vessels if one.wanted == flag])
        assert len(flow) % 101 == 0 and flow.min() < 0.2 and flow.max() == 1 and 0.01 < (flow < 0.6).mean() < 0.1


def test_vessels_have_gaps_that_stay_labelled(large):
    image = ndimage.uniform_filter(large.image.astype(float), 3)
    core = ndimage.binary_erosion(large.label)
    dark = (image < 0.5 * np.median(image[core])) & core
    assert 0.002 < dark.sum() / core.sum() < 0.15


def test_other_vessels_are_as_bright_as_those_that_are_wanted(painted):
    wanted, other = (
        np.concatenate([one.values[one.label == kind] for one in painted]) for kind in (WANTED, OTHER_VESSEL)
    )
    grid = np.linspace(0, 1.5, 200)
    shares = [np.searchsorted(np.sort(values), grid) / len(values) for values in (wanted, other)]
    assert np.abs(shares[0] - shares[1]).max() < 0.06  # Kolmogorov's distance
    assert len(other) > 1.5 * len(wanted)
    glands = np.concatenate([one.values[one.label == GLAND] for one in painted])
    assert np.median(glands) > 0.75 * np.median(wanted)


def test_no_threshold_finds_the_wanted_vessels(cases, large):
    for case in (*cases, large):
        truth = case.label == 1
        for image in (case.image, ndimage.gaussian_filter(case.image.astype(float), 0.7)):
            values = np.sort(image.ravel())
            inside = np.sort(image[truth])
            levels = np.percentile(inside, np.arange(100))
            found = len(values) - np.searchsorted(values, levels)
            right = len(inside) - np.searchsorted(inside, levels)
            assert 0.2 < (2 * right / (found + len(inside))).max() < 0.6


def test_the_largest_bright_piece_is_not_the_tree(cases):
    for case in cases:
        truth = case.label == 1
        parts, _ = ndimage.label(case.image > np.percentile(case.image[truth], 30), EVERYWHERE)
        piece = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
        assert 2 * (piece & truth).sum() / (piece.sum() + truth.sum()) < 0.7


def test_the_image_is_what_was_painted_with_axes_to_front_head_and_right(monkeypatch):
    kept = []
    monkeypatch.setattr(head_neck, "paint_head_neck", lambda *given: kept.append(paint_head_neck(*given)) or kept[0])
    case = _case(0, noise=0)
    canvas, patient = kept[0]
    np.testing.assert_array_equal(case.label, (canvas.label == WANTED).transpose(1, 2, 0))
    assert np.corrcoef(case.image.ravel(), canvas.values.transpose(1, 2, 0).ravel())[0, 1] > 0.9
    np.testing.assert_allclose(case.spacing, patient.spacing[[1, 2, 0]])
    assert case.orientation == "ASR"


def test_files_say_where_their_axes_point(tmp_path):
    folder = phantom_dataset("head_neck_mra", cases=1, size=TINY, cache_dir=tmp_path)
    for path in training_cases(folder)[0]["image"], training_cases(folder)[0]["label"]:
        stored = nibabel.load(path)
        assert stored.shape == TINY and nibabel.aff2axcodes(stored.affine) == ("A", "S", "R")
    expected = np.divide(head_neck.FIELD_OF_VIEW, TINY)
    np.testing.assert_allclose(stored.header.get_zooms(), expected, rtol=0.06)


@pytest.mark.parametrize("orientation", ["RAS", "ASR", "LPS", "PIR"])
def test_volumes_are_written_in_any_orientation(tmp_path, orientation):
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_volume(tmp_path / "a.nii.gz", volume, (0.5, 2.0, 3.0), "mm", orientation)
    stored = nibabel.load(tmp_path / "a.nii.gz")
    assert "".join(nibabel.aff2axcodes(stored.affine)) == orientation
    np.testing.assert_allclose(stored.header.get_zooms(), (0.5, 2.0, 3.0))
    np.testing.assert_array_equal(np.asarray(stored.dataobj), volume)


def test_air_is_noise_alone():
    case = _case(1, noise=6)
    air = case.image[:, 34:42, :5].astype(float)  # beside the neck
    # Rayleigh: the mean of a magnitude without signal is 1.91 standard deviations.
    assert air.min() >= 0 and air.mean() / air.std() == pytest.approx(1.913, rel=0.1)
    assert not _case(1, noise=0).image[:, 34:42, :5].any()


def test_the_scale_of_the_numbers_is_arbitrary(cases):
    tops = [np.percentile(case.image[case.label == 1], 90) for case in cases]
    assert max(tops) > 1.5 * min(tops) and min(tops) > 100


def test_no_size_is_too_small():
    case = _case(0, (8, 8, 8))
    assert case.image.shape == case.label.shape == (8, 8, 8) and case.image.std() > 0


def test_a_field_of_view_crops():
    case = _case(0, TINY, field_of_view="40,80,90")
    np.testing.assert_allclose(case.spacing, np.divide((40, 80, 90), TINY))
    assert case.label.any()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"noise": -1}, "noise is -1"),
        ({"noise": 51}, "noise is 51"),
        ({"field_of_view": "10,20"}, "field_of_view is .*three"),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(InputError, match=text):
        _case(0, TINY, **arguments)
