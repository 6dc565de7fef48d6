"""Headers whose voxels lie in a file of their own: what belongs to them, and when they are done."""

from __future__ import annotations

from pathlib import Path

import pytest
from predicted import read

from common.cli.commands import main
from common.cli.predict import command
from common.cli.predict.header import data_beside, data_files, whole_hash
from common.data.expected import content_hash
from common.files import write_json

NAME = "ra_unet_liver"
_HEADER = "ObjectType = Image\nNDims = 3\nElementDataFile = {}\n"


@pytest.fixture
def asked(repository, monkeypatch) -> list[Path]:
    """What was segmented, by a line that reports each file as a report of MONAI's line does."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr(command, "check_weights", lambda *_: None)
    found: list[Path] = []

    def run(told, verbose):
        words = dict(zip(told[6::2], told[7::2], strict=True))
        path, out = Path(words["--dataset_dir"]), Path(words["--output_dir"])
        found.append(path)
        (out / "h_seg.nii.gz").touch()
        write_json(out / "h_report.json", {"case": "h", "input_sha256": content_hash(path), "run": len(found)})
        return 0

    monkeypatch.setattr(command, "launch", run)
    return found


@pytest.mark.parametrize("change", ["header", "voxels", "again", "label"])
def test_a_header_is_done_until_one_of_its_files_changes(asked, tmp_path, capsys, change):
    header, voxels, out = tmp_path / "h.mhd", tmp_path / "v.raw", tmp_path / "seg"
    header.write_text(_HEADER.format("v.raw"))
    voxels.write_bytes(b"voxels")
    words = ["predict", NAME, str(header), "--out", str(out)]
    assert [main(words) for _ in range(3)] == [0, 0, 0]
    assert len(asked) == 1 and "1 of 1 cases are done already" in capsys.readouterr().out
    assert read(out / "h_report.json")["input_sha256"] is None
    if change == "header":
        header.write_text("Comment = anew\n" + _HEADER.format("v.raw"))
    if change == "voxels":
        voxels.write_bytes(b"others")
    if change == "label":
        (out / "h_seg.nii.gz").unlink()
    more = ["--again", "true"] if change == "again" else []
    assert main([*words, *more]) == main(words) == 0
    assert len(asked) == 2
    told = "h: its results are those of another input, and are replaced."
    assert (told in capsys.readouterr().out) == (change in ("header", "voxels"))


def test_a_run_that_was_stopped_has_done_nothing_of_the_new_voxels(asked, tmp_path, monkeypatch):
    header, voxels = tmp_path / "h.mhd", tmp_path / "v.raw"
    header.write_text(_HEADER.format("v.raw"))
    voxels.write_bytes(b"voxels")
    words = ["predict", NAME, str(header), "--out", str(tmp_path / "seg")]
    assert main(words) == 0
    voxels.write_bytes(b"others")
    with monkeypatch.context() as stopped:
        stopped.setattr(command, "launch", lambda *_: 130)
        assert main(words) == 130
    assert main(words) == 0 and len(asked) == 2


def test_a_header_of_many_files_is_never_taken_for_done(asked, tmp_path):
    header = tmp_path / "h.mhd"
    header.write_text(_HEADER.format("v%02d.raw 1 9 1"))
    words = ["predict", NAME, str(header), "--out", str(tmp_path / "seg")]
    assert main(words) == main(words) == 0
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("name", "text", "parts", "whole"),
    [
        ("h.mhd", _HEADER.format("v.raw"), ["v.raw"], True),
        ("h.MHD", "elementdatafile=v.raw\n", ["v.raw"], True),
        ("h.mhd", _HEADER.format("LOCAL") + "\0\1", [], True),
        ("h.mhd", _HEADER.format("LIST") + "v.raw\n", [], False),
        ("h.mhd", _HEADER.format("gone.raw"), [], False),
        ("h.mhd", _HEADER.format(""), [], False),
        ("h.nhdr", "NRRD0004\ntype: short\ndata file: v.raw\n", ["v.raw"], True),
        ("h.nhdr", "NRRD0004\ndatafile: LIST\nv.raw\n", [], False),
        ("v.hdr", "", ["v.img"], True),
        ("v.img", "", ["v.hdr"], True),
        ("w.img", "", [], False),
        ("h.nii.gz", _HEADER.format("v.raw"), [], False),
    ],
)
def test_what_belongs_to_a_header(tmp_path, name, text, parts, whole):
    for other in ("v.raw", "v.img", "v.hdr", name):
        (tmp_path / other).write_text(text if other == name else other)
    assert data_files(tmp_path / name) == [tmp_path / part for part in parts]
    before = whole_hash(tmp_path / name)
    assert (before is not None) == whole
    for changed in (*parts, name) if whole else ():
        (tmp_path / changed).write_text(text + "#")
        now = whole_hash(tmp_path / name)
        assert now not in (None, before)
        before = now


@pytest.mark.parametrize(
    ("name", "text", "target", "places"),
    [
        ("h.mhd", _HEADER.format("v.raw"), "x.mhd", {"v.raw": "v.raw"}),
        ("h.mhd", _HEADER.format("raw/v.raw"), "x.mhd", {"raw/v.raw": "raw/v.raw"}),
        ("h.mhd", _HEADER.format("../v.raw"), "x.mhd", {}),
        ("v.hdr", "", "in_a_v.hdr", {"v.img": "in_a_v.img"}),
        ("v.img", "", "in_a_v.img", {"v.hdr": "in_a_v.hdr"}),
        ("h.nii.gz", "", "x.nii.gz", {}),
    ],
)
def test_where_a_copy_of_a_header_finds_its_voxels(tmp_path, name, text, target, places):
    folder = tmp_path / "in"
    for other in ("v.raw", "raw/v.raw", "../v.raw", "v.img", "v.hdr", name):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_text(text if other == name else other)
    expected = [(folder / part, tmp_path / "staged" / place) for part, place in places.items()]
    assert data_beside(folder / name, tmp_path / "staged" / target) == expected


def test_an_absolute_path_of_voxels_needs_no_copy(tmp_path):
    (tmp_path / "v.raw").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "h.mhd").write_text(_HEADER.format(tmp_path / "v.raw"))
    assert data_files(tmp_path / "in" / "h.mhd") == [tmp_path / "v.raw"]
    assert data_beside(tmp_path / "in" / "h.mhd", tmp_path / "x.mhd") == []
