"""What the application for MONAI Deploy does by itself: choosing a series, reading it, writing DICOM SEG."""

from __future__ import annotations

import importlib
import json
import re
import sys
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from common.dicom.series import find_series
from common.dicom.volume import stage_series
from common.files import read_json

MODULES = ("refused", "found_series", "volume", "segmentation", "made_series", "certify")
SHAPE = (9, 8, 6)
SEGMENTS = {
    "1": {
        "label": "Liver",
        "category": ["91723000", "SCT", "Anatomical Structure"],
        "type": ["10200004", "SCT", "Liver"],
    },
    "4": {
        "label": "Tumour",
        "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
        "type": ["108369006", "SCT", "Neoplasm"],
        "region": ["10200004", "SCT", "Liver"],
        "color": [0, 158, 115],
    },
}
NAMED = {int(key): entry for key, entry in SEGMENTS.items()}
METADATA = {"name": "toy", "version": "0.1.0", "dicom_segments": SEGMENTS}


@pytest.fixture(scope="module")
def deploy(repository):
    """The modules of the application, which are on nobody's path."""
    folder = str(repository / "serve" / "monai_deploy")
    assert not set(MODULES) & set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(folder)
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture
def refusal(deploy):
    """What a call is refused with: text that names nobody."""

    def told(call, *words, **named):
        with pytest.raises(deploy.refused.Refused) as caught:
            call(*words, **named)
        text = str(caught.value)
        names = [part for value in deploy.made_series.PATIENT.values() for part in value.split("^")]
        assert not any(part in text for part in names if len(part) > 3)
        assert "2.25." not in text and ".dcm" not in text and "To mend it" in text
        return text

    return told


def lying(turn=0.0, tip=0.0, edges=(0.7, 0.9, 2.5), flip=()):
    """An affine in RAS: turned and tipped by radians, some axes reversed."""
    (c, s), (d, t) = (np.cos(turn), np.sin(turn)), (np.cos(tip), np.sin(tip))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
    affine[:3, :3] = affine[:3, :3] @ np.diag([-edge if axis in flip else edge for axis, edge in enumerate(edges)])
    affine[:3, 3] = (12.0, -30.5, 101.25)
    return affine


def scan(seed=0):
    return np.random.default_rng(seed).integers(-900, 900, SHAPE).astype(np.float64)


LIES = {
    "axial": lying(),
    "reversed": lying(flip=(2,)),
    "mirrored": lying(flip=(0, 1)),
    "oblique": lying(0.3, -0.2, flip=(1,)),
    "coronal": lying(0.0, np.pi / 2),
    "sagittal": lying(np.pi / 2, np.pi / 2, flip=(0,)),
}


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("lies", list(LIES))
def test_a_series_is_read_as_by_others(deploy, tmp_path, lies, modality):
    """Voxels and affine of SimpleITK; exactly those of the NIfTI file that volseg predict makes of the series."""
    deploy.made_series.write_series(scan(), LIES[lies], tmp_path / "dcm", modality)
    (series,) = deploy.found_series.find_series(tmp_path / "dcm")
    volume = deploy.volume.read_series(series)

    deploy.certify.read_by_itk(tmp_path / "dcm", tmp_path / "itk.nii.gz")
    itk = deploy.volume.read_nifti(tmp_path / "itk.nii.gz")
    assert np.allclose(volume.affine, itk.affine, atol=1e-5)
    assert np.abs(volume.array - itk.array).max() <= 1e-4

    (staged,) = find_series(tmp_path / "dcm")
    nifti = deploy.volume.read_nifti(stage_series(staged, tmp_path))
    assert series.name == staged.name and volume.name == series.name
    assert np.array_equal(volume.affine, nifti.affine) and np.array_equal(volume.array, nifti.array)
    # where each voxel lies is where it was put
    to_given = np.linalg.inv(LIES[lies]) @ volume.affine
    places = np.rint(to_given @ np.array([3, 2, 1, 1.0])).astype(int)[:3]
    step = 1 if modality == "CT" else np.ptp(scan()) / 4095
    assert volume.array[3, 2, 1] == pytest.approx(scan()[tuple(places)], abs=step)


