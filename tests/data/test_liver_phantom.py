from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from common.checks import InputError
from common.data.phantoms.abdomen import make_abdomen
from common.data.phantoms.anatomy import Canvas, Patient
from common.data.phantoms.lesions import Lesion, draw_cysts, draw_tumours, paint_lesion
from common.data.phantoms.liver import make_liver
from common.data.phantoms.organs import Liver, paint_abdomen
from common.data.phantoms.phantom import PhantomCase

SIZE, SMALL = (120, 100, 56), (64, 56, 40)
ORGAN, TUMOUR = 1, 2
EVERYWHERE = np.ones((3, 3, 3), bool)


def _rng(index: int) -> np.random.Generator:
    return np.random.default_rng([0, index])


@cache
def _body(index: int, size=SIZE) -> PhantomCase:
    """The abdomen around the liver of `_case`."""
    return make_abdomen(_rng(index), size, index)


@cache
def _case(index: int, size=SIZE, **options) -> PhantomCase:
    return make_liver(_rng(index), size, index, **options)


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [_case(index) for index in range(3)]


@pytest.fixture(scope="module")
def small() -> list[PhantomCase]:
    return [_case(index, SMALL) for index in range(8)]


@pytest.fixture(scope="module")
def livers() -> list[tuple[Patient, Liver]]:
    bodies = [paint_abdomen(_rng(index), SMALL, None, None) for index in range(3)]
    return [(body.patient, body.liver) for body in bodies]


def test_every_fourth_case_is_free_of_tumours(small):
    tumour = [bool((case.label == TUMOUR).any()) for case in small]
    assert tumour == [True, True, True, False] * 2
    assert all((case.label == ORGAN).any() for case in small)


@pytest.mark.parametrize(("share", "index", "expected"), [(0, 3, True), ("1", 0, False), (0.5, 1, False)])
def test_share_of_cases_without_tumours(share, index, expected):
    case = _case(index, (40, 36, 32), no_tumour=share)
    assert (case.label == TUMOUR).any() == expected


@pytest.mark.parametrize("size", [(8, 8, 8), (31, 29, 23), (33, 40, 9)])
def test_any_size_has_a_liver_with_tumours(size):
    for index in range(2):
        case = _case(index, size)
        assert set(np.unique(case.label)) == {0, ORGAN, TUMOUR}, index


def test_a_field_of_view_without_the_liver_is_refused():
    with pytest.raises(InputError, match=r"4 x 4 x 4 mm and 8 x 8 x 8 voxels holds no liver.*--field_of_view"):
        _case(0, (8, 8, 8), field_of_view="4,4,4")


def test_equal_seeds_make_equal_bytes_and_others_another_anatomy():
    first, again, other = (make_liver(_rng(index), SMALL, index) for index in (0, 0, 1))
    assert first.image.tobytes() == again.image.tobytes() and first.label.tobytes() == again.label.tobytes()
    a, b = first.label > 0, other.label > 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) < 0.9


def test_nothing_but_the_lesions_differs_from_the_abdomen():
    for index in (0, 1):
        body = _body(index, SMALL)
        case, free = _case(index, SMALL), _case(index, SMALL, no_tumour=1)
        np.testing.assert_array_equal(case.label > 0, free.label > 0)
        assert case.spacing == body.spacing
        # Its surface is a mixture, and the scanner blurs.
        near = ndimage.binary_dilation(case.label == TUMOUR, EVERYWHERE, iterations=2)
        np.testing.assert_array_equal(case.image[~near], free.image[~near])
        assert np.abs(case.image - free.image)[case.label == TUMOUR].mean() > 8
        outside = ~ndimage.binary_dilation(case.label > 0, EVERYWHERE, iterations=2)
        np.testing.assert_array_equal(case.image[outside], body.image[outside])
        # Its liver is the abdomen's with the vessels that run through it.
        assert (case.label > 0)[body.label == 3].mean() > 0.999
        beyond = (case.label > 0) & (body.label != 3)
        assert np.isin(body.label[beyond], (0, 1, 2)).all()
        assert (body.image[ndimage.binary_erosion(beyond)] > 100).all()


