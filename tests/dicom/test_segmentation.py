"""Labels as DICOM SEG: the codes, the pixels, and where they lie."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import dicom_series
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import generate_uid
from studies import write_frames

from common.checks import InputError
from common.dicom.segmentation import Algorithm, write_segmentation
from common.dicom.series import find_series
from common.dicom.volume import read_series, stage_series

STUDY, SERIES, PLACE = generate_uid(), generate_uid(), generate_uid()
LIVER = {
    "label": "Liver",
    "category": ["91723000", "SCT", "Anatomical Structure"],
    "type": ["10200004", "SCT", "Liver"],
    "color": [86, 180, 233],
}
TUMOUR = {
    "label": "Tumour",
    "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
    "type": ["108369006", "SCT", "Neoplasm"],
    "region": ["10200004", "SCT", "Liver"],
}
CODES = {"1": LIVER, "2": TUMOUR}
MADE_BY = Algorithm("ra_unet_liver", "0.1.0", "a1" * 32)
AXIAL, MIRRORED = dicom_series.AXIAL, (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL, CORONAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.8, 0.48, -0.36, -0.6, 0.64, -0.48)


def headed(one, number):
    """What a scanner writes into every header."""
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = STUDY, SERIES, PLACE
    one.PatientID, one.PatientBirthDate, one.PatientSex = "77-1234", "19500203", "F"
    one.StudyID, one.AccessionNumber, one.StudyDate, one.StudyTime = "4711", "A-99", "20200101", "101500"
    one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", 3, number + 1
    one.SliceThickness = 2.5


def study(folder: Path, directions=AXIAL, names=None, change=None, **options):
    """A series on disk."""

    def all_of(one, number):
        headed(one, number)
        if change is not None:
            change(one, number)

    made = dicom_series.slices(dicom_series.stored_scan(), directions, change=all_of, **options)
    (found,) = find_series(dicom_series.write(folder, made, names))
    return found


def itk_grid(series):
    """Shape X Y Z and affine in RAS mm as SimpleITK sees the series, which is asked by the order of its own."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in series.files])
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return image.GetSize(), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def noise(shape, classes=3, seed=0):
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)


def reread(path, shape, affine):
    """Label X Y Z of a SEG, by the place of every frame and nothing else: a plain loop over the frames."""
    seg = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    shared = seg.SharedFunctionalGroupsSequence[0]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    inverse = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    found = np.zeros(shape, np.uint8)
    size = seg.Rows * seg.Columns
    for number, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        segment = (
            frame.SegmentIdentificationSequence[0]
            if "SegmentIdentificationSequence" in frame
            else shared.SegmentIdentificationSequence[0]
        ).ReferencedSegmentNumber
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        pixels = bits[number * size : (number + 1) * size].reshape(seg.Rows, seg.Columns)
        for row, column in zip(*np.nonzero(pixels), strict=True):
            world = corner + directions[:3] * between_columns * column + directions[3:] * between_rows * row
            place = inverse[:3, :3] @ world + inverse[:3, 3]
            assert np.abs(place - np.rint(place)).max() < 0.05
            found[tuple(np.rint(place).astype(int))] = segment
    return found


def written(tmp_path, label, affine, series, codes=CODES, made_by=MADE_BY):
    return write_segmentation(label, affine, series, codes, tmp_path / "case_seg.dcm", made_by)


@pytest.mark.parametrize("directions", [AXIAL, MIRRORED, SAGITTAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize("names", [None, [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]], ids=["in order", "reversed", "mixed"])
def test_a_reread_segmentation_is_the_label(tmp_path, directions, names):
    series = study(tmp_path / "in", directions, names)
    shape, affine = itk_grid(series)
    label = noise(shape)
    found = reread(written(tmp_path, label, affine, series), shape, affine)
    assert len(np.unique(label)) == 3 and np.array_equal(found, label)


@pytest.mark.parametrize("names", [None, [5, 4, 3, 2, 1, 0]], ids=["in order", "reversed"])
@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE])
def test_a_label_on_the_staged_volume(tmp_path, directions, names):
    series = study(tmp_path / "in", directions, names)
    staged = nibabel.load(stage_series(series, tmp_path))
    label = noise(staged.shape)
    shape, affine = itk_grid(series)
    assert np.array_equal(reread(written(tmp_path, label, staged.affine, series), shape, affine), label)


