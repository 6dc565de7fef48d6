"""Archives from elsewhere: what is refused, and that nothing stays behind."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections import namedtuple

import pytest
from dicom_series import stored_scan
from studies import write_series

from common.checks import InputError
from common.dicom import archive
from common.dicom.archive import unpacked
from common.dicom.series import find_series


@pytest.fixture
def place(tmp_path):
    """Where private folders are made, which has to be empty again at the end."""
    folder = tmp_path / "private"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def _zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, content in entries:
            made.writestr(name, content)
    return path


def test_files_as_they_were_in_a_private_folder(tmp_path, place):
    inner = io.BytesIO()
    _zip(inner, [("x", b"1")])
    path = _zip(
        tmp_path / "x.zip", [("a/", b""), ("a/b/c", b"one"), ("d", b""), ("a\\e", b"two"), ("in.zip", inner.getvalue())]
    )
    with unpacked(path, place) as folder:
        found = {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.parent == place
        (folder / "more").touch()
    assert found == {"a/b/c": b"one", "d": b"", "a/e": b"two", "in.zip": inner.getvalue()}


def test_a_zipped_study_is_found(tmp_path, place):
    folder = write_series(tmp_path / "study", stored_scan())
    path = _zip(tmp_path / "x.zip", [(f"Doe_Jane/{one.name}", one.read_bytes()) for one in folder.iterdir()])
    with unpacked(path, place) as unzipped:
        (series,) = find_series(unzipped)
    assert series.images == 6


def test_the_folder_goes_away_after_an_error_of_the_user_of_it(tmp_path, place):
    with pytest.raises(KeyboardInterrupt), unpacked(_zip(tmp_path / "x.zip", [("a", b"1")]), place):
        raise KeyboardInterrupt


def _entry(name, mode=0, **fields):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


BAD = [
    ("../Doe", "leaves the archive"),
    ("a/../../Doe", "leaves the archive"),
    ("a\\..\\..\\Doe", "leaves the archive"),
    ("/etc/Doe", "absolute path or a drive letter"),
    ("\\\\server\\Doe", "absolute path or a drive letter"),
    ("C:\\Doe", "absolute path or a drive letter"),
    ("c:Doe", "absolute path or a drive letter"),
    (".", "leaves the archive"),
    (_entry("Doe", stat.S_IFLNK | 0o777), "is a link or a device"),
    (_entry("Doe", stat.S_IFIFO), "is a link or a device"),
    ("GOOD", "is there twice"),
    (_entry("Doe", compress_type=zipfile.ZIP_BZIP2), "is neither stored nor deflated"),
    (_entry("Doe", compress_type=zipfile.ZIP_LZMA), "is neither stored nor deflated"),
]


@pytest.mark.parametrize(("name", "text"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_nothing_is_written_of_an_archive_with_a_bad_entry(tmp_path, place, monkeypatch, name, text):
    path = _zip(tmp_path / "Doe.zip", [("good", b"1"), (name, b"/etc/passwd")])
    monkeypatch.setattr(archive, "_unpack", lambda *_: pytest.fail("something was written"))
    with pytest.raises(
        InputError, match=f"entry 2 of the archive .*{text}: .*plain files.*pack the files anew"
    ) as caught:
        with unpacked(path, place):
            pass
    assert "Doe" not in str(caught.value) and not list(tmp_path.parent.glob("Doe*"))


def test_an_encrypted_entry(tmp_path, place):
    path = _zip(tmp_path / "x.zip", [("a", b"1")])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="entry 1 of the archive is encrypted"), unpacked(path, place):
        pass


def test_more_files_than_the_limit(tmp_path, place):
    path = _zip(tmp_path / "x.zip", [(str(number), b"") for number in range(5)])
    with unpacked(path, place, files=5):
        pass
    with pytest.raises(InputError, match="holds 5 entries: it may hold 4.*unpack it yourself"):
        with unpacked(path, place, files=4):
            pass


def test_more_bytes_than_the_limit(tmp_path, place):
    path = _zip(tmp_path / "x.zip", [("a", bytes(600)), ("b", bytes(600))])
    with unpacked(path, place, size=1200):
        pass
    with pytest.raises(
        InputError, match="says that it holds 1.12e-06 GiB: at most 1.12e-06 GiB and 200 times its own size"
    ):
        with unpacked(path, place, size=1199):
            pass


def test_a_bomb(tmp_path, place, monkeypatch):
    monkeypatch.setattr(archive, "_SMALL", 1 << 20)
    path = _zip(tmp_path / "x.zip", [("a", bytes(3 << 20))])
    assert 3 << 20 > 200 * path.stat().st_size > 1 << 19
    with pytest.raises(InputError, match="says that it holds 0.00293 GiB: .*if you trust it"), unpacked(path, place):
        pass
    monkeypatch.setattr(archive, "_SMALL", 3 << 20)
    with unpacked(path, place):  # small ones may be as thin as they like: slices of nothing but air
        pass


def test_a_bomb_that_says_it_is_small(tmp_path, place):
    path = _zip(tmp_path / "x.zip", [("a", bytes(1 << 20))])
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 1 << 20), struct.pack("<I", 100)))
    with pytest.raises(InputError, match=r"entry 1 of the archive can not be unpacked \(BadZipFile\)"):
        with unpacked(path, place):
            pass


def test_what_comes_out_is_counted_whatever_the_archive_says(tmp_path, place, monkeypatch):
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return bytes(size)

    path = _zip(tmp_path / "x.zip", [("a", b"1")])
    monkeypatch.setattr(archive.zipfile.ZipFile, "open", lambda *_: Endless())
    with pytest.raises(InputError, match="the archive does not end: at most 0.00293 GiB"):
        with unpacked(path, place, size=3 << 20):
            pass


def test_more_than_the_disk_holds(tmp_path, place, monkeypatch):
    usage = namedtuple("usage", "free")(1)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="more than is free for temporary files: .*set TMPDIR"):
        with unpacked(_zip(tmp_path / "x.zip", [("a", b"12")]), place):
            pass


@pytest.mark.parametrize(
    "content", [b"", b"no zip", b"PK\x03\x04 and no end"], ids=["empty", "another kind", "cut off"]
)
def test_no_zip(tmp_path, place, content):
    (tmp_path / "Doe.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"archive can not be opened \(BadZipFile\): .*whole zip") as caught:
        with unpacked(tmp_path / "Doe.zip", place):
            pass
    assert "Doe" not in str(caught.value)
    with pytest.raises(InputError, match=r"can not be opened \(FileNotFoundError\)"), unpacked(tmp_path / "no", place):
        pass


def test_a_damaged_entry(tmp_path, place):
    path = _zip(tmp_path / "x.zip", [("a", b"1"), ("b", b"plain text")], zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"plain", b"other"))
    with pytest.raises(InputError, match=r"entry 2 of the archive can not be unpacked \(BadZipFile\)"):
        with unpacked(path, place):
            pass


def test_a_folder_and_a_file_of_one_name(tmp_path, place):
    path = _zip(tmp_path / "x.zip", [("a", b"1"), ("a/b", b"2")])
    with pytest.raises(InputError, match="entry 2 of the archive can not be unpacked"), unpacked(path, place):
        pass
