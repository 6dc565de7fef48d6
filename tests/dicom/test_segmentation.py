"""Labels as DICOM SEG: the codes, the pixels, and where they lie."""

from __future__ import annotations

import json
from pathlib import Path

import dicom_series
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from segmentations import (
    AXIAL,
    CORONAL,
    LIVER,
    MIRRORED,
    OBLIQUE,
    PLACE,
    SAGITTAL,
    SERIES,
    STUDY,
    TUMOUR,
    headed,
    itk_grid,
    noise,
    reread,
    study,
    written,
)
from studies import write_frames

from common.dicom.series import find_series
from common.dicom.volume import read_series, stage_series


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