def test_the_liver_is_whole_and_of_a_patients_size(cases):
    for case in cases:
        organ = case.label > 0
        millilitre = np.prod(case.spacing) / 1000
        assert 1000 < organ.sum() * millilitre < 2100 and 0.02 < organ.mean() < 0.09
        assert ndimage.label(organ, EVERYWHERE)[1] == 1
        holes = ndimage.binary_fill_holes(organ) & ~organ
        assert holes.sum() < 0.002 * organ.sum()


def test_vessels_of_the_liver_are_labelled_as_liver(cases):
    for index, case in enumerate(cases[:2]):
        body = _body(index)
        portal = (body.label == 2) & ndimage.binary_closing(body.label == 3, iterations=4)
        assert (case.label > 0)[portal].mean() > 0.6
        # The trunk outside and the aorta are not.
        assert (case.label == 0)[body.label == 2].mean() > 0.3
        assert (case.label == 0)[body.label == 1].mean() > 0.8


def test_trunks_are_the_livers_from_four_millimetres_below_its_surface():
    body = paint_abdomen(_rng(0), SMALL, None, None)
    liver, vein = body.liver, body.canvas.label[body.liver.box] == 2
    shallow, deep = (vein & part for part in (liver.surface >= -4, liver.surface < -4))
    assert (shallow & (liver.surface < 0)).any() and not liver.inside[shallow].any()
    assert liver.inside[deep].mean() > 0.9


def test_tumours_are_darker_than_the_liver_by_several_amounts(small):
    contrasts = []
    for case in small:
        parts, count = ndimage.label(case.label == TUMOUR, EVERYWHERE)
        liver = np.median(case.image[ndimage.binary_erosion(case.label == ORGAN)])
        for number in range(1, count + 1):
            if (parts == number).sum() > 20:
                contrasts.append(liver - np.median(case.image[parts == number]))
    assert len(contrasts) >= 8 and np.median(contrasts) > 10
    assert min(contrasts) < 18 and max(contrasts) > 30


def test_no_interval_of_brightness_finds_the_tumours(cases):
    edges = np.arange(-200, 301, 5)
    for case in cases:
        smooth, truth = ndimage.gaussian_filter(case.image.astype(float), 0.8), case.label == TUMOUR
        for among, most in ((np.ones_like(truth), 0.4), (case.label > 0, 0.85)):
            counts = [np.histogram(smooth[part], edges)[0] for part in (among, truth)]
            found, right = (np.concatenate([[0], np.cumsum(one)]) for one in counts)
            low, high = np.triu_indices(len(found), 1)
            dice = 2 * (right[high] - right[low]) / (found[high] - found[low] + truth.sum())
            assert 0 < dice.max() < most


def test_sizes_counts_and_kinds_of_tumours(livers):
    tumours, counts = [], []
    for seed in range(60):
        patient, liver = livers[seed % 3]
        drawn = draw_tumours(patient, liver, (), _rng(seed))
        assert 2 * drawn[0].radius >= 22 - 1e-6 and liver.brightness - drawn[0].brightness > 17
        assert all(2.2 * patient.voxel - 1e-6 <= 2 * one.radius <= 60 for one in drawn)
        counts.append(len(drawn))
        tumours += [(one, liver) for one in drawn]
    assert set(counts) == set(range(1, 7))
    contrasts = np.array([liver.brightness - one.brightness for one, liver in tumours])
    assert contrasts.min() >= 9 and contrasts.max() <= 58
    assert 0.07 < (contrasts < 16.1).mean() < 0.3
    assert 0.03 < np.mean([one.core is not None for one, _ in tumours]) < 0.4
    assert 0.1 < np.mean([one.rim is not None for one, _ in tumours]) < 0.5
    assert all(one.rim > liver.brightness for one, liver in tumours if one.rim is not None)
    assert all(one.core < one.brightness for one, _ in tumours if one.core is not None)


