"""DICOM slices as a volume: geometry by the headers, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'volseg[formats]'")

from dicom_series import AXIAL, ORIGIN, SHAPE, SPACING, block, files, slices, stored_scan  # noqa: E402

from common.data.convert.dicom import read_mask, read_series  # noqa: E402
from common.data.convert.sources import Dropped  # noqa: E402

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


@pytest.mark.parametrize("directions", [AXIAL, CORONAL, OBLIQUE, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)])
def test_every_voxel_lies_where_its_header_says(directions):
    """Voxel by voxel: the value that DICOM puts at a place in LPS is found there, whatever the files are called."""
    stored = stored_scan()
    made = slices(stored, directions)
    shuffled = {7 * number % 6 + 10: one for number, one in made.items()}
    series = read_series(files(shuffled))
    x, y = np.array(directions[:3]), np.array(directions[3:])
    for i, j, k in itertools.product(*map(range, SHAPE)):
        lps = np.array(ORIGIN) + i * SPACING[0] * x + j * SPACING[1] * y + k * SPACING[2] * np.cross(x, y)
        ras = lps * [-1, -1, 1]
        voxel = np.linalg.inv(series.affine) @ [*ras, 1]
        np.testing.assert_allclose(voxel[:3], np.rint(voxel[:3]), atol=1e-3)
        assert series.values[tuple(np.rint(voxel[:3]).astype(int))] == int(stored[i, j, k]) - 1024
    assert series.values.dtype == np.int16 and series.notes == [] and series.step == pytest.approx(SPACING[2])


def test_a_scale_of_its_own_for_each_slice_and_fractions():
    stored = stored_scan()

    def rescale(one, number):
        one.RescaleSlope, one.RescaleIntercept = 0.5 + number, -1000

    expected = stored * (0.5 + np.arange(SHAPE[2])) - 1000
    values = read_series(files(slices(stored, change=rescale))).values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected)


def test_a_series_without_a_scale_is_said_to_be_taken_as_hounsfield_units():
    stored = stored_scan().astype(np.int16) - 1024
    series = read_series(files(slices(stored, rescale=None)))
    np.testing.assert_array_equal(series.values, stored)
    assert series.notes == ["its headers have no rescale slope and intercept: stored values were taken as HU"]


def test_positions_may_be_rounded_or_stand_in_the_slice_location():
    stored = stored_scan()

    def rounded(one, number):
        one.ImagePositionPatient[2] = f"{float(one.ImagePositionPatient[2]) + 0.4 * (-1) ** number:.3g}"

    assert read_series(files(slices(stored, change=rounded))).step == pytest.approx(SPACING[2], rel=0.1)

    def located(one, number):
        del one.ImagePositionPatient, one.ImageOrientationPatient

    series = read_series(files(slices(stored, change=located)))
    np.testing.assert_allclose(np.abs(series.affine[:3, :3]), np.diag(SPACING), atol=1e-6)
    assert series.affine[2, 3] == pytest.approx(ORIGIN[2])


def test_copies_of_a_slice_are_taken_once():
    made = slices(stored_scan())
    series = read_series(files({**made, 17: made[3], 18: made[3]}))
    np.testing.assert_array_equal(series.values, read_series(files(made)).values)
    assert series.notes == ["2 slices are there twice with the same content; one of each was taken"]
    assert series.index["image_17"] == series.index["image_3"] == 3


def test_one_slice_takes_its_thickness_from_the_header():
    def thick(one, number):
        one.SliceThickness = 5

    made = slices(stored_scan(), change=thick)
    assert read_series(files({0: made[0]})).step == 5
    with pytest.raises(Dropped, match="it is one slice of unknown thickness"):
        read_series(files({0: slices(stored_scan())[0]}))


def _without(field, *numbers):
    def change(one, number):
        if not numbers or number in numbers:
            delattr(one, field)

    return change


def _set(field, value, *numbers):
    def change(one, number):
        if not numbers or number in numbers:
            setattr(one, field, value)

    return change


def _moved(along, *numbers):
    def change(one, number):
        if number in numbers:
            place = [float(value) for value in one.ImagePositionPatient]
            one.ImagePositionPatient = [f"{value + shift:.6g}" for value, shift in zip(place, along, strict=True)]

    return change


def _truncated(one, number):
    if number == 2:
        one.PixelData = one.PixelData[:20]


FAULTS = [
    (_set("PixelSpacing", [1, 1], 3), {}, "differ in pixel spacing"),
    (_without("PixelSpacing", 1, 2), {}, "2 of its 6 slices have no pixel spacing"),
    (_set("ImageOrientationPatient", [0, 1, 0, -1, 0, 0], 3), {}, "lie in several directions"),
    (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), {}, "no pair of perpendicular unit vectors"),
    (_without("ImagePositionPatient", 3), {}, "do not say where its slices lie"),
    (_moved((0, 0, 1.2), 3), {}, "unevenly spaced"),
    (_moved((0, 0, -2.5), 3), {}, r"different slices lie at one place \(105.00 mm\)"),
    (_moved((3, 0, 0), 3), {}, "shifted sideways"),
    (None, {"shear": (0.0, 0.9)}, r"gantry was tilted by 19\.8 degrees"),
    (_without("RescaleSlope", 2), {}, "1 of its 6 slices have no rescale slope"),
    (_set("NumberOfFrames", 2, 2), {}, "image_2 holds colours or several frames"),
    (_set("Rows", 4, 2), {}, r"several sizes \(4x9, 8x9\)"),
    (_truncated, {}, "the pixels of image_2 can not be read"),
    (_without("PixelData", 2), {}, "image_2 is no DICOM image"),
]


@pytest.mark.parametrize(("change", "more", "text"), FAULTS, ids=[text for *_, text in FAULTS])
def test_what_is_no_volume_is_refused_with_the_reason(change, more, text):
    with pytest.raises(Dropped, match=text):
        read_series(files(slices(stored_scan(), change=change, **more)))


@pytest.mark.parametrize(("absent", "count"), [([2], 1), ([1, 2], 2), ([1, 4], 2)])
def test_missing_slices_are_counted(absent, count):
    wide = np.concatenate([stored_scan(), stored_scan(1)], axis=2)  # where most slices are there, gaps stand out
    made = {number: one for number, one in slices(wide).items() if number not in absent}
    with pytest.raises(Dropped, match=f"about {count} of its slices are missing"):
        read_series(files(made))


def test_files_that_are_no_slices():
    held = files(slices(stored_scan()))
    series = read_series({**held, ".DS_Store": lambda: b"x", "Thumbs.db": lambda: b"x"})
    assert series.values.shape == SHAPE
    with pytest.raises(Dropped, match="notes.txt (is no DICOM image|can not be read as DICOM)"):
        read_series({**held, "notes.txt": lambda: b"nothing of the kind"})
    with pytest.raises(Dropped, match="there is no slice in it"):
        read_series({})


def test_a_tilt_that_only_the_header_knows_is_a_note_where_positions_are_straight():
    change = _set("GantryDetectorTilt", 12)
    assert "speak of a gantry tilted by 12 degrees" in read_series(files(slices(stored_scan(), change=change))).notes[0]

    def unplaced(one, number):
        change(one, number)
        del one.ImagePositionPatient

    with pytest.raises(Dropped, match=r"gantry was tilted by 12\.0 degrees"):
        read_series(files(slices(stored_scan(), change=unplaced)))


MASK = block(slice(2, 6), slice(3, 7), slice(1, 4))


def test_a_mask_is_placed_by_its_headers_not_by_its_names():
    series = read_series(files(slices(stored_scan())))
    backwards = {5 - number: one for number, one in slices(MASK, rescale=None).items()}
    mask, by_name = read_mask(files(backwards), series, "liver")
    np.testing.assert_array_equal(mask, MASK > 0)
    assert not by_name


@pytest.mark.parametrize("blank", [True, False])
def test_a_mask_without_positions_is_placed_by_its_names(blank):
    def unplaced(one, number):
        del one.SliceLocation
        if blank:
            del one.ImagePositionPatient, one.ImageOrientationPatient
        else:
            one.ImagePositionPatient = [0, 0, 0]

    made = slices(stored_scan())
    series = read_series(files({5 - number: one for number, one in made.items()}))
    masks = slices(MASK, rescale=None, change=unplaced)
    mask, by_name = read_mask(files({5 - number: one for number, one in masks.items()}), series, "liver")
    np.testing.assert_array_equal(mask, MASK > 0)
    assert by_name
    with pytest.raises(Dropped, match="mask 'liver' has no positions, and 'image_8' is no slice of its image"):
        read_mask(files({**masks, 8: masks[0]}), series, "liver")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_moved((0, 0, 40), *range(6)), "mask 'liver' lies beside its image"),
        (_moved((2, 0, 0), *range(6)), "mask 'liver' lies beside its image"),
        (_set("ImageOrientationPatient", [0, 1, 0, -1, 0, 0]), "mask 'liver' lies in another direction"),
        (_moved((0, 0, 2.5), 3), "mask 'liver' lacks 1 of 6 slices"),
    ],
)
def test_a_mask_that_does_not_fit(change, text):
    series = read_series(files(slices(stored_scan())))
    with pytest.raises(Dropped, match=text):
        read_mask(files(slices(MASK, rescale=None, change=change)), series, "liver")


def test_a_mask_of_another_size():
    series = read_series(files(slices(stored_scan())))
    with pytest.raises(Dropped, match="mask 'liver' has slices of 8x5, its image 8x9"):
        read_mask(files(slices(np.ascontiguousarray(MASK[:5]), rescale=None)), series, "liver")
