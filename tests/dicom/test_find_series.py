"""Which series lie in a folder, which volumes are in a series, and the choice among them."""

from __future__ import annotations

import hashlib
import logging
import shutil
import zlib

import numpy as np
import pydicom
import pytest
from dicom_series import AXIAL, SHAPE, SPACING, stored_scan
from studies import CORONAL, OBLIQUE, SAGITTAL, SECRETS, write_frames, write_series

from common.checks import InputError
from common.dicom import headers
from common.dicom.headers import quiet
from common.dicom.series import choose_series, find_series, series_table
from common.dicom.volume import read_series


def test_what_a_series_says_of_itself(tmp_path):
    folder = write_series(tmp_path, stored_scan(), OBLIQUE, names=[5, 4, 3, 2, 1, 0])
    (series,) = find_series(folder)
    assert (series.uid, series.modality, series.number) == ("2.25.4711", "CT", 3)
    assert series.name == f"series_{hashlib.sha256(b'2.25.4711').hexdigest()[:8]}"
    assert series.shape == SHAPE and series.images == SHAPE[2] and series.spacing == pytest.approx(SPACING)
    assert [path.name for path in series.files] == [f"jane_doe_{number}" for number in (5, 4, 3, 2, 1, 0)]
    assert [plane.file for plane in series.planes] == list(series.files)
    shown = f"{series!r} {series.planes[0]!r} {headers.read_header(series.files[0])!r}"
    assert not any(secret in shown for secret in (*SECRETS, "jane_doe", str(tmp_path)))


def test_series_of_several_folders_and_whatever_else_lies_there(tmp_path):
    """Foreign files, objects without images, copies; by series number, then by uid."""
    write_series(tmp_path / "a" / "b", stored_scan(), tags={"uid": "2.25.2", "number": 7})
    write_series(tmp_path / "c", stored_scan(), CORONAL, tags={"uid": "2.25.1", "number": 7, "modality": "MR"})
    write_series(tmp_path / "d", stored_scan(), tags={"uid": "2.25.3", "number": 1})
    shutil.copytree(tmp_path / "d", tmp_path / "e", dirs_exist_ok=True)
    for modality in ("SEG", "RTSTRUCT", "RTDOSE", "SR", "PR"):
        write_series(
            tmp_path / "f" / modality, stored_scan(), tags={"uid": f"2.25.4{len(modality)}", "modality": modality}
        )

    def blank(one, number):
        del one.Rows, one.Columns, one.PixelData
        one.SOPClassUID = pydicom.uid.RawDataStorage

    write_series(tmp_path / "g", stored_scan(), tags={"uid": "2.25.5", "modality": "OT"}, change=blank)
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    (tmp_path / "empty").touch()
    (tmp_path / "zeros").write_bytes(bytes(4096))
    (tmp_path / "alike").write_bytes(b"\x08\x00\x05\x00")
    found = find_series(tmp_path)
    assert [(one.uid, one.modality, one.images) for one in found] == [
        ("2.25.3", "CT", 6),
        ("2.25.1", "MR", 6),
        ("2.25.2", "CT", 6),
    ]
    assert {path.parent.name for path in found[0].files} == {"d"}
    assert find_series(tmp_path / "f") == [] and find_series(tmp_path / "d" / "jane_doe_0")[0].images == 1


@pytest.mark.parametrize("length", [150, 300, 560, 700])
def test_a_damaged_file_is_counted_not_named(tmp_path, caplog, length):
    folder = write_series(tmp_path, stored_scan())
    whole = (folder / "jane_doe_5").read_bytes()
    (folder / "jane_doe_5").write_bytes(whole[:length])
    (series,) = find_series(folder)
    assert series.images == 5
    assert caplog.messages == ["1 DICOM files can not be read and were passed over; are slices missing?"]


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "index"])
def test_a_directory_of_a_medium_is_no_series_and_no_damage(tmp_path, caplog, name):
    folder = write_series(tmp_path, stored_scan())
    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    one.FileSetID = "DISC"
    one.save_as(folder / name, enforce_file_format=True)
    assert [series.images for series in find_series(folder)] == [6] and not caplog.messages


