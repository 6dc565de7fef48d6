"""Volumes that are sent to MONAI Label, looked at without it."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

nrrd = pytest.importorskip("nrrd")
GiB = 2**30


def test_whole_volumes_pass(guard, tmp_path):
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4))
    for name in ("a.nii.gz", "a.nii"):
        nib.save(image, tmp_path / name)
        assert guard.volumes.check(tmp_path / name, GiB) == (5, 6, 7)
    for kind, size in ((np.uint8, 210), (np.uint16, 420), (np.int32, 840), (np.float64, 1680)):
        nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((5, 6, 7), kind))
        assert guard.volumes.check(tmp_path / "a.nrrd", size) == (5, 6, 7)
        with pytest.raises(guard.refused.Refused, match="header tells"):
            guard.volumes.check(tmp_path / "a.nrrd", size - 1)


def test_volumes_that_are_none_are_refused(guard, refuses, tmp_path):
    whole = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(5, 6, 7), np.eye(4)).to_bytes()
    contents = [b"", b"noise" * 99, gzip.compress(whole)[:-40], gzip.compress(whole[:-40]), gzip.compress(whole[:100])]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.nii.gz"
        path.write_bytes(content)
        with refuses(422, "no .nii.gz volume, or not a whole one"):
            guard.volumes.check(path, GiB)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole))
    with refuses(413, r"\(5, 6, 7\)"):
        guard.volumes.check(tmp_path / "a.nii.gz", 500)


def _nrrd(path: Path, data: bytes, encoding: str, *fields: str, sizes: str = "5 6 7") -> Path:
    lines = ["NRRD0004", "type: int16", "dimension: 3", f"sizes: {sizes}", "endian: little", f"encoding: {encoding}"]
    path.write_bytes("\n".join([*lines, *fields, "", ""]).encode() + data)
    return path


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", gzip.compress), ("gz", gzip.compress), ("bzip2", bz2.compress), ("raw", bytes)]
)
def test_an_nrrd_holds_what_its_header_promises(guard, refuses, tmp_path, encoding, packed):
    path = tmp_path / "a.nrrd"
    assert guard.volumes.check(_nrrd(path, packed(bytes(420)), encoding), 420) == (5, 6, 7)
    with refuses(422, "no .nrrd volume, or not a whole one"):
        guard.volumes.check(_nrrd(path, packed(bytes(419)), encoding), GiB)
    with refuses(413, "header tells"):
        guard.volumes.check(_nrrd(path, packed(bytes(420)), encoding, sizes="4096 4096 4096"), GiB)
    with refuses(422, "no .nrrd volume, or not a whole one"):  # its reader would take the byte too many
        guard.volumes.check(_nrrd(path, packed(bytes(421)), encoding), GiB)
    if encoding != "raw":
        with refuses(422, "no .nrrd volume, or not a whole one"):
            guard.volumes.check(_nrrd(path, packed(bytes(420))[:-12], encoding), GiB)
        with refuses(422, "no .nrrd volume, or not a whole one"):
            guard.volumes.check(_nrrd(path, b"noise" * 99, encoding), GiB)


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_data_that_an_nrrd_does_not_promise_is_not_unpacked(guard, refuses, tmp_path, encoding, packed):
    path = _nrrd(tmp_path / "a.nrrd", packed(bytes(200 << 20)), encoding)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with refuses(422, "no .nrrd volume, or not a whole one"):
        guard.volumes.check(path, GiB)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 << 20
    with refuses(422, "not a whole one"):
        guard.volumes.check(_nrrd(path, packed(bytes(421)), encoding), GiB)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (["data file: /etc/passwd"], "points to another file"),
        (["datafile: ../a.raw"], "points to another file"),
        (["Data File: LIST"], "points to another file"),
        (["DATAFILE: a/b.raw"], "points to another file"),
        (["byte skip: -1"], "must follow the header"),
        (["line skip: 9"], "must follow the header"),
        (["Encoding: gzip"], "must follow the header"),
        (["SIZES: 9 9 9"], "must follow the header"),
        (["data file:=/etc/passwd"], "points to another file"),  # to pynrrd this is a field
        (["line skip:=1"], "must follow the header"),
        (["line skip: 0", "lineskip: 0"], "must follow the header"),
        (["line skip: none"], "not a whole one"),
        (["type:=CT"], "not a whole one"),
    ],
)
def test_an_nrrd_that_readers_understand_in_several_ways_is_refused(guard, refuses, tmp_path, fields, match):
    with refuses(422, match):
        guard.volumes.check(_nrrd(tmp_path / "a.nrrd", bytes(420), "raw", *fields), GiB)


@pytest.mark.parametrize(
    "fields", [["Type:=CT"], ["Data File:=mine"], ["key:=a: b"], ["line skip: 0"], ["byte skip: 0"], ["# sizes: 9"], []]
)
def test_what_pynrrd_reads_passes(guard, tmp_path, fields):
    path = _nrrd(tmp_path / "a.nrrd", bytes(420), "raw", *fields)
    assert guard.volumes.check(path, GiB) == nrrd.read(str(path))[0].shape == (5, 6, 7)


def _refused_by_pynrrd(path: Path) -> bool:
    try:
        nrrd.read(str(path))
    except nrrd.NRRDError:
        return True
    return False


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("raw", bytes(422)),
        ("gzip", gzip.compress(bytes(200)) + gzip.compress(bytes(220))),
        ("bzip2", bz2.compress(bytes(200)) + bz2.compress(bytes(220))),
    ],
    ids=["raw", "gzip", "bzip2"],  # compressed data hold the time
)
def test_data_that_pynrrd_would_not_take_is_refused(guard, refuses, tmp_path, encoding, data):
    path = _nrrd(tmp_path / "a.nrrd", data, encoding)
    assert _refused_by_pynrrd(path)
    with refuses(422, "not a whole one"):
        guard.volumes.check(path, GiB)


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("raw", bytes)])
@pytest.mark.parametrize("told", ["", "endian: middle\n", "Endian: little\n"])
def test_an_nrrd_tells_the_order_of_its_bytes(guard, refuses, tmp_path, encoding, packed, told):
    path = _nrrd(tmp_path / "a.nrrd", packed(bytes(420)), encoding)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"endian: little\n", told.encode()))
    assert _refused_by_pynrrd(path)
    with refuses(422, "order of its bytes"):
        guard.volumes.check(path, GiB)
    path.write_bytes(content.replace(b"endian: little", b"endian: big"))
    assert guard.volumes.check(path, GiB) == (5, 6, 7)
    path.write_bytes(_nrrd(path, packed(bytes(210)), encoding).read_bytes().replace(b"int16\n", b"uint8\n"))
    path.write_bytes(path.read_bytes().replace(b"endian: little\n", b""))  # one byte has no order
    assert guard.volumes.check(path, GiB) == (5, 6, 7)


def test_data_larger_than_what_is_unpacked_at_a_time_is_counted(guard, refuses, tmp_path):
    noise = np.random.default_rng(0).bytes(2 * 160 * 160 * 100)
    for encoding, packed in (("gzip", gzip.compress), ("bzip2", bz2.compress), ("raw", bytes)):
        path = _nrrd(tmp_path / "a.nrrd", packed(noise), encoding, sizes="160 160 100")
        assert guard.volumes.check(path, GiB) == (160, 160, 100)
        with refuses(422, "not a whole one"):
            guard.volumes.check(_nrrd(path, packed(noise[:-1]), encoding, sizes="160 160 100"), GiB)


def test_a_header_without_an_end_is_not_read(guard, refuses, tmp_path):
    path = _nrrd(tmp_path / "a.nrrd", bytes(420), "raw", *["# as long as it likes" * 40] * 100_000)
    assert path.stat().st_size > 80 << 20
    tracemalloc.start()
    with refuses(422, "header of more than 1 MiB.*leave out comments"):
        guard.volumes.check(path, GiB)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 << 20
    path = _nrrd(path, bytes(420), "raw", *["# as long as it may be" * 40] * 1000)
    assert path.stat().st_size > 800 << 10 and guard.volumes.check(path, GiB) == (5, 6, 7)
    for content in (b"", b"NRRD0004\n"):
        path.write_bytes(content)
        with refuses(422, "not a whole one"):
            guard.volumes.check(path, GiB)


@pytest.mark.parametrize("encoding", ["hex", "ascii", "txt", "zrl"])
def test_an_nrrd_of_another_encoding_is_refused(guard, refuses, tmp_path, encoding):
    with refuses(422, "another encoding.*one of raw, gzip"):
        guard.volumes.check(_nrrd(tmp_path / "a.nrrd", b"0 " * 210, encoding), GiB)