def test_some_tumours_lie_at_the_surface_some_touch_and_none_lies_in_a_cyst(livers):
    surface, touching, pairs = [], 0, 0
    for seed in range(60):
        patient, liver = livers[seed % 3]
        cysts = draw_cysts(patient, liver, _rng(1000 + seed))
        drawn = draw_tumours(patient, liver, cysts, _rng(seed))
        at = np.stack([one[liver.inside] for one in patient.within(liver.box)], 1)
        depth = -liver.surface[liver.inside]
        for one in drawn:
            nearest = np.linalg.norm(at - one.centre, axis=1).argmin()
            assert np.linalg.norm(at[nearest] - one.centre) < 1.5 * patient.voxel
            surface.append(depth[nearest] < 0.6 * one.radius)
            assert all(np.linalg.norm(one.centre - cyst.centre) > cyst.radius for cyst in cysts)
        for number, one in enumerate(drawn):
            for other in drawn[:number]:
                gap = np.linalg.norm(one.centre - other.centre) - one.radius - other.radius
                pairs, touching = pairs + 1, touching + (gap < 0)
    assert 0.15 < np.mean(surface) < 0.6 and 0.02 < touching / pairs < 0.3


def _ball(lesion: Lesion, label: int = TUMOUR) -> tuple[Patient, Liver, Canvas]:
    """A lesion in a liver that is a half space."""
    patient = Patient((40, 36, 32), (3.0, 3.0, 4.0), np.random.default_rng(0), 0.0)
    x = patient.coordinates[0]
    box = (slice(0, 40), slice(2, 36), slice(0, 30))
    liver = Liver(box, x[box], (x < 0)[box], 110.0)
    canvas = Canvas(patient, 110.0)
    paint_lesion(canvas, patient, liver, lesion, label, np.random.default_rng(1))
    return patient, liver, canvas


def test_a_lesion_stays_in_the_liver():
    patient, _, canvas = _ball(Lesion(np.zeros(3), 20.0, 60.0))
    assert (canvas.label[patient.coordinates[0] < 0] == TUMOUR).any()
    assert (canvas.label[patient.coordinates[0] >= 0] == 0).all()
    volume = (canvas.label == TUMOUR).sum() * 36 / 1000
    assert volume == pytest.approx(0.5 * 4 / 3 * np.pi * 2**3, rel=0.35)
    beyond = patient.coordinates[0] > patient.voxel
    np.testing.assert_array_equal(canvas.values[beyond], np.float32(110))


def test_a_lesion_out_of_the_grid_is_none():
    _, _, canvas = _ball(Lesion(np.array((-400.0, 0, 0)), 8.0, 60.0))
    assert not canvas.label.any() and (canvas.values == 110).all()


def test_a_lesion_has_a_rim_and_a_dead_middle():
    patient, _, canvas = _ball(Lesion(np.array((-25.0, 0, 0)), 22.0, 65.0, rim=140.0, core=20.0))
    depth = ndimage.distance_transform_edt(canvas.label == TUMOUR, sampling=patient.spacing)
    middle, shell = canvas.values[depth > 14], canvas.values[(depth > 0) & (depth < 3.2)]
    between = canvas.values[(depth > 6) & (depth < 8)]
    assert np.median(middle) == pytest.approx(20, abs=12)
    assert np.median(shell) > 110 > 90 > np.median(between) > np.median(middle) + 20


def test_a_faded_lesion_keeps_its_extent_and_loses_its_edge():
    sharp, soft = (_ball(Lesion(np.array((-30.0, 0, 0)), 18.0, 60.0, fade=fade))[2] for fade in (0.0, 12.0))
    np.testing.assert_array_equal(sharp.label, soft.label)
    edge = [np.count_nonzero((one.values > 75) & (one.values < 100)) for one in (sharp, soft)]
    assert edge[1] > 1.5 * edge[0]


def test_a_cyst_is_dark_and_labelled_as_liver(livers):
    drawn = [draw_cysts(*livers[seed % 3], _rng(seed)) for seed in range(60)]
    assert {len(one) for one in drawn} == {0, 1, 2} and 0.4 < np.mean([not one for one in drawn]) < 0.8
    assert all(-2 <= cyst.brightness <= 14 and cyst.radius <= 12 for one in drawn for cyst in one)
    for index in range(3):
        body, free = _body(index, SMALL), _case(index, SMALL, no_tumour=1)
        dark = (body.image - free.image.astype(int) > 40) & (body.label == 3)
        assert dark.sum() > 3 and (free.label[dark] == ORGAN).all()