def test_odd_values_in_headers_are_not_quoted(tmp_path, recwarn, caplog):
    def change(one, number):
        with quiet():
            one.PatientBirthDate, one.SeriesDescription = "born 19500203", 80 * "Doe"
            one.ImageType, one.AcquisitionNumber = ["Doe\u00e9", 99 * "Jane"], 10**14

    folder = write_series(tmp_path, stored_scan(), change=change)
    recwarn.clear()
    (series,) = find_series(folder)
    read_series(series)
    assert not recwarn.list and not caplog.messages and not logging.getLogger("pydicom").disabled


def _deflated(path, content):
    one = pydicom.dcmread(path)
    one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    one.save_as(path)
    if content is not None:
        start = 128 + 4 + 12 + one.file_meta.FileMetaInformationGroupLength
        path.write_bytes(path.read_bytes()[:start] + content)


def test_deflated_files_and_a_bomb_among_them(tmp_path, monkeypatch):
    folder = write_series(tmp_path, stored_scan())
    for path in folder.iterdir():
        _deflated(path, None)
    (series,) = find_series(folder)
    np.testing.assert_array_equal(read_series(series).array, stored_scan().astype(int) - 1024)
    monkeypatch.setattr(headers, "_DEFLATED_MOST", 1 << 20)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    _deflated(series.files[5], packer.compress(bytes(2 << 20)) + packer.flush())
    read = []
    monkeypatch.setattr(headers.pydicom, "dcmread", lambda path, **_: read.append(path) or pydicom.Dataset())
    find_series(folder)
    assert series.files[5] not in read and len(read) == 5


def test_a_deflated_file_is_known_however_long_what_comes_before_is(tmp_path, monkeypatch):
    path = next(write_series(tmp_path, stored_scan()).iterdir())
    one = pydicom.dcmread(path)
    one.file_meta.FileMetaInformationVersion = bytes(10_000)
    one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    one.save_as(path)
    assert headers.read_header(path) is not None
    monkeypatch.setattr(headers, "_DEFLATED_MOST", 1)
    with pytest.raises(InputError, match="OverflowError"):
        headers.read_header(path)


def test_what_a_header_says_of_its_length_does_not_lead_past_a_bomb(tmp_path, monkeypatch):
    path = next(write_series(tmp_path, stored_scan()).iterdir())
    _deflated(path, None)
    content = bytearray(path.read_bytes())
    content[140:144] = (int.from_bytes(content[140:144], "little") + 4).to_bytes(4, "little")
    path.write_bytes(content)
    monkeypatch.setattr(headers, "_DEFLATED_MOST", 1)
    with pytest.raises(InputError, match="OverflowError"):
        headers.read_header(path)


def test_more_frames_than_any_scanner_writes(tmp_path, caplog):
    def change(one, number):
        one.NumberOfFrames = 10**9

    assert find_series(write_series(tmp_path, stored_scan(), change=change)) == []
    assert "6 DICOM files can not be read" in caplog.messages[-1]


def test_links_among_folders_are_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(write_series(tmp_path / "out", stored_scan()), target_is_directory=True)
    assert find_series(tmp_path / "in") == []


def test_a_place_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="place of the DICOM series does not exist: .*check the path") as caught:
        find_series(tmp_path / "Doe_Jane")
    assert "Doe" not in str(caught.value)


def test_without_pydicom(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "has_pydicom", False)
    with pytest.raises(InputError, match=r'pydicom is not installed.*pip install "volseg\[dicom\]"'):
        find_series(tmp_path)