@pytest.mark.parametrize("echo", [0, 1])
@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE])
def test_frames_of_one_file_of_which_the_series_is_a_part(tmp_path, directions, echo):
    volumes = [dicom_series.stored_scan(seed) for seed in (0, 1)]
    series = find_series(write_frames(tmp_path / "in" / "frames", volumes, directions, shuffle=3))[echo]
    affine = read_series(series).affine
    label = noise(dicom_series.SHAPE)
    path = written(tmp_path, label, affine, series)
    assert np.array_equal(reread(path, label.shape, affine), label)
    stated = {plane.frame + 1: np.array(plane.position) for plane in series.planes}
    for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        sources = frame.DerivationImageSequence[0].SourceImageSequence
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        named = [number for one in sources for number in np.atleast_1d(one.ReferencedFrameNumber)]
        assert any(number in stated and np.allclose(stated[number], place, atol=1e-4) for number in named)


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_label_on_other_axes_than_the_series_lies_at_the_same_place(tmp_path, flips, order):
    series = study(tmp_path / "in", OBLIQUE)
    shape, affine = itk_grid(series)
    label = noise(shape)
    turned = np.zeros((4, 4))
    turned[3, 3] = 1
    for axis, source in enumerate(order):
        turned[source, axis] = -1 if axis in flips else 1
        turned[source, 3] += shape[source] - 1 if axis in flips else 0
    other = np.flip(label.transpose(order), flips)
    found = reread(written(tmp_path, other, affine @ turned, series), shape, affine)
    assert np.array_equal(found, label)


def test_sheared_slices_keep_their_places(tmp_path):
    series = study(tmp_path / "in", shear=(0.0, 0.6))
    affine = np.diag([-0.7, -0.8, 2.5, 1.0])
    affine[:3, 2] = (0.0, -0.6, 2.5)
    affine[:3, 3] = (11.0, -4.0, 100.0)
    label = noise(dicom_series.SHAPE)
    assert np.array_equal(reread(written(tmp_path, label, affine, series), label.shape, affine), label)


def test_every_frame_names_the_image_that_it_lies_on(tmp_path):
    series = study(tmp_path / "in", names=[3, 0, 5, 1, 4, 2])
    shape, affine = itk_grid(series)
    seg = pydicom.dcmread(written(tmp_path, noise(shape), affine, series))
    corners = {}
    for path in series.files:
        one = pydicom.dcmread(path)
        corners[one.SOPInstanceUID] = np.array(one.ImagePositionPatient, float)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, corners[source], atol=1e-4)


@pytest.mark.parametrize("directions", [AXIAL, MIRRORED, OBLIQUE])
def test_itk_reads_frames_of_one_segment_as_a_volume_at_its_place(tmp_path, directions):
    series = study(tmp_path / "in", directions)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in series.files])
    scan = reader.Execute()
    shape, affine = itk_grid(series)
    label = (noise(shape) > 0).astype(np.uint8)
    image = SimpleITK.ReadImage(str(written(tmp_path, label, affine, series, {"1": LIVER})))
    on_scan = SimpleITK.Resample(image, scan, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 7)
    assert np.array_equal(SimpleITK.GetArrayFromImage(on_scan).T, 255 * label)


def test_segments_are_described_by_codes(tmp_path):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    seg = pydicom.dcmread(written(tmp_path, noise(shape), affine, series))
    liver, tumour = seg.SegmentSequence
    assert (liver.SegmentNumber, liver.SegmentLabel, tumour.SegmentNumber, tumour.SegmentLabel) == (
        1,
        "Liver",
        2,
        "Tumour",
    )
    kind = tumour.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("108369006", "SCT", "Neoplasm")
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert tumour.AnatomicRegionSequence[0].CodeValue == "10200004" and "AnatomicRegionSequence" not in liver
    assert "RecommendedDisplayCIELabValue" in liver and liver.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ra_unet_liver", "0.1.0")
    assert algorithm.AlgorithmParameters == f"weights_sha256='{'a1' * 32}'" or "a1a1" in algorithm.AlgorithmParameters
    assert (seg.Modality, seg.SegmentationType, seg.ContentQualification) == ("SEG", "BINARY", "RESEARCH")
    assert (seg.ManufacturerModelName, seg.SoftwareVersions) == ("ra_unet_liver", "0.1.0")