def test_frames_of_one_file_are_read_by_place(deploy, tmp_path, repository):
    sys.path.insert(0, str(repository / "tests" / "dicom"))
    try:
        studies = importlib.import_module("studies")
    finally:
        sys.path.remove(str(repository / "tests" / "dicom"))
    stored = np.random.default_rng(1).integers(0, 4000, SHAPE).astype(np.uint16)
    scales = [(1.0 + number, -10.0 * number) for number in range(SHAPE[2])]
    studies.write_frames(tmp_path / "one", [stored], studies.OBLIQUE, scales, shuffle=3)
    (series,) = deploy.found_series.find_series(tmp_path)
    volume = deploy.volume.read_series(series)
    assert np.array_equal(volume.array, stored * [one[0] for one in scales] + [one[1] for one in scales])
    (staged,) = find_series(tmp_path)
    assert np.array_equal(volume.affine, deploy.volume.read_nifti(stage_series(staged, tmp_path / "out")).affine)

    label = np.random.default_rng(2).choice([0, 1, 4], SHAPE).astype(np.uint8)
    path = deploy.segmentation.write_segmentation(label, volume, METADATA, tmp_path)
    grid = SimpleNamespace(shape=SHAPE, affine=volume.affine)
    assert np.array_equal(deploy.certify.read_segmentation(path, grid, NAMED), label)


@pytest.mark.parametrize("lies", list(LIES))
def test_the_label_comes_back_from_dicom_seg(deploy, tmp_path, lies):
    deploy.made_series.write_series(scan(), LIES[lies], tmp_path / "dcm")
    volume = deploy.volume.read_series(deploy.found_series.find_series(tmp_path / "dcm")[0])
    label = np.random.default_rng(0).choice([0, 1, 4], SHAPE).astype(np.uint8)
    out = tmp_path / "out"
    out.mkdir()
    path = deploy.segmentation.write_segmentation(label, volume, METADATA, out)
    assert [one.name for one in out.iterdir()] == [f"{volume.name}_seg.dcm"]
    grid = SimpleNamespace(shape=SHAPE, affine=volume.affine)
    assert np.array_equal(deploy.certify.read_segmentation(path, grid, NAMED), label)

    swapped = {1: {**NAMED[1], "type": NAMED[4]["type"]}, 4: {**NAMED[4], "type": NAMED[1]["type"]}}
    with pytest.raises(deploy.certify.Failed, match="does not name"):
        deploy.certify.read_segmentation(path, grid, swapped)

    held = highdicom.seg.segread(path)
    assert [one.SegmentLabel for one in held.SegmentSequence] == ["Liver", "Tumour"]
    assert held.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert held.SegmentSequence[1].AnatomicRegionSequence[0].CodeValue == "10200004"
    assert held.PatientID == deploy.made_series.PATIENT["PatientID"]
    again = held.get_volume(combine_segments=True)
    assert (again.array == 2).sum() == (label == 4).sum()
    assert SimpleITK.ReadImage(str(path)).GetSize()[:2] == SHAPE[:2]
    ml = deploy.segmentation.volumes_ml(label, volume, METADATA)
    assert ml["Tumour"] == pytest.approx((label == 4).sum() * 0.7 * 0.9 * 2.5 / 1000, abs=1e-3)


def test_files_deflated_as_a_whole_are_passed_over(deploy, tmp_path):
    deploy.made_series.write_series(scan(), lying(), tmp_path)
    for path in tmp_path.iterdir():
        one = pydicom.dcmread(path)
        one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        one.save_as(path)
    with pytest.raises(deploy.refused.Refused, match="no DICOM image series"):
        deploy.found_series.find_series(tmp_path)


def test_a_label_of_nothing_is_a_seg_of_nothing(deploy, tmp_path):
    deploy.made_series.write_series(scan(), lying(), tmp_path / "dcm")
    volume = deploy.volume.read_series(deploy.found_series.find_series(tmp_path / "dcm")[0])
    path = deploy.segmentation.write_segmentation(np.zeros(SHAPE, np.uint8), volume, METADATA, tmp_path)
    held = pydicom.dcmread(path)
    assert len(held.SegmentSequence) == 2 and not held.pixel_array.any()


