"""DICOM series as inputs of ``volseg predict``, and DICOM SEG as its output; the line itself is pretended."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import dicom_series
import nibabel
import numpy as np
import pydicom
import pytest
from predicted import Line, leaks, read, segmented, study, volume

from common.cli.commands import main
from common.cli.predict import command
from common.dicom.series import find_series
from common.dicom.volume import stage_series

NAME = "ra_unet_liver"


@pytest.fixture
def line(repository, monkeypatch) -> Line:
    monkeypatch.chdir(repository)
    made = Line()
    monkeypatch.setattr(command, "launch", made)
    monkeypatch.setattr(command, "check_weights", lambda *_: None)  # a pretended line needs none
    return made


def _name(folder: Path) -> str:
    (series,) = find_series(folder)
    return series.name


def _cases(out: Path) -> list[str]:
    return sorted(case["case"] for case in read(out / "predictions.json")["cases"])


def _zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def _predict(out: Path, *words: object) -> int:
    return main(["predict", NAME, *map(str, words), "--out", str(out)])


@pytest.mark.parametrize("kind", ["folder", "zip", "files", "one file", "glob", "glob of zips"])
def test_each_way_to_name_a_series(line, tmp_path, capfd, kind):
    folder, out = study(tmp_path / "Mustermann" / "ct"), tmp_path / "seg"
    name, shape = _name(folder), dicom_series.SHAPE
    words = [folder]
    if "zip" in kind:
        words = [_zip(folder, tmp_path / "Mustermann.zip")]
    if kind == "files":
        words = sorted(folder.iterdir())
    if kind == "one file":
        words, shape = [folder / "image_2"], (*dicom_series.SHAPE[:2], 1)
    if kind.startswith("glob"):
        words = [tmp_path / ("Muster*" if kind == "glob" else "*.zip")]
    assert _predict(out, *words) == 0
    assert line.names == _cases(out) == [name]
    label = nibabel.load(out / f"{name}_seg.nii.gz")
    assert label.shape == shape and np.asarray(label.dataobj).any()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{name}_seg.nii.gz", f"{name}_report.json", "predict.json", "predictions.json"]
    )
    told = capfd.readouterr()
    assert leaks(out, told.out + told.err + json.dumps(line.last)) == []
    assert f"dicom_1: {name}, CT, {'x'.join(map(str, shape))} voxels" in told.out


def test_volumes_and_series_of_one_folder_and_of_folders_in_it(line, tmp_path, capsys):
    out, folder = tmp_path / "seg", tmp_path / "in"
    volume(folder / "scan.nii.gz")
    names = [_name(study(folder / "deep" / str(seed), seed)) for seed in range(3)]
    assert _predict(out, folder) == 2  # the volume is done, the question is noted
    assert _cases(out) == ["scan"]
    (noted,) = read(out / "failures.json")
    assert noted["case"] == "dicom_1" and "--series N" in noted["error"]
    assert _predict(out, folder, "--series", "all") == 0
    assert line.names == sorted(names)  # without what was done
    assert _cases(out) == sorted(["scan", *names]) and not (out / "failures.json").exists()
    assert "1 of 4 cases are done already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("modalities", "words", "taken"),
    [
        (["CT", "MR"], [], 0),  # the bundle's own
        (["CT", "MR"], ["--series", "2"], 1),
        (["MR", "PT"], [], None),
        (["CT", "CT"], [], None),
        (["CT", "CT"], ["--series", "3"], None),
    ],
)
def test_which_of_several(line, tmp_path, capsys, modalities, words, taken):
    folders = [study(tmp_path / "in" / str(k), k, kind, number=k + 1) for k, kind in enumerate(modalities)]
    status = _predict(tmp_path / "seg", tmp_path / "in", *words)
    told = capsys.readouterr()
    if taken is None:
        assert status == 2 and line.commands == []
        assert all(_name(folder) in told.err for folder in folders) and " all" in told.err
        assert leaks(tmp_path / "seg", told.out + told.err) == []
    else:
        assert status == 0 and line.names == [_name(folders[taken])]


@pytest.mark.parametrize(
    ("answer", "status"), [("2", 0), ("all", 0), ("9", 2), (EOFError, 2), (KeyboardInterrupt, 130)]
)
def test_a_person_is_asked_where_there_is_one(line, tmp_path, monkeypatch, capsys, answer, status):
    folders = [study(tmp_path / "in" / str(k), k, number=k + 1) for k in range(2)]
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    def typed(prompt):
        assert prompt == "Which series (its number, or all)? "
        if isinstance(answer, str):
            return answer
        raise answer

    monkeypatch.setattr("builtins.input", typed)
    assert _predict(tmp_path / "seg", tmp_path / "in") == status
    assert "seen by Dr Secret" in capsys.readouterr().out  # shown to the person who chooses
    if status == 0:
        assert line.names == sorted(map(_name, folders[1:] if answer == "2" else folders))
    assert not (tmp_path / "seg" / ".staged").exists()


def test_bad_series_and_bad_places_do_not_end_the_others(line, tmp_path, capsys):
    out, folder = tmp_path / "seg", tmp_path / "in"
    good = _name(study(folder / "good", 1))
    gap = study(folder / "Mustermann", 2)
    bad = _name(gap)
    (gap / "image_3").unlink()
    hostile, nothing = tmp_path / "Mustermann.zip", tmp_path / "nothing"
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("../../out.dcm", b"x")
    nothing.mkdir()
    (nothing / "Mustermann.txt").write_text("no image")
    assert _predict(out, folder, hostile, nothing, "--series", "all") == 2
    assert line.names == _cases(out) == [good]
    noted = {one["case"]: one["error"] for one in read(out / "failures.json")}
    assert sorted(noted) == sorted([bad, "dicom_2", "dicom_3"])
    assert "slice" in noted[bad] and "no DICOM image series was found" in noted["dicom_3"]
    told = capsys.readouterr()
    assert leaks(out, told.out + told.err) == [] and f"{bad} failed: " in told.err
    assert "1 segmented, 0 done before, 3 failed. Results: " in told.out and "failures.json says why" in told.out
    assert not list(tmp_path.rglob("out.dcm"))


def test_the_only_place_is_told_at_once(line, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert _predict(tmp_path / "seg", tmp_path / "in") == 2
    told = (
        "dicom_1 holds no volume, and no DICOM image series was found in it: of a folder the files ending in .nii.gz, "
    )
    assert told in capsys.readouterr().err
    assert not (tmp_path / "seg").exists()


@pytest.mark.parametrize("foreign", [False, True])
def test_a_series_is_chosen_where_there_is_none(line, tmp_path, capsys, foreign):
    scan = volume(tmp_path / "in" / "scan.nii.gz")
    if foreign:  # which might be DICOM, until it is opened
        scan.with_name("notes.txt").write_text("no image")
    assert _predict(tmp_path / "seg", tmp_path / "in", "--series", "2") == 2
    told = (
        "--series 2 was given, and no input is DICOM: it says which series of an input is meant. To mend it, leave it"
    )
    assert told in capsys.readouterr().err
    assert line.commands == [] and not list(tmp_path.glob("seg/*"))


def test_another_series_of_the_same_uid_is_not_lost(line, tmp_path, capsys):
    out, name = tmp_path / "seg", _name(study(tmp_path / "a"))
    study(tmp_path / "b", values=dicom_series.stored_scan(9))
    assert _predict(out, tmp_path / "a", tmp_path / "b") == 2
    (noted,) = read(out / "failures.json")
    assert noted["case"] == "dicom_2" and f"{name} was named before and held other images" in noted["error"]
    told = capsys.readouterr()
    assert _cases(out) == [name] and leaks(out, told.out + told.err) == []


def test_a_series_is_known_again_wherever_it_lies(line, tmp_path, monkeypatch, capsys):
    out, folder = tmp_path / "seg", study(tmp_path / "ct")
    assert _predict(out, folder) == 0
    monkeypatch.setattr("common.cli.predict.stage.stage_series", lambda *_: pytest.fail("staged in vain"))
    moved = _zip(folder, tmp_path / "moved.zip")
    assert _predict(out, moved) == _predict(out, folder, moved) == 0
    told = capsys.readouterr().out
    assert len(line.commands) == 1 and "1 of 1 cases are done already" in told and "was named before" in told
    monkeypatch.setattr("common.cli.predict.stage.stage_series", stage_series)
    shutil.rmtree(folder)
    study(folder, values=dicom_series.stored_scan(9))  # the same series, other pixels
    assert _predict(out, folder) == 0
    assert len(line.commands) == 2


def test_a_volume_that_is_called_like_a_series(line, tmp_path):
    folder = study(tmp_path / "ct")
    scan = volume(tmp_path / f"{_name(folder)}.nii.gz")
    assert _predict(tmp_path / "seg", scan, folder) == 0
    assert _cases(tmp_path / "seg") == [_name(folder), f"{_name(folder)}_dicom"]
    assert nibabel.load(tmp_path / "seg" / f"{_name(folder)}_dicom_seg.nii.gz").shape == dicom_series.SHAPE


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_dicom_seg_lies_beside_the_label(line, tmp_path, capsys, kind):
    out, folder = tmp_path / "seg", study(tmp_path / "ct")
    name = _name(folder)
    place = folder if kind == "folder" else _zip(folder, tmp_path / "ct.zip")
    scan = volume(tmp_path / "scan.nii.gz")
    assert _predict(out, place, scan, "--dicom-seg", "true") == 0
    told = capsys.readouterr()
    assert "1 of 2 cases are volumes in files: DICOM SEG is written of DICOM series alone" in told.out
    assert leaks(out, told.out + told.err) == []
    made = pydicom.dcmread(out / f"{name}_seg.dcm")
    assert made.Modality == "SEG" and str(made.PatientID) == "PAT-4711"
    assert [str(one.SegmentedPropertyTypeCodeSequence[0].CodeMeaning) for one in made.SegmentSequence][:1] == ["Liver"]
    label = nibabel.load(out / f"{name}_seg.nii.gz")
    stored = np.asarray(label.dataobj)
    along = nibabel.orientations.io_orientation(label.affine)[:, 1]  # staged in RAS mm; the series' axes are LPS
    assert list(along) == [-1, -1, 1]
    assert (segmented(out / f"{name}_seg.dcm", 1, stored.shape) == stored).all() and stored.any()
    listed = {case["case"]: case.get("dicom_seg") for case in read(out / "predictions.json")["cases"]}
    assert listed == {name: f"{name}_seg.dcm", "scan": None}


def test_dicom_seg_is_made_of_labels_that_are_there_and_not_twice(line, tmp_path):
    out, folder = tmp_path / "seg", study(tmp_path / "ct")
    file = out / f"{_name(folder)}_seg.dcm"
    assert _predict(out, folder) == 0 and not file.exists()
    assert _predict(out, folder, "--dicom_seg", "true") == 0
    first = file.read_bytes()
    assert _predict(out, folder, "--dicom_seg", "true") == 0
    assert file.read_bytes() == first and len(line.commands) == 1
    assert _predict(out, folder, "--again", "true") == 0
    assert len(line.commands) == 2 and not file.exists()  # it was that of the label before


def test_a_dicom_seg_that_can_not_be_written_is_a_failure_of_its_case_alone(line, tmp_path, monkeypatch, capsys):
    out, names = tmp_path / "seg", [_name(study(tmp_path / "in" / str(k), k)) for k in range(2)]
    written = command.Segmentations._of_case

    def fails(self, case, series, results):
        if case.name == names[0]:
            raise ValueError("Mustermann can not be written")
        written(self, case, series, results)

    monkeypatch.setattr(command.Segmentations, "_of_case", fails)
    assert _predict(out, tmp_path / "in", "--series", "all", "--dicom_seg", "true") == 2
    assert _cases(out) == sorted(names) and [path.name for path in out.glob("*.dcm")] == [f"{names[1]}_seg.dcm"]
    (noted,) = read(out / "failures.json")
    assert (
        noted["case"] == names[0] and "no DICOM SEG was written: " in noted["error"] and "ValueError" in noted["error"]
    )
    told = capsys.readouterr()
    assert leaks(out, told.out + told.err) == []


def test_classes_that_were_renamed_get_no_codes_of_the_bundle(line, tmp_path):
    out, folder = tmp_path / "seg", study(tmp_path / "ct")
    line.class_names = ["background", "spleen", "tumour"]
    assert _predict(out, folder, "--dicom_seg", "true") == 2
    assert "class 1 is 'spleen', and dicom_segments has the codes of 'Liver'" in read(out / "failures.json")[0]["error"]
    assert not list(out.glob("*.dcm"))


def test_a_bundle_without_codes_says_so_first(line, tmp_path, capsys):
    words = ["predict", "unet3d_sparse", str(study(tmp_path / "ct")), "--dicom_seg", "true"]
    assert main([*words, "--out", str(tmp_path / "seg")]) == 2
    assert "unet3d_sparse has no dicom_segments" in capsys.readouterr().err
    assert line.commands == [] and not (tmp_path / "seg").exists()
