"""``volseg densify`` that failed, was interrupted or cut short: the same line goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.cli.densify import folder as folder_module
from common.cli.densify.folder import NEXT, read_filled, read_record


def test_the_same_line_does_nothing_twice(densify, lines, tmp_path, capsys):
    densify()
    capsys.readouterr()
    assert densify() == 0 and len(lines) == 4
    assert capsys.readouterr().out.count("done before") == 4


@pytest.mark.parametrize(("config", "done"), [("score", 1), ("finish", 2), ("inference", 3)])
def test_a_step_that_fails_leaves_the_others_and_the_same_line_goes_on(densify, lines, tmp_path, capsys, config, done):
    lines.fails = config
    assert densify() == 1
    told = capsys.readouterr().out
    assert "This step failed" in told and "the same line goes on" in told
    assert len(read_record(tmp_path / "out")["steps"]) == done and not (tmp_path / "out" / "dense.nii.gz").exists()
    lines.fails = ""
    lines.clear()
    assert densify() == 0 and len(lines) == 4 - done


def test_an_interrupt_is_told_as_such(densify, lines, capsys):
    lines.fails, lines.status = "train", 130
    assert densify() == 130 and "This step was stopped" in capsys.readouterr().out


def test_a_training_that_was_stopped_is_taken_up(densify, lines):
    densify()
    assert lines[0][1]["resume"] is True and lines[2][1]["resume"] is True


def test_a_training_is_not_done_again_whose_end_was_not_noted(densify, lines, tmp_path, monkeypatch):
    """Weights to go on from are kept until then."""
    finish = folder_module.Folder.finish
    for step, place in (("fit", "fit"), ("finish", "finish"), ("rivals/slice2d", "rivals/slice2d")):

        def cut(self, name, seconds, at=step):
            if name == at:
                raise RuntimeError("power cut")
            finish(self, name, seconds)

        left = tmp_path / "out" / place / "resume_model.pt"
        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
            patched.setattr(folder_module.Folder, "finish", cut)
            densify("--rivals", "slice2d")
        assert left.is_file()
    assert densify("--rivals", "slice2d") == 0 and not list((tmp_path / "out").rglob("resume_*.pt"))


def test_a_beginning_that_was_cut_short_is_begun_anew(densify, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
        patched.setattr(folder_module.Folder, "save", lambda self: (_ for _ in ()).throw(RuntimeError("power cut")))
        densify()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "drawn.nii.gz"]
    assert densify() == 0 and (tmp_path / "out" / "report.md").is_file()


@pytest.mark.parametrize("after", range(0, 12, 3))
def test_a_move_that_is_cut_short_is_finished(densify, lines, more, tmp_path, monkeypatch, after):
    densify("--rivals", "interpolation")
    moves, replace = [], os.replace

    def cut(source, target):
        if NEXT in Path(source).parts and Path(target).parent == tmp_path / "out":
            if len(moves) == after:
                raise RuntimeError("power cut")
            moves.append(source)
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
        patched.setattr(folder_module.os, "replace", cut)
        densify("--continue", "true", given=[more])
    assert (tmp_path / "out" / NEXT).exists()
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0 and not lines
    out = tmp_path / "out"
    assert not (out / NEXT).exists() and not (out / "rivals").exists()
    assert [path.name for path in (out / "data" / "labelsTr").iterdir()] == ["volume2.nii.gz"]
    assert read_record(out)["planes"] == [[5, 12, 18], [4, 10, 15], [2, 4, 8, 12, 14]]
    read_filled(out)