def test_nothing_half_written_is_left(deploy, tmp_path, monkeypatch):
    deploy.made_series.write_series(scan(), lying(), tmp_path / "dcm")
    volume = deploy.volume.read_series(deploy.found_series.find_series(tmp_path / "dcm")[0])

    def full(dataset, path, *words, **named):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(highdicom.seg.Segmentation, "save_as", full)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OSError, match="no space"):
        deploy.segmentation.write_segmentation(np.ones(SHAPE, np.uint8), volume, METADATA, out)
    assert not list(out.iterdir())


def test_headers_that_lack_what_may_be_empty_are_filled(deploy, tmp_path):
    def strip(one, number):
        for keyword in ("PatientID", "PatientName", "StudyID", "AccessionNumber", "FrameOfReferenceUID", "StudyTime"):
            delattr(one, keyword)
        one.PatientSex = "W"

    deploy.made_series.write_series(scan(), lying(), tmp_path / "dcm", change=strip)
    volume = deploy.volume.read_series(deploy.found_series.find_series(tmp_path / "dcm")[0])
    path = deploy.segmentation.write_segmentation(np.ones(SHAPE, np.uint8), volume, METADATA, tmp_path)
    held = pydicom.dcmread(path)
    assert held.PatientID == "" and held.PatientSex == "" and held.FrameOfReferenceUID


def test_headers_without_a_study_are_refused(deploy, tmp_path, refusal):
    deploy.made_series.write_series(scan(), lying(), tmp_path, change=lambda one, number: one.pop("StudyInstanceUID"))
    volume = deploy.volume.read_series(deploy.found_series.find_series(tmp_path)[0])
    told = refusal(deploy.segmentation.write_segmentation, np.ones(SHAPE, np.uint8), volume, METADATA, tmp_path)
    assert "the headers of the series lack StudyInstanceUID" in told


def _drop(keyword):
    return lambda one, number: one.pop(keyword, None)


def _tilt(one, number):
    one.ImagePositionPatient = [float(one.ImagePositionPatient[0]), number * 1.0, number * 2.5]


def _shift(one, number):
    if number == 3:
        one.ImagePositionPatient = [float(one.ImagePositionPatient[0]) + 4, *one.ImagePositionPatient[1:]]


