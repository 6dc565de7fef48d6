"""The converter of 3D-IRCADb-01 on tiny data sets as they are handed out."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'volseg[formats]'")

from dicom_series import ORIGIN, SHAPE, SPACING, block, slices, stored_scan, write  # noqa: E402

from common.checks import InputError  # noqa: E402
from common.cli.commands import main  # noqa: E402
from common.data import convert_ircadb, training_cases  # noqa: E402

LIVER = block(slice(2, 7), slice(2, 6), slice(1, 5))
TUMOURS = {
    "livertumor01": block(slice(3, 5), slice(3, 5), slice(2, 4)),
    "livertumor02": block(slice(5, 8), slice(2, 4), slice(1, 2)),  # a column of it outside the liver
    "livercyst": block(slice(2, 3), slice(5, 6), slice(4, 5)),
    "stones": block(slice(8, 9), slice(6, 7), slice(3, 4)),
}
OTHERS = {"bone": block(slice(0, 2), slice(0, 2), slice(0, 6)), "tumor": block(slice(0, 1)), "livervessels": LIVER}


def case(
    folder: Path, number: int, masks: dict[str, np.ndarray] | None = None, seed: int | None = None, **more
) -> Path:
    """A case in its folders; `more` is of the scan's slices."""
    place = folder / f"3Dircadb1.{number}"
    write(place / "PATIENT_DICOM", slices(stored_scan(number if seed is None else seed), **more))
    for name, mask in ({"liver": LIVER} if masks is None else masks).items():
        write(place / "MASKS_DICOM" / name, slices(mask, rescale=None))
    return place


def zipped(folder: Path, name: str) -> None:
    """Make a folder of a case the archive that is handed out."""
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        for path in sorted((folder / name).rglob("*")):
            archive.write(path, path.relative_to(folder))
        archive.writestr(f"__MACOSX/{name}/._image_0", b"x")
    shutil.rmtree(folder / name)


def volume(out: Path, part: str, name: str) -> nibabel.Nifti1Image:
    return nibabel.load(out / part / f"{name}.nii.gz")


def content(out: Path) -> dict:
    return json.loads((out / "dataset.json").read_text())


@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("above", ["", "3Dircadb1", "a/b/c"])
def test_cases_in_folders_and_archives(tmp_path, archived, above):
    for number in (10, 2):
        place = case(tmp_path / "source" / above, number, {"liver": LIVER, **TUMOURS, **OTHERS})
        for name in ("PATIENT_DICOM", "MASKS_DICOM") if archived else ():
            zipped(place, name)
    report = convert_ircadb(tmp_path / "source", tmp_path / "out")
    assert list(report["cases"]) == ["3Dircadb1_2", "3Dircadb1_10"] and report["dropped"] == []
    expected = (LIVER > 0).astype(int)
    for mask in TUMOURS.values():
        expected[mask > 0] = 2
    for name, number in (("3Dircadb1_2", 2), ("3Dircadb1_10", 10)):
        image, label = volume(tmp_path / "out", "imagesTr", name), volume(tmp_path / "out", "labelsTr", name)
        np.testing.assert_array_equal(np.asarray(image.dataobj), stored_scan(number).astype(int) - 1024)
        np.testing.assert_array_equal(np.asarray(label.dataobj), expected)
        np.testing.assert_allclose(image.affine[:3, :3], np.diag(SPACING) * [[-1], [-1], [1]], atol=1e-5)
        np.testing.assert_allclose(image.affine[:3, 3], np.array(ORIGIN) * [-1, -1, 1], atol=1e-5)
        np.testing.assert_array_equal(image.affine, label.affine)
        assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint8
        assert report["cases"][name] == {
            "shape": list(SHAPE),
            "spacing": list(SPACING),
            "hounsfield": [float(image.dataobj[:].min()), float(image.dataobj[:].max())],
            "voxels": dict(zip(("background", "liver", "tumour"), np.bincount(expected.ravel()).tolist(), strict=True)),
            "tumours": sorted(TUMOURS),
            "outside": 2 + 1,
            "notes": [],
        }
    made = content(tmp_path / "out")
    assert made["collection"] == "3D-IRCADb-01" and made["labels"] == {"0": "background", "1": "liver", "2": "tumour"}
    assert "Nobody" not in json.dumps([made, report]) and len(training_cases(tmp_path / "out")) == 2


