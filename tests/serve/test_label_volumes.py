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
    ],
)
def test_an_nrrd_that_readers_understand_in_several_ways_is_refused(guard, refuses, tmp_path, fields, match):
    with refuses(422, match):
        guard.volumes.check(_nrrd(tmp_path / "a.nrrd", bytes(420), "raw", *fields), GiB)


@pytest.mark.parametrize("encoding", ["hex", "ascii", "txt", "zrl"])
def test_an_nrrd_of_another_encoding_is_refused(guard, refuses, tmp_path, encoding):
    with refuses(422, "another encoding.*one of raw, gzip"):
        guard.volumes.check(_nrrd(tmp_path / "a.nrrd", b"0 " * 210, encoding), GiB)
