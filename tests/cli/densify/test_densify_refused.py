"""What ``volseg densify`` refuses, before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from drawn_ball import SIZE, save, volume

from common.checks import InputError
from common.cli.commands import main
from common.cli.densify import command
from common.cli.densify.folder import read_filled


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--epoch", "3"], "--epoch answers to no id of the config.*use 'epochs'"),
        (["--num_classes", "3"], "--num_classes was given: it follows from the image"),
        (["--held_out", "[[1],[],[]]"], "--held_out was given: it follows"),
        (["--disputed", "first"], "disputed is 'first': it is one of error, unlabelled, last"),
        (["--unlabeled", "0"], "--unlabeled is no option.*write --unlabelled"),
        (["--downsampel", "2"], "--downsampel is no option.*write --downsample"),
        (["--finish_epochs", "-1"], "finish_epochs is -1: it must be 0, for none, or more"),
        (["--hold_out", "20"], "hold_out is '20'"),
        (["--downsample", "0"], "downsample is 0"),
        (["--spacing", "1,2"], "spacing is '1,2'"),
        (["--overlays", "smal"], "has no config 'smal'.*write 'small'"),
        (["--rivals", "slice3d"], "has no config 'slice3d'"),
        (["--bundle", "ra_unet_liver"], "has no config 'densify'"),
        (["--continue", "true"], "holds nothing to go on from"),
        (["--device", "tpu"], "--device is 'tpu'"),
        (["--unlabelled", "some"], "unlabelled is 'some'"),
        (["--class_names", "a"], "class_names are a"),
    ],
)
def test_refused_before_anything_runs(densify, lines, tmp_path, capsys, words, text):
    assert densify(*words) == 2
    error = capsys.readouterr().err
    assert re.search(text, error), error
    assert not lines and not (tmp_path / "out" / "densify.json").exists()


@pytest.mark.parametrize("own", ["data/scan.nii.gz", "drawn.nii.gz", "next/notes.txt", "dense.tif", "model.pt"])
def test_what_others_made_is_not_replaced(lines, image, drawn, tmp_path, monkeypatch, repository, capsys, own):
    monkeypatch.chdir(repository)
    place = tmp_path / "place"
    (place / own).parent.mkdir(parents=True)
    (place / own).write_text("mine")
    (place / "data.csv").write_text("no harm")
    assert main(["densify", image, drawn, "--out", str(place)]) == 2 and not lines
    assert (place / own).read_text() == "mine" and not (place / "densify.json").exists()
    error = capsys.readouterr().err
    assert f"place' holds {own.partition('/')[0]}, and no densify.json" in error and "pass a new folder" in error


def test_an_image_with_holes_is_refused_by_its_own_name(densify, lines, image, tmp_path, capsys):
    grey = volume(Path(image)).copy()
    grey[3, 4, 5], grey[7] = np.inf, np.nan
    save(grey, Path(image))
    assert densify() == 2 and not lines and not (tmp_path / "out" / "densify.json").exists()
    told = f"'scan.nii.gz' holds {SIZE[1] * SIZE[2] + 1} values that are NaN or infinite, the first at (3, 4, 5)"
    error = capsys.readouterr().err
    assert told in error and "replace them" in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["densify", "a.nii.gz"], "no file of drawn slices was named"),
        (["densify", "a.nii.gz", "b.nii.gz"], "no folder to write to was named"),
        (["densify", "a.nii.gz", "b.nii.gz", "--out", "x"], "'a.nii.gz' does not exist|b.nii.gz' does not exist"),
    ],
)
def test_what_is_missing(lines, tmp_path, monkeypatch, capsys, words, text, repository):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert re.search(text, capsys.readouterr().err)


def test_another_image_other_slices_and_other_settings_are_refused(
    densify, lines, more, tmp_path, image, drawn, capsys
):
    densify("--epochs", "5")
    with pytest.raises(InputError, match="was made from other slices, drawn.nii.gz.*pass --continue true"):
        command.densify(image, [more], str(tmp_path / "out"), {}, {"epochs": "5"})
    other = save(np.zeros(SIZE, np.float32), tmp_path / "other.nii.gz")
    with pytest.raises(InputError, match="was made from another image, 'scan.nii.gz'.*another --out"):
        command.densify(other, [drawn], str(tmp_path / "out"), {}, {"epochs": "5"})
    with pytest.raises(InputError, match="was begun with overrides {'epochs': '5'}, not {'epochs': '6'}"):
        command.densify(image, [drawn], str(tmp_path / "out"), {}, {"epochs": "6"})
    with pytest.raises(InputError, match="was begun with downsample not given, not 2"):
        command.densify(image, [drawn], str(tmp_path / "out"), {"downsample": "2"}, {"epochs": "5"})
    assert len(lines) == 4


def test_a_folder_that_is_not_done_is_not_read(densify, lines, tmp_path):
    lines.fails = "finish"
    densify()
    with pytest.raises(InputError, match="is not filled up yet"):
        read_filled(tmp_path / "out")
    with pytest.raises(InputError, match="has no densify.json.*that volseg densify made"):
        read_filled(tmp_path)