def _repeat(one, number):
    one.ImagePositionPatient = [*one.ImagePositionPatient[:2], 2.5 * (number // 2)]


def _gap(one, number):
    one.ImagePositionPatient = [*one.ImagePositionPatient[:2], 2.5 * (number + (number > 2))]


def _compress(one, number):
    one.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    one.PixelData = pydicom.encaps.encapsulate([b"no picture at all"])
    one["PixelData"].is_undefined_length = True


def _colour(one, number):
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
    one.PixelData = one.PixelData * 3


FAULTS = {
    "no pixels": (_drop("PixelData"), "an image of series_[0-9a-f]{8} has no pixels"),
    "no position": (_drop("ImagePositionPatient"), "6 of the 6 images of .* do not say where they lie"),
    "no scale": (_drop("RescaleSlope"), "is a CT without RescaleSlope"),
    "tilted": (_tilt, "are sheared by 21.8 degrees"),
    "shifted": (_shift, "are shifted sideways by up to 4"),
    "repeated": (_repeat, "3 of the 6 images of .* lie where others do"),
    "missing": (_gap, "slices 3 and 4 of .* are 5 mm apart, most others 2.5 mm"),
    "compressed": (_compress, r"can not be read \(JPEG 2000.*pip install python-gdcm"),
    "colour": (_colour, "is in colour"),
    "cut off": (lambda one, number: setattr(one, "PixelData", one.PixelData[:20]), "can not be read"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_series_that_is_no_volume_is_refused(deploy, tmp_path, refusal, fault):
    change, match = FAULTS[fault]
    deploy.made_series.write_series(scan(), lying(flip=(0, 1)), tmp_path, change=change)
    (series,) = deploy.found_series.find_series(tmp_path)
    assert re.search(match, refusal(deploy.volume.read_series, series), re.DOTALL)


def test_run_length_encoding_is_read(deploy, tmp_path):
    for folder in ("plain", "packed"):
        deploy.made_series.write_series(scan(), lying(), tmp_path / folder)
    for path in (tmp_path / "packed").iterdir():
        one = pydicom.dcmread(path)
        one.compress(pydicom.uid.RLELossless)
        one.save_as(path)
    plain, packed = (
        deploy.volume.read_series(deploy.found_series.find_series(tmp_path / folder)[0]).array
        for folder in ("plain", "packed")
    )
    assert np.array_equal(plain, packed)


@pytest.fixture
def study(deploy, tmp_path):
    """A CT, an MR, an overview in CT, a report and a foreign file in one folder."""

    def overview(one, number):
        one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def report(one, number):
        one.Modality = "SR"

    write = deploy.made_series.write_series
    write(scan(), lying(), tmp_path / "a", seed="ct")
    write(scan(), lying(), tmp_path / "b", "MR", seed="mr")
    write(scan()[..., :2], lying(0.0, np.pi / 2), tmp_path / "c", seed="overview", change=overview)
    write(scan()[..., :1], lying(), tmp_path / "d", seed="report", change=report)
    (tmp_path / "DICOMDIR").write_bytes(b"x" * 400)
    (tmp_path / "note.txt").write_text("of Mustermann")
    return tmp_path


def test_the_series_that_fits_is_chosen(deploy, study):
    found = deploy.found_series.find_series(study)
    assert sorted(one.modality for one in found) == ["CT", "CT", "MR"]
    assert [one.name for one in found] == sorted(one.name for one in find_series(study))
    chosen = deploy.found_series.choose_series(found, ["CT"])
    assert chosen.modality == "CT" and len(chosen.frames) == SHAPE[2]
    assert deploy.found_series.choose_series(found, ["MR"]).modality == "MR"


def test_the_choice_is_refused_where_it_is_not_clear(deploy, study, refusal):
    choose = deploy.found_series.choose_series
    found = deploy.found_series.find_series(study)
    mr = next(one for one in found if one.modality == "MR")
    assert "no series fits the bundle" in refusal(choose, found, ["PT"])
    assert "it expects CT" in refusal(choose, found, ["CT"], mr.name)
    assert "is not among those found" in refusal(choose, found, ["CT"], "series_0")
    deploy.made_series.write_series(scan(), lying(), study / "e", seed="other")
    found = deploy.found_series.find_series(study)
    told = refusal(choose, found, ["CT"])
    assert "2 series fit the bundle" in told and "pass --series NAME" in told
    names = re.findall(r"series_[0-9a-f]{8}", told)
    assert choose(found, ["CT"], names[0]).name == names[0]


@pytest.mark.parametrize("content", ["", "of Mustermann", "report"])
def test_a_folder_without_a_series_is_refused(deploy, tmp_path, refusal, content):
    if content == "report":
        change = lambda one, number: setattr(one, "Modality", "SR")  # noqa: E731
        deploy.made_series.write_series(scan()[..., :1], lying(), tmp_path, change=change)
    elif content:
        (tmp_path / "0001.dcm").write_text(content)
    assert "no DICOM image series was found" in refusal(deploy.found_series.find_series, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 400, b"no gzip"])
def test_a_nifti_file_that_is_none_is_refused(deploy, tmp_path, refusal, content):
    path = tmp_path / "Mustermann.nii.gz"
    path.write_bytes(content)
    assert "the NIfTI file can not be read" in refusal(deploy.volume.read_nifti, path)


def test_what_describes_the_package_agrees(repository):
    """The Dockerfile sets what the manifests name, and the platform is asked for the same in both."""
    folder = repository / "serve" / "monai_deploy"
    docker = (folder / "Dockerfile").read_text()
    app, package = (read_json(folder / f"{name}.json") for name in ("app", "pkg"))
    environment = dict(re.findall(r"([A-Z_]+)=(\S+?)(?: \\)?$", docker[docker.index("\nENV ") :], re.MULTILINE))
    assert environment == app["environment"]
    assert json.loads(re.search(r"ENTRYPOINT (.*)", docker)[1]) == app["command"].split()
    assert package["applicationRoot"] in docker and package["modelRoot"] + package["models"][0]["path"] in docker
    stated = dict(re.findall(r"^  (\w+): (\S+)$", (folder / "app.yaml").read_text(), re.MULTILINE))
    assert {key: str(value) for key, value in package["resources"].items()}.items() <= stated.items()
    assert app["version"] == package["version"] == stated["version"]
    for source in re.findall(r"^COPY ([^$\n]*) \S+$", docker, re.MULTILINE):
        assert all(list(repository.glob(path)) for path in source.split())
