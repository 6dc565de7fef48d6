"""What is sent to MONAI Label, looked at without it: zips, series, weights."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from label_uploads import write_slices, write_zip
from pydicom.encaps import encapsulate

GiB = 2**30

# zips


def test_a_zip_is_unpacked_under_neutral_names(guard, tmp_path):
    files = {"Doe/a.dcm": b"one", "Doe/": b"", "__MACOSX/Doe/a.dcm": b"fork", "Doe/b/c.dcm": b"two"}
    made = guard.archives.unpack(write_zip(tmp_path / "a.zip", files), _folder(tmp_path), GiB)
    assert [path.name for path in made] == ["000000", "000001"]
    assert [path.read_bytes() for path in made] == [b"one", b"two"]


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "C:/out", "..\\out", "\\\\host\\out"])
def test_a_name_that_leaves_the_folder_is_refused_before_anything_is_written(guard, refuses, tmp_path, name):
    archive, folder = write_zip(tmp_path / "a.zip", {"good": b"1", name: b"2"}), _folder(tmp_path)
    with refuses(422, "leaves its folder"):
        guard.archives.unpack(archive, folder, GiB)
    assert not list(folder.iterdir())


def test_links_and_locked_entries_are_refused(guard, refuses, tmp_path):
    def linked(entry):
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16

    with refuses(422, "holds a link"):
        guard.archives.unpack(write_zip(tmp_path / "a.zip", {"a": b"/etc/passwd"}, linked), _folder(tmp_path), GiB)
    locked = bytearray(write_zip(tmp_path / "b.zip", {"a": b"secret"}).read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list of contents
    (tmp_path / "b.zip").write_bytes(locked)
    with refuses(422, "encrypted"):
        guard.archives.unpack(tmp_path / "b.zip", tmp_path / "folder", GiB)


def test_a_zip_that_unpacks_to_too_much_is_refused(guard, refuses, tmp_path):
    with refuses(422, "times its size"):
        guard.archives.unpack(write_zip(tmp_path / "a.zip", {"a": bytes(4 << 20)}), _folder(tmp_path), GiB)
    noise = np.random.default_rng(0).bytes(3000)
    with refuses(413, "2 files of 0.00 GiB"):
        guard.archives.unpack(write_zip(tmp_path / "b.zip", {"a": noise, "b": noise}), tmp_path / "folder", 5999)
    assert len(guard.archives.unpack(tmp_path / "b.zip", tmp_path / "folder", 6000)) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_can_not_be_unpacked_by_and_by_is_refused(guard, refuses, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.dcm", bytes(1000))
    (tmp_path / "out").mkdir()
    with refuses(422, "stored or deflated"):
        guard.archives.unpack(tmp_path / "a.zip", tmp_path / "out", 10**6)
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_stream_is_refused(guard, refuses, tmp_path):
    content = write_zip(tmp_path / "a.zip", {"Doe/a.dcm": bytes(range(256)) * 50}).read_bytes()
    start = content.index(b"a.dcm") + 5
    (tmp_path / "a.zip").write_bytes(content[:start] + b"\xff" * 10 + content[start + 10 :])
    (tmp_path / "out").mkdir()
    with refuses(422, "whole zip"):
        guard.archives.unpack(tmp_path / "a.zip", tmp_path / "out", 10**6)


def test_a_deflated_file_is_refused_before_it_is_read(guard, refuses, tmp_path, monkeypatch):
    (path, *_) = write_slices(tmp_path / "series")
    one = pydicom.dcmread(path)
    one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(path, one, enforce_file_format=True)
    monkeypatch.setattr(pydicom, "dcmread", None)
    with refuses(422, "Deflated"):
        guard.series.check([path])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing", b"ustar  "])
def test_what_is_no_zip_is_refused(guard, refuses, tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with refuses(422, "whole zip"):
        guard.archives.unpack(tmp_path / "a.zip", _folder(tmp_path), GiB)


def test_a_damaged_entry_is_refused(guard, refuses, tmp_path):
    content = np.random.default_rng(0).bytes(4000)
    path = write_zip(tmp_path / "a.zip", {"a": content})
    broken = bytearray(path.read_bytes())
    broken[200:220] = bytes(20)
    path.write_bytes(broken)
    with refuses(422, "can not be read"):
        guard.archives.unpack(path, _folder(tmp_path), GiB)


def test_a_series_is_packed_flat_and_in_order(guard, tmp_path):
    for name in ("z", "a"):
        (tmp_path / name).write_bytes(name.encode())
    packed = guard.archives.pack([tmp_path / "z", tmp_path / "a"], tmp_path / "out.zip")
    with zipfile.ZipFile(packed) as opened:
        assert opened.namelist() == ["000000.dcm", "000001.dcm"] and opened.read("000000.dcm") == b"z"


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


# series


OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


@pytest.mark.parametrize("directions", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), OBLIQUE])
def test_a_series_is_ordered_along_its_normal(guard, tmp_path, directions):
    paths = write_slices(tmp_path / "series", directions=directions)
    (tmp_path / "series" / "notes.txt").write_text("no DICOM")
    found = guard.series.check([*paths, tmp_path / "series" / "notes.txt"])
    assert [int(path.name) for path in found] == [(number * 5) % 6 for number in range(6)]


def _set(**values):
    def change(one, number):
        for name, value in values.items():
            setattr(one, name, value)

    return change


def _at(number: int, change):
    return lambda one, place: change(one, place) if place == number else None


def _shrink(one, number):
    one.Rows, one.PixelData = 4, bytes(9 * 4 * 2)


def _move(one, number):
    one.ImagePositionPatient = [*one.ImagePositionPatient[:2], float(one.ImagePositionPatient[2]) + 2.5]


def _video(one, number):
    one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    one.PixelData = encapsulate([b"\0\0\1\xb3 no picture "])


def _drop(*names):
    def change(one, number):
        for name in names:
            delattr(one, name)

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_drop("PixelData"), "without pixel data"),
        (_at(2, _set(PixelData=bytes(40))), "cut short.*has 144 bytes"),
        (_at(2, _shrink), r"slices of .*9x8 \(5\).*all slices of a series have one size"),
        (_video, "MPEG2"),
        (_set(NumberOfFrames=3), "multi-frame"),
        (_set(SamplesPerPixel=3), "colour"),
        (_drop("RescaleSlope"), "CT is in HU"),
        (_at(3, _set(SeriesInstanceUID="1.2.4")), "2 series of [15], [15] slices"),
        (_at(3, _drop("ImagePositionPatient")), "without ImagePositionPatient"),
        (_at(3, _set(ImageOrientationPatient=[0, 1, 0, 0, 0, 1])), "several orientations"),
        (_at(3, _move), "two slices in one place"),
        (_at(5, _move), "evenly spaced"),
        (_set(Modality="SEG"), "none an image"),
    ],
)
def test_a_series_that_makes_no_volume_is_refused(guard, refuses, tmp_path, change, match):
    with refuses(422, match):
        guard.series.check(write_slices(tmp_path / "series", change))


def test_a_missing_slice_and_a_tilted_gantry_are_refused(guard, refuses, tmp_path):
    paths = write_slices(tmp_path / "series")
    with refuses(422, "2.50 to 5.00 mm apart"):
        guard.series.check([path for path in paths if path.name != "3"])
    with refuses(422, "gantry tilt"):
        guard.series.check(write_slices(tmp_path / "tilted", shear=(0.0, 0.4)))


def test_no_patient_is_named(guard, tmp_path):
    paths = write_slices(tmp_path / "series", _at(2, _shrink))
    with pytest.raises(guard.refused.Refused) as caught:
        guard.series.check(paths)
    assert b"Nobody" not in caught.value.body() and b"1.2.3" not in caught.value.body()


# weights


def test_weights_of_another_network_are_refused(guard, refuses, tmp_path):
    network, path = torch.nn.Conv3d(1, 2, 3), tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    guard.weights.check(path, network)
    with refuses(422, "another network's: 2 of 2 tensors differ"):
        guard.weights.check(path, torch.nn.Conv3d(1, 3, 3))
    torch.save({**network.state_dict(), "more": torch.zeros(1)}, path)
    with refuses(422, "another network's: 1 of 2"):
        guard.weights.check(path, network)
    torch.save({"weight": _Pickled()}, path)
    with refuses(422, "plain state dict"):
        guard.weights.check(path, network)
    path.write_bytes(b"no weights")
    with refuses(422, "plain state dict"):
        guard.weights.check(path, network)


class _Pickled:
    """An object that only a pickle holds."""