def _together(folder, *parts):
    """Several volumes under one SeriesInstanceUID: volume, directions and what sets each apart."""
    for at, (volume, directions, tags) in enumerate(parts):

        def change(one, number, tags=tags, at=at):
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.1{at}{number}"
            one.InstanceNumber = 100 * at + number
            for keyword, value in tags.items():
                setattr(one, keyword, value(number) if callable(value) else value)

        names = [f"{at}_{number}" for number in range(volume.shape[2])]
        write_series(folder, volume, directions, names, change=change, tags={"modality": "MR"})
    return folder


A, B, C = (stored_scan(seed) for seed in range(3))
LOW = np.ascontiguousarray(stored_scan(4)[:, :5])
SPLITS = {
    "three planes of a localiser": [(A[..., :1], AXIAL, {}), (A[..., :1], CORONAL, {}), (A[..., :1], SAGITTAL, {})],
    "matrix": [(A, AXIAL, {}), (LOW, AXIAL, {})],
    "echo": [(A, AXIAL, {"EchoNumbers": 1, "EchoTime": 10}), (B, AXIAL, {"EchoNumbers": 2, "EchoTime": 20})],
    "echo time alone": [(A, AXIAL, {"EchoTime": 10}), (B, AXIAL, {"EchoTime": 20})],
    "time points": [(one, AXIAL, {"TemporalPositionIdentifier": at}) for at, one in enumerate([A, B, C], 1)],
    "echoes at time points": [
        (one, AXIAL, {"EchoNumbers": echo, "TemporalPositionIdentifier": time})
        for one, echo, time in [(A, 1, 1), (B, 2, 1), (C, 1, 2), (A, 2, 2)]
    ],
    "water and fat": [(A, AXIAL, {"ImageType": ["DERIVED", "WATER"]}), (B, AXIAL, {"ImageType": ["DERIVED", "FAT"]})],
    "diffusion": [
        (A, AXIAL, {"DiffusionBValue": 0.0}),
        (B, AXIAL, {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": [1.0, 0.0, 0.0]}),
        (C, AXIAL, {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": [0.0, 1.0, 0.0]}),
    ],
    "a time point that was broken off": [
        (A, AXIAL, {"TemporalPositionIdentifier": 1}),
        (np.ascontiguousarray(B[..., :4]), AXIAL, {"TemporalPositionIdentifier": 2}),
    ],
}


@pytest.mark.parametrize("parts", SPLITS.values(), ids=SPLITS.keys())
def test_one_series_of_several_volumes(tmp_path, parts):
    found = find_series(_together(tmp_path, *parts))
    assert [one.name for one in found] == [f"{found[0].name[:15]}_{at}" for at in range(1, len(parts) + 1)]
    for one, (volume, *_) in zip(found, parts, strict=True):
        assert one.shape == volume.shape
        np.testing.assert_array_equal(read_series(one).array, volume.astype(int) - 1024)


@pytest.mark.parametrize(
    "tags",
    [
        {"AcquisitionTime": lambda number: f"1012{number:02}"},
        {"AcquisitionNumber": lambda number: number + 1},
        {"ImageType": lambda number: ["ORIGINAL", "PRIMARY", "FIRST" if number < 2 else "REST"]},
    ],
)
def test_what_differs_from_slice_to_slice_splits_nothing(tmp_path, tags):
    (series,) = find_series(_together(tmp_path, (A, AXIAL, tags)))
    np.testing.assert_array_equal(read_series(series).array, A.astype(int) - 1024)


@pytest.mark.parametrize(
    "tags", [({}, {}), ({"AcquisitionTime": lambda n: f"1012{n:02}"}, {"AcquisitionTime": lambda n: f"1013{n:02}"})]
)
def test_what_can_not_be_told_apart_is_refused(tmp_path, tags):
    (series,) = find_series(_together(tmp_path, (A, AXIAL, tags[0]), (B, AXIAL, tags[1])))
    assert series.images == 2 * SHAPE[2]
    with pytest.raises(InputError, match="different slices lie at one place"):
        read_series(series)


@pytest.fixture
def study(tmp_path):
    """A scout, a CT and an MR, and the CT's echo of itself."""
    write_series(tmp_path / "1", stored_scan()[..., :1], CORONAL, tags={"uid": "2.25.1", "number": 1})
    write_series(tmp_path / "2", stored_scan(), tags={"uid": "2.25.4711", "number": 2})
    write_series(tmp_path / "3", stored_scan(), OBLIQUE, tags={"uid": "2.25.3", "number": 3, "modality": "MR"})
    return find_series(tmp_path)


def test_a_series_alone_is_taken(study):
    assert choose_series(study[:1], modality="MR", ask=pytest.fail) == study[:1]


@pytest.mark.parametrize(("wanted", "taken"), [(1, [0]), ("3", [2]), (" ALL ", [0, 1, 2])])
def test_the_series_that_was_asked_for(study, wanted, taken):
    assert choose_series(study, wanted, "MR", pytest.fail) == [study[at] for at in taken]


@pytest.mark.parametrize("modality", ["MR", ["mr"], ["MR", "US"]])
def test_the_only_one_of_the_modality(study, modality):
    assert choose_series(study, None, modality, pytest.fail) == [study[2]]


@pytest.mark.parametrize(
    ("modality", "answer", "taken"), [("CT", "2", [1]), (None, "all", [0, 1, 2]), (["US"], "1", [0])]
)
def test_a_person_is_asked(study, modality, answer, taken):
    shown = []
    assert choose_series(study, None, modality, lambda table: shown.append(table) or answer) == [
        study[at] for at in taken
    ]
    assert "for Dr Smith" in shown[0] and len(shown[0].splitlines()) == 3


@pytest.mark.parametrize("modality", [None, "CT", ["US"]])
def test_where_nobody_can_be_asked_the_list_is_the_error(study, modality):
    with pytest.raises(
        InputError, match="3 DICOM series were found: one must be chosen.*--series N, from 1 to 3"
    ) as caught:
        choose_series(study, None, modality)
    assert series_table(study) in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)


@pytest.mark.parametrize("wanted", ["0", "4", "-1", "two", "1.0", 0])
def test_a_number_that_is_not_in_the_list(study, wanted):
    with pytest.raises(InputError, match=f"series '{wanted}' was asked for, and 3 were found: .*from 1 to 3, or all"):
        choose_series(study, wanted)
    with pytest.raises(InputError, match="must be a number from 1 to 3"):
        choose_series(study, ask=lambda table: str(wanted))


def test_nothing_to_choose_from():
    with pytest.raises(InputError, match="no DICOM image series was found: .*SEG, RTSTRUCT, SR and PR are none"):
        choose_series([])


def test_the_table_says_what_can_be_told_without_a_name(study):
    lines = series_table(study).splitlines()
    assert (
        lines[0].startswith(f"    1  {study[0].name}  CT") and "9x8x1 voxels of 0.7 x 0.8 x 1.5 mm, coronal" in lines[0]
    )
    assert "9x8x6 voxels of 0.7 x 0.8 x 2.5 mm, axial, number 2 of its study" in lines[1]
    assert "oblique, number 3 of its study" in lines[2]


def test_a_description_can_not_command_the_terminal(tmp_path):
    def change(one, number):
        with quiet():
            one.SeriesDescription = "T2\x1b[2J\naxial " + 80 * "x"

    (line,) = series_table(find_series(write_series(tmp_path, A, change=change)), descriptions=True).splitlines()
    assert line.endswith("study: T2[2Jaxial " + 53 * "x")


def test_frames_of_one_file_in_the_table(tmp_path):
    (series,) = find_series(write_frames(tmp_path / "x", [A]))
    assert series.files == (tmp_path / "x",) and len(series.planes) == series.images == SHAPE[2]
    assert series.shape == SHAPE and series.spacing == pytest.approx(SPACING)