def test_it_belongs_to_patient_and_study_and_is_a_series_of_its_own(tmp_path):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    one, other = (pydicom.dcmread(written(tmp_path / name, noise(shape), affine, series)) for name in "ab")
    assert (str(one.PatientName), one.PatientID, one.PatientBirthDate) == ("Nobody^Knows", "77-1234", "19500203")
    assert (one.StudyInstanceUID, one.FrameOfReferenceUID) == (STUDY, PLACE)
    assert len({one.SeriesInstanceUID, other.SeriesInstanceUID, SERIES}) == 3
    assert one.SOPInstanceUID != other.SOPInstanceUID and one.SeriesNumber == 1003


def test_a_class_that_was_not_found_is_described_and_has_no_frame(tmp_path):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    label = np.zeros(shape, np.uint8)
    label[2:4, 3, 1:3] = 2
    seg = pydicom.dcmread(written(tmp_path, label, affine, series))
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["Liver", "Tumour"] and seg.NumberOfFrames == 2
    assert np.array_equal(reread(tmp_path / "case_seg.dcm", shape, affine), label)


def test_an_empty_label_is_an_object_with_frames_of_zeros(tmp_path):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    seg = pydicom.dcmread(written(tmp_path, np.zeros(shape, np.uint8), affine, series))
    assert seg.NumberOfFrames == 2 and not any(seg.PixelData)
    assert not reread(tmp_path / "case_seg.dcm", shape, affine).any()
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == series.images


def test_an_empty_label_of_frames_of_one_file(tmp_path):
    series = find_series(write_frames(tmp_path / "in" / "frames", [dicom_series.stored_scan()]))[0]
    label = np.zeros(dicom_series.SHAPE, np.uint8)
    seg = pydicom.dcmread(written(tmp_path, label, read_series(series).affine, series))
    assert seg.NumberOfFrames == 2 and not any(seg.PixelData)


def test_classes_need_not_be_numbered_from_one(tmp_path):
    series = study(tmp_path / "in")
    shape, affine = itk_grid(series)
    label = noise(shape)
    seg = written(tmp_path, np.where(label == 2, 7, label).astype(np.int64), affine, series, {"1": LIVER, "7": TUMOUR})
    assert np.array_equal(reread(seg, shape, affine), label)


def test_one_slice(tmp_path):
    made = dicom_series.slices(dicom_series.stored_scan(), change=headed)
    (series,) = find_series(dicom_series.write(tmp_path / "in", {2: made[2]}))
    affine = np.diag([-0.7, -0.8, 2.5, 1.0])
    affine[:3, 3] = (11.0, -4.0, 105.0)
    label = noise((*dicom_series.SHAPE[:2], 1))
    assert np.array_equal(reread(written(tmp_path, label, affine, series), label.shape, affine), label)


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


BUNDLES = sorted((Path(__file__).resolve().parents[2] / "bundles").glob("*/configs/metadata.json"))


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.parts[-3])
def test_codes_of_the_bundles_are_those_of_the_standard(path):
    """By pydicom's copy of DICOM's part 16: category CID 7150, type CID 7151 or a region that it holds."""
    concepts = pydicom.sr._concepts_dict.concepts["SCT"]
    meanings = {}
    for entries in concepts.values():
        for value, (meaning, groups) in entries.items():
            meanings.setdefault(value, []).append((meaning, groups))
    for segment in (json.loads(path.read_text())["dicom_segments"] or {}).values():
        for entry, group in (("category", 7150), ("type", 7151), ("region", 4030)):
            if entry in segment:
                value, scheme, meaning = segment[entry]
                assert scheme == "SCT" and any(meaning == one and group in ids for one, ids in meanings[value])