def test_only_tumours_on_demand(tmp_path):
    case(tmp_path / "s", 1, {"liver": LIVER, **TUMOURS})
    report = convert_ircadb(tmp_path / "s", tmp_path / "out", lesions="tumours", name="ircad")
    assert report["cases"]["3Dircadb1_1"]["tumours"] == ["livertumor01", "livertumor02"]
    label = np.asarray(volume(tmp_path / "out", "labelsTr", "3Dircadb1_1").dataobj)
    np.testing.assert_array_equal(label == 2, (TUMOURS["livertumor01"] + TUMOURS["livertumor02"]) > 0)
    assert content(tmp_path / "out")["name"] == "ircad"
    with pytest.raises(InputError, match="lesions is 'all': it must be one of released, tumours"):
        convert_ircadb(tmp_path / "s", tmp_path / "other", lesions="all")


def test_one_bad_case_does_not_end_the_batch(tmp_path, capsys):
    source = tmp_path / "s"
    case(source, 1)
    case(source, 2, shear=(0.0, 0.9))
    (case(source, 3) / "PATIENT_DICOM" / "image_2").unlink()
    shutil.rmtree(case(source, 4) / "MASKS_DICOM")
    case(source, 5, {"livertumor": LIVER})
    case(source, 6, {"liver": 0 * LIVER})
    case(source, 7, rescale=None)
    (case(source, 8) / "MASKS_DICOM" / "liver" / "image_2").write_bytes(b"")
    shutil.rmtree(case(source, 9) / "PATIENT_DICOM")
    place = case(source, 11)
    zipped(place, "PATIENT_DICOM")
    archive = place / "PATIENT_DICOM.zip"
    archive.write_bytes(archive.read_bytes()[:500])
    write(case(source, 12) / "PATIENT_DICOM" / "second", slices(stored_scan(3)))
    case(source, 13, change=lambda one, number: setattr(one, "PixelSpacing", [1]))
    write(case(source, 14) / "PATIENT_DICOM", {99: slices(stored_scan(15))[3]})
    assert main(["convert", "3dircadb", str(source), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "tumour: in 0 cases" in printed and "1 cases, 12 dropped" in printed
    why = {one["case"].partition("_")[2]: one["why"] for one in content(tmp_path / "out")["dropped"]}
    assert [entry["patient"] for entry in content(tmp_path / "out")["training"]] == ["3Dircadb1_1"]
    expected = {
        "2": "its gantry was tilted by 19.8 degrees",
        "3": "about 1 of its slices are missing",
        "4": "it has no MASKS_DICOM",
        "5": "it has no mask 'liver'",
        "6": "its mask 'liver' is empty",
        "7": "its image has no air (its values are 0 to 1103), so they are no Hounsfield units; its headers have",
        "8": "image_2 ",
        "9": "it has no PATIENT_DICOM",
        "11": "PATIENT_DICOM.zip can not be read (BadZipFile)",
        "12": "its PATIENT_DICOM holds several folders of slices",
        "13": "its headers can not be understood (",
        "14": "different slices lie at one place (107.50 mm)",
    }
    assert list(why) == list(expected)
    assert [why[case][: len(text)] for case, text in expected.items()] == list(expected.values())


def test_what_is_odd_is_told(tmp_path, capsys):
    place = case(tmp_path / "s", 1)
    shutil.copy(place / "PATIENT_DICOM" / "image_3", place / "PATIENT_DICOM" / "image_30")
    for path in (place / "MASKS_DICOM" / "liver").iterdir():
        path.unlink()

    def unplaced(one, number):
        del one.ImagePositionPatient, one.ImageOrientationPatient, one.SliceLocation

    write(place / "MASKS_DICOM" / "liver", slices(LIVER, rescale=None, change=unplaced))
    assert main(["convert", "3dircadb", str(tmp_path / "s"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "3Dircadb1_1: 1 slices are there twice with the same content; one of each was taken" in printed
    assert (
        "3Dircadb1_1: its masks have no positions of their own: they were paired with slices by file names" in printed
    )
    np.testing.assert_array_equal(np.asarray(volume(tmp_path / "out", "labelsTr", "3Dircadb1_1").dataobj), LIVER > 0)


def test_what_is_no_3dircadb(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"'.*empty' holds no case: a case is a folder such as 3Dircadb1.7 with PATIENT"
    ):
        convert_ircadb(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="'.*nowhere' does not exist"):
        convert_ircadb(tmp_path / "nowhere", tmp_path / "out")
    case(tmp_path / "s", 1, {"bone": LIVER})
    with pytest.raises(InputError, match="not one of 1 cases can be converted .3Dircadb1_1: it has no mask 'liver'"):
        convert_ircadb(tmp_path / "s", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_pydicom(tmp_path, monkeypatch):
    monkeypatch.setattr("common.data.convert.ircadb.has_pydicom", False)
    with pytest.raises(InputError, match=r'pydicom is not installed: .* run: pip install "volseg\[formats\]"'):
        convert_ircadb(tmp_path, tmp_path / "out")
