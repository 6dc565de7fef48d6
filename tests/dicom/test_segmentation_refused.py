"""Labels and headers of which no DICOM SEG can be made, or only with care; nothing of the patient is told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from segmentations import AXIAL, CODES, MADE_BY, itk_grid, noise, reread, study, written

from common.checks import InputError
from common.dicom.segmentation import write_segmentation


def _strip(one, number):
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "FrameOfReferenceUID",
        "SliceThickness",
    ):
        delattr(one, keyword)


def _spoil(one, number):
    with pydicom.config.disable_value_validation():
        one.PatientBirthDate, one.PatientSex, one.StudyTime = "3.2.1950", "female", "morning"
        one.PatientName, one.PatientComments = "Doe, Jane, the one with the cat", "x" * 20_000
        one.PatientID, one.PatientAge = "7" * 100, "70 years"
        one.SpacingBetweenSlices = 99.0
        directions = [value + 1e-6 * (number % 2) for value in AXIAL]
        one.ImageOrientationPatient = [f"{value:.8f}" for value in directions]


@pytest.mark.parametrize("change", [_strip, _spoil])
def test_headers_that_lack_much_or_hold_what_is_no_such_value(tmp_path, change, caplog, recwarn, capsys):
    caplog.set_level(logging.DEBUG)
    series = study(tmp_path / "in", change=change)
    shape, affine = itk_grid(series)
    capsys.readouterr()
    recwarn.clear()
    caplog.clear()
    label = noise(shape)
    assert np.array_equal(reread(written(tmp_path, label, affine, series), shape, affine), label)
    seg = pydicom.dcmread(tmp_path / "case_seg.dcm")
    assert (seg.PatientBirthDate, seg.PatientSex, seg.StudyTime) == ("", "", "")
    assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices) == 2.5
    told = caplog.text + "".join(capsys.readouterr())
    assert not any(word in told for word in ("Jane", "1950", "77777")) and logging.getLogger("highdicom").level == 0


def test_warnings_do_not_quote_the_header(tmp_path, recwarn):
    series = study(tmp_path / "in", change=_spoil)
    shape, affine = itk_grid(series)
    recwarn.clear()
    written(tmp_path, noise(shape), affine, series)
    assert not [one for one in recwarn if "Jane" in str(one.message) or "1950" in str(one.message)]


@pytest.mark.parametrize("shift", [(0.5, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0.5)])
def test_a_label_beside_the_series_is_refused(tmp_path, shift):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    moved = np.eye(4)
    moved[:3, 3] = shift
    with pytest.raises(
        InputError, match=r"label of series_\w{8}, 9x8x6 voxels, does not lie on the 6 images.*on the grid"
    ):
        written(tmp_path, noise(shape), affine @ moved, series)
    assert not list(tmp_path.glob("*.dcm"))


@pytest.mark.parametrize("shape", [(9, 8, 5), (9, 8, 7), (8, 9, 6), (18, 16, 6)])
def test_a_label_of_another_size_is_refused(tmp_path, shape):
    series = study(tmp_path / "in")
    _, affine = itk_grid(series)
    with pytest.raises(InputError, match="does not lie on the 6 images of its series"):
        written(tmp_path, noise(shape), affine, series)


def test_a_class_without_a_code_is_refused(tmp_path):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    with pytest.raises(InputError, match="holds the classes 3, 4.*has those of 1, 2.*name their codes"):
        written(tmp_path, noise(shape, 5), affine, series)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["background", "liver", "cyst"], "class 2 is 'cyst', and dicom_segments has the codes of 'Tumour' for it"),
        (["background", "liver"], "class 2 is 'none', and dicom_segments has the codes of 'Tumour'"),
    ],
)
def test_classes_that_were_renamed_are_not_given_the_codes_of_the_bundle(tmp_path, names, said):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    with pytest.raises(InputError, match=said):
        write_segmentation(noise(shape), affine, series, CODES, tmp_path / "seg.dcm", MADE_BY, names)
    same = ["background", "liver", "tumour"]
    assert write_segmentation(noise(shape), affine, series, CODES, tmp_path / "seg.dcm", MADE_BY, same).is_file()


def test_a_label_of_floating_point_numbers_is_refused(tmp_path):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    with pytest.raises(InputError, match="type float32.*whole numbers"):
        written(tmp_path, noise(shape).astype(np.float32), affine, series)


@pytest.mark.parametrize("codes", [None, {}])
def test_a_bundle_without_codes_is_refused(tmp_path, codes):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    with pytest.raises(InputError, match="metadata of ra_unet_liver has no dicom_segments.*leave DICOM SEG out"):
        written(tmp_path, noise(shape), affine, series, codes)


def test_headers_that_make_no_object_are_refused_without_quoting_them(tmp_path):
    series = study(tmp_path / "in", change=lambda one, number: delattr(one, "StudyInstanceUID"))
    shape, affine = itk_grid(series)
    with pytest.raises(
        InputError, match=r"headers of series_\w{8} can not be made a DICOM SEG of \(AttributeError\)"
    ) as told:
        written(tmp_path, noise(shape), affine, series)
    assert told.value.__cause__ is None and "77-1234" not in str(told.value)


def test_a_failure_leaves_the_earlier_file(tmp_path, monkeypatch):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    before = written(tmp_path, noise(shape), affine, series).read_bytes()

    def full(self, path, *args, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.Dataset, "save_as", full)
    with pytest.raises(InputError, match="writing '.*case_seg.dcm' failed"):
        written(tmp_path, noise(shape, seed=1), affine, series)
    assert (tmp_path / "case_seg.dcm").read_bytes() == before and len(list(tmp_path.iterdir())) == 2
