"""Rivals of a volume that is filled up, on the same slices."""

from __future__ import annotations

from common.cli.densify.folder import read_record


def test_rivals_are_scored_on_the_same_slices(densify, lines, tmp_path, capsys):
    assert densify("--rivals", "slice2d,interpolation", "--epochs", "9") == 0
    assert lines.names()[4:] == ["train+slice2d", "train+evaluate+slice2d", "train+evaluate+interpolation"]
    held_out = read_record(tmp_path / "out")["held_out"]
    assert all(entries["held_out"] == held_out for _, entries in lines[4:])
    assert lines[4][1]["epochs"] == "9" and "epochs" not in lines[6][1]
    place = tmp_path / "out" / "rivals" / "slice2d"
    assert all(entries["model_path"] == str(place / "model.pt") for _, entries in lines[4:6])
    assert (tmp_path / "out" / "fit" / "model.pt").read_text() == "1"
    told = capsys.readouterr().out
    assert all(f"| {name} " in told for name in ("densify", "slice2d", "interpolation"))
    report = (tmp_path / "out" / "report.md").read_text()
    assert "\n\n\n" not in report and "means over the cases" not in report and "application" not in report
    lines.clear()
    assert densify("--rivals", "slice2d,interpolation", "--epochs", "9") == 0 and not lines


def test_a_rival_that_fails_is_told_and_the_volume_is_filled_up_all_the_same(densify, lines, tmp_path, capsys):
    lines.fails = "slice2d"
    assert densify("--rivals", "slice2d,interpolation") == 1
    told = capsys.readouterr().out
    assert "- slice2d: ended with 1" in told and "| interpolation " in told and "| slice2d " not in told
    assert (tmp_path / "out" / "dense.nii.gz").is_file()
    lines.fails = ""
    lines.clear()
    assert densify("--rivals", "slice2d,interpolation") == 0
    assert lines.names() == ["train+slice2d", "train+evaluate+slice2d"]


def test_rivals_want_slices_held_out(densify, lines, capsys):
    assert densify("--rivals", "slice2d", "--hold_out", "0") == 2
    assert "no slice is held out" in capsys.readouterr().err and not lines
