"""What ``volseg predict`` hands to its line, skips, goes on with and lists; the line itself is pretended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from predicted import Line, read, volume

from common.checks import InputError
from common.cli.commands import main
from common.cli.predict import command
from common.cli.predict import folder as folder_module
from common.cli.predict.folder import working_in
from common.data.cases import inference_cases

NAME = "ra_unet_liver"


@pytest.fixture
def line(repository, monkeypatch) -> Line:
    monkeypatch.chdir(repository)
    made = Line()
    monkeypatch.setattr(command, "launch", made)
    monkeypatch.setattr(command, "check_weights", lambda *_: None)  # a pretended line needs none
    return made


def _cases(out: Path) -> list[str]:
    return [case["case"] for case in read(out / "predictions.json")["cases"]]


def test_a_file_is_a_line(line, tmp_path):
    scan = volume(tmp_path / "a's scan.nii.gz")
    assert main(["predict", NAME, str(scan), "--out", str(tmp_path / "seg"), "--amp", "true"]) == 0
    configs = ["--config_file", f"bundles/{NAME}/configs/inference.json"]
    words = ["--dataset_dir", str(scan), "--output_dir", str(tmp_path / "seg"), "--amp", "True"]
    assert line.commands == [[sys.executable, "-m", "monai.bundle", "run", *configs, *words]]
    assert _cases(tmp_path / "seg") == ["a's scan"]
    assert not (tmp_path / "seg" / ".staged").exists()


@pytest.mark.parametrize(
    ("inputs", "source"),
    [
        (["in"], "in"),
        (["in/*.nii.gz"], "in/*.nii.gz"),
        (["in/a.nii.gz", "in/b.nii.gz"], "['in/a.nii.gz', 'in/b.nii.gz']"),
    ],
)
def test_volumes_alone_are_handed_on_as_they_were_named(line, tmp_path, monkeypatch, inputs, source):
    volume(tmp_path / "in" / "a.nii.gz"), volume(tmp_path / "in" / "b.nii.gz")
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    bundle = Path("bundles", NAME).resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.cli.words.check_package", lambda: None)
    assert main(["predict", str(bundle), *inputs, "--out", "seg"]) == 0
    assert line.last["dataset_dir"] == source
    assert _cases(tmp_path / "seg") == ["a", "b"]


def test_done_cases_are_skipped_and_a_new_one_joins_the_list(line, tmp_path, capsys):
    out = tmp_path / "seg"
    for name in "bc":
        volume(tmp_path / "in" / f"{name}.nii.gz")
    words = ["predict", NAME, str(tmp_path / "in"), "--out", str(out)]
    assert main(words) == main(words) == 0
    assert len(line.commands) == 1
    assert "2 of 2 cases are done already (--again true" in capsys.readouterr().out
    volume(tmp_path / "in" / "a.nii.gz")
    assert main(words) == 0
    assert line.names == ["a"] and line.last["dataset_dir"] == str(out / ".staged")
    assert _cases(out) == ["a", "b", "c"]
    assert [case["run"] for case in read(out / "predictions.json")["cases"]] == [2, 1, 1]
    assert main(["predict", NAME, str(volume(tmp_path / "d.nii.gz")), "--out", str(out)]) == 0
    assert _cases(out) == ["d", "a", "b", "c"]  # those of the call first


@pytest.mark.parametrize("change", ["input", "label", "report", "again"])
def test_what_is_no_more_done(line, tmp_path, capsys, change):
    out = tmp_path / "seg"
    for seed, name in enumerate("ab"):
        volume(tmp_path / "in" / f"{name}.nii.gz", seed)
    words = ["predict", NAME, str(tmp_path / "in"), "--out", str(out)]
    assert main(words) == 0
    if change == "input":
        volume(tmp_path / "in" / "b.nii.gz", seed=7)
    elif change != "again":
        (out / ("b_seg.nii.gz" if change == "label" else "b_report.json")).unlink()
    assert main([*words, *(["--again", "true"] if change == "again" else [])]) == 0
    assert line.names == (["a", "b"] if change == "again" else ["b"])
    assert ("b: its results are those of another input" in capsys.readouterr().out) == (change == "input")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--tumour_threshold", "0.7"], "overrides, settings"),
        (["--overlays", "modern"], "overlays, settings"),
        (["--model_path", "MODEL"], "weights"),
    ],
)
def test_another_request_does_all_anew(line, tmp_path, capsys, words, named):
    out, model = tmp_path / "seg", tmp_path / "Mustermann.pt"
    model.write_bytes(b"weights")
    first = ["predict", NAME, str(volume(tmp_path / "a.nii.gz")), "--out", str(out)]
    assert main(first) == 0
    second = [*first, *(str(model) if word == "MODEL" else word for word in words)]
    assert main(second) == main(second) == 0
    assert len(line.commands) == 2
    assert f"are of another request ({named}): all is done anew" in capsys.readouterr().out
    assert "Mustermann" not in (out / "predict.json").read_text()


def test_device_and_folders_are_no_part_of_the_request(line, tmp_path):
    scan, model = volume(tmp_path / "a.nii.gz"), tmp_path / "m.pt"
    model.write_bytes(b"weights")
    words = ["predict", NAME, str(scan), "--out", str(tmp_path / "seg")]
    assert main([*words, "--model_path", str(model)]) == 0
    moved = shutil.move(model, tmp_path / "n.pt")
    shutil.move(scan, tmp_path / "b")
    (tmp_path / "b").rename(scan)
    assert main([*words, "--model_path", str(moved), "--device", "cpu"]) == 0
    assert len(line.commands) == 1


@pytest.mark.parametrize("asked_again", [[], ["--tumour_threshold", "0.7"], ["--again", "true"]])
def test_an_interrupted_run_goes_on(line, tmp_path, capsys, asked_again):
    """What was there of an earlier request is not mistaken for what the interrupted one has done."""
    out = tmp_path / "seg"
    for name in "abc":
        volume(tmp_path / "in" / f"{name}.nii.gz")
    words = ["predict", NAME, str(tmp_path / "in"), "--out", str(out)]
    if asked_again:
        assert main(words) == 0
    line.stop_after = 1
    assert main([*words, *asked_again]) == 130
    assert "1 segmented, 0 done before, 0 failed, 2 not reached (the same line goes on)" in capsys.readouterr().out
    assert _cases(out) == ["a"]
    line.stop_after = None
    assert main([*words, *(asked_again if "--again" not in asked_again else [])]) == 0
    assert line.names == ["b", "c"] and _cases(out) == ["a", "b", "c"]


def test_failures_are_listed_without_folders_and_gone_when_mended(line, tmp_path, capsys):
    out, folder = tmp_path / "seg", tmp_path / "Mustermann"
    volume(folder / "a.nii.gz"), volume(folder / "broken.nii.gz")
    words = ["predict", NAME, str(folder), "--out", str(out)]
    assert main(words) == main(words) == 2
    assert line.names == ["broken"]  # alone the second time, under another folder
    assert read(out / "failures.json") == [{"case": "broken.nii.gz", "error": "'broken.nii.gz' is broken"}]
    assert read(out / "predictions.json")["failures"] == read(out / "failures.json")
    assert "0 segmented, 1 done before, 1 failed." in capsys.readouterr().out
    (folder / "broken.nii.gz").unlink()
    assert main(words) == 0
    assert not (out / "failures.json").exists() and read(out / "predictions.json")["failures"] == []


def test_files_of_one_name_keep_their_names_whichever_are_done(line, tmp_path):
    out, paths = tmp_path / "seg", [volume(tmp_path / folder / "scan.nii.gz", ord(folder)) for folder in "pqr"]
    words = ["predict", NAME, *map(str, paths), "--out", str(out)]
    assert main(words) == 0
    assert _cases(out) == ["scan", "q_scan", "r_scan"]
    first = {path.name: path.read_bytes() for path in out.glob("*_seg.nii.gz")}
    (out / "r_scan_report.json").unlink()
    assert main(words) == 0
    assert line.names == ["r_scan"]
    assert {path.name: path.read_bytes() for path in out.glob("*_seg.nii.gz")} == first


def test_a_header_is_listed_with_its_voxels(line, tmp_path, monkeypatch):
    header, listed, seen = tmp_path / "h.mhd", tmp_path / "data", {}
    header.write_text("ObjectType = Image\nNDims = 3\nElementDataFile = v.raw\n")
    (tmp_path / "v.raw").write_bytes(b"voxels")
    volume(listed / "imagesTs" / "t.nii.gz")
    (listed / "dataset.json").write_text('{"test": ["./imagesTs/t.nii.gz"]}')
    words = ["predict", NAME, str(listed)]
    assert main([*words, "--out", str(tmp_path / "seg")]) == 0

    def look(told, verbose):
        (case,) = inference_cases(told[told.index("--dataset_dir") + 1])
        seen.update({path.name: path.read_bytes() for path in Path(case["image"]).parent.iterdir()})
        return 0

    monkeypatch.setattr(command, "launch", look)
    assert main([*words, str(header), "--out", str(tmp_path / "seg")]) == 2  # since the line left nothing
    assert seen == {"h.mhd": header.read_bytes(), "v.raw": b"voxels"} and _cases(tmp_path / "seg") == ["t"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no image was named"),
        (["nowhere.nii.gz"], "'nowhere.nii.gz' does not exist"),
        (["nowhere/*.nii.gz"], "'nowhere/\\*.nii.gz' holds no volume"),
        (
            ["EMPTY"],
            "empty' holds no volume, and no DICOM image series was found in it: of a folder the files ending in "
            r"\.nii\.gz, .*, \.tiff are segmented, and DICOM series in it and below\. To mend it, name another folder",
        ),
        (["IN", "letter.txt"], r"'letter.txt' is no volume: a volume is a file ending in \.nii\.gz, .*, or DICOM"),
        (["a.h5"], r"'a.h5' is HDF5: .* To mend it, run: volseg convert hdf5 FILES --out DIR"),
        (["picture.PNG"], r"'picture.PNG' is no volume: .* To mend it, leave it out, or name the image itself"),
        (["IN", "--out", "letter.txt"], "--out 'letter.txt' is a file: .* --out must be a folder"),
        (["IN", "--series", "2"], "--series 2 was given, and no input is DICOM"),
        (["IN", "--worker", "2"], "--worker is no option, and answers to no id of the config: .* write --workers"),
        (["IN", "--dataset_dir", "x"], "--dataset_dir was given: what is segmented is named after the bundle"),
        (["IN", "--workers", "two"], "workers is 'two': it must be a whole number"),
        (["IN", "--workers", "0"], "--workers is 0: it must be 1 or more"),
        (["IN", "--workers", "2", "--scheduler", "tls://x:1"], "--workers 2 and --scheduler"),
        (["IN", "--scheduler", "tcp://example.org:8786"], "neither encrypted nor on this machine"),
        (["IN", "--tls", "keys"], "--tls was given without --scheduler"),
        (["IN", "--agin", "true"], "write --again"),
        (["IN", "--dicomseg", "true"], "write --dicom_seg"),
        (["IN", "--dicom_seg", "perhaps"], "dicom_seg is 'perhaps'"),
        (["IN", "--out", "IN"], "the results would go to .*, which the inputs are taken from"),
    ],
)
def test_refused_before_anything_runs(line, tmp_path, capsys, words, text):
    volume(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "empty").mkdir()
    for name in ("letter.txt", "picture.PNG", "a.h5"):
        (tmp_path / name).write_text("no image")
    places = {name: str(tmp_path / name) for name in ("letter.txt", "picture.PNG", "a.h5")}
    places |= {"IN": str(tmp_path / "in"), "EMPTY": str(tmp_path / "empty")}
    words = [places.get(word, word) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "seg")]
    assert main(["predict", NAME, *words, *out]) == 2
    assert re.search(text, capsys.readouterr().err.replace(f"{tmp_path}/", ""))
    assert line.commands == [] and not (tmp_path / "seg").exists()


def test_a_folder_that_can_not_be_looked_into(line, tmp_path, capsys, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(Path, "iterdir", lambda folder: (_ for _ in ()).throw(PermissionError(13, "denied")))
    assert main(["predict", NAME, str(tmp_path / "in"), "--out", str(tmp_path / "seg")]) == 2
    assert re.search(r"in' can not be read \(PermissionError\): .* change its permissions", capsys.readouterr().err)


def test_one_at_a_time_in_a_folder(line, tmp_path, capsys):
    pytest.importorskip("fcntl")
    scan, out = volume(tmp_path / "a.nii.gz"), tmp_path / "seg"
    with working_in(out) as place:
        assert place.stat().st_mode & 0o777 == 0o700
        assert main(["predict", NAME, str(scan), "--out", str(out)]) == 2
        assert "another prediction writes to" in capsys.readouterr().err
    assert main(["predict", NAME, str(scan), "--out", str(out)]) == 0


@pytest.mark.parametrize("ending", [lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: 1 / 0])
def test_nothing_private_is_left(tmp_path, ending):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises((SystemExit, ZeroDivisionError)), working_in(tmp_path) as place:
        (place / "series_0.nii.gz").touch()
        ending()
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) == before


def test_an_empty_folder_stays_only_where_it_was_there_before(tmp_path):
    for out, stays in ((tmp_path, True), (tmp_path / "new", False)):
        with pytest.raises(InputError), working_in(out):
            raise InputError("refused")
        assert out.exists() == stays
    with working_in(tmp_path / "kept"):
        (tmp_path / "kept" / "a_seg.nii.gz").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_second_signal_does_not_cut_the_tidying_short(tmp_path, monkeypatch, capsys):
    removed = folder_module.shutil.rmtree

    def rmtree(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        removed(*args, **options)

    monkeypatch.setattr(folder_module.shutil, "rmtree", rmtree)
    with pytest.raises(SystemExit), folder_module.working_in(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
    assert list(tmp_path.iterdir()) == [] and "Terminated; the same line goes on." in capsys.readouterr().err


def test_what_a_killed_run_has_left_is_put_in_place(line, tmp_path):
    out, scan = tmp_path / "seg", volume(tmp_path / "a.nii.gz")
    words = ["predict", NAME, str(scan), "--out", str(out)]
    assert main(words) == 0
    part = out / ".staged" / "parts" / "part_1.1"
    part.mkdir(parents=True)
    for path in [*out.glob("a_*")]:
        path.rename(part / path.name)
    (out / ".staged" / "series_0.nii.gz").touch()
    assert main(words) == 0
    assert len(line.commands) == 1 and not (out / ".staged").exists() and _cases(out) == ["a"]


def test_a_reader_s_own_format_is_handed_on(line, tmp_path, monkeypatch):
    scan = tmp_path / "scan.mgz"
    scan.write_bytes(b"nothing that is known")
    monkeypatch.setattr(command, "launch", lambda told, verbose: line.commands.append(told) or 7)
    assert main(["predict", NAME, str(scan), "--out", str(tmp_path / "seg")]) == 7
    assert line.last["dataset_dir"] == str(scan)
    assert os.listdir(tmp_path / "seg") == ["predict.json"]
