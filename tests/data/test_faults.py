from __future__ import annotations

import gzip

import numpy as np
import pytest

from common.data.faults import file_fault
from tests.data.folders import write_nifti


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 30000, (20, 30, 40)).astype(np.int16)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_whole_files_have_no_fault(tmp_path, volume, ending):
    write_nifti(tmp_path / f"a{ending}", volume)
    assert file_fault(tmp_path / f"a{ending}") is None


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.02, 0.004])
def test_truncated_files_are_named(tmp_path, volume, ending, kept):
    path = tmp_path / f"a{ending}"
    write_nifti(path, volume)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    fault = file_fault(path)
    assert str(path) in fault and "it must be a whole NIfTI file. To mend it, fetch or make the file anew." in fault
    assert "is truncated or damaged" in fault or (ending == ".nii" and kept == 0.004 and "can not be read" in fault)


def test_several_gzip_members_are_no_fault(tmp_path, volume):
    write_nifti(tmp_path / "a.nii", volume)
    whole = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole[:1000]) + gzip.compress(whole[1000:]) + gzip.compress(b""))
    assert file_fault(tmp_path / "a.nii.gz") is None


def test_missing_empty_and_foreign_files(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.nii.gz").write_text("no volume, but long enough to have a trailer")
    (tmp_path / "scan.nrrd").write_text("not judged here")
    assert "does not exist: every listed file must be there" in file_fault(tmp_path / "no.nii.gz")
    assert "is empty: it must hold a volume" in file_fault(tmp_path / "empty.nii.gz")
    assert "is truncated or damaged (Not a gzipped file" in file_fault(tmp_path / "text.nii.gz")
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"text, properly compressed " * 20))
    assert "can not be read (Cannot work out file type" in file_fault(tmp_path / "text.nii.gz")
    assert file_fault(tmp_path / "scan.nrrd") is None


def test_a_damaged_header_is_told_from_foreign_content(tmp_path, volume):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, volume)
    content = bytearray(path.read_bytes())
    content[20:60] = bytes(40)
    path.write_bytes(bytes(content))
    assert "a.nii.gz' is truncated or damaged" in file_fault(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_colours_are_no_volume(tmp_path, volume, ending):
    colours = np.repeat((volume % 256).astype(np.uint8)[..., None], 3, -1)
    parts = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    write_nifti(tmp_path / f"a{ending}", colours.view(parts)[..., 0])
    assert "holds colours: a volume has one number a voxel. To mend it, save it in" in file_fault(
        tmp_path / f"a{ending}"
    )
