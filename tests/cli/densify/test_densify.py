"""``volseg densify``: what is done in which order, and what it leaves, by lines that pretend."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from drawn_ball import AFFINE, BALL, PLANES, SIZE, UNDRAWN, save, slices, volume

from common.cli.commands import main
from common.cli.densify import command
from common.cli.densify import report as report_module
from common.cli.densify.folder import read_filled, read_record
from common.data.volume_file import VolumeFile, read_volume, write_like
from common.visualize.densify import densify_figure


def test_trains_scores_finishes_and_predicts(densify, lines, tmp_path, capsys):
    assert densify() == 0
    assert lines.names() == ["train", "train+evaluate+score", "train+finish", "inference+uncertainty"]
    (_, fit), (_, score), (_, finish), (_, predict) = lines
    out, held_out = tmp_path / "out", read_record(tmp_path / "out")["held_out"]
    assert sum(map(len, held_out)) == 1
    assert fit["held_out"] == score["held_out"] == held_out and finish["held_out"] is None
    assert fit["start_from"] is None and finish["start_from"] == str(out / "fit" / "model.pt")
    assert fit["model_path"] == score["model_path"] == str(out / "fit" / "model.pt")
    assert finish["model_path"] == predict["model_path"] == str(out / "model.pt")
    assert fit["num_classes"] == 2 and fit["ignore_index"] == 2 and fit["in_channels"] == 1
    assert not list(out.rglob("resume_*"))
    told = capsys.readouterr().out
    assert "Step 1 of 4, fit" in told and "Unlabelled was found to be value 255" in told
    assert "Mean IoU on slices held out" in told and "0.600" in told
    assert f"Written:\n  {command._shown(out / 'dense.nii.gz')}" in told


def test_the_answer_has_the_users_values_on_the_images_grid(densify, image, tmp_path):
    densify()
    dense = nibabel.load(tmp_path / "out" / "dense.nii.gz")
    values = np.asarray(dense.dataobj)
    np.testing.assert_allclose(dense.affine, AFFINE)
    there = slices(PLANES) != UNDRAWN
    assert np.array_equal(values[there], slices(PLANES)[there])
    answer = BALL.copy()
    answer[:3, :3] = True
    assert np.array_equal(values[~there], np.where(answer, 100, 0)[~there])
    unsure = volume(tmp_path / "out" / "uncertainty.nii.gz")
    assert not unsure[there].any() and set(np.unique(unsure[~there])) == {np.float32(0.1), np.float32(0.9)}


def test_drawn_voxels_may_be_the_networks_too_without_training_anew(densify, lines, tmp_path):
    densify()
    assert densify("--keep_drawn", "false") == 0 and len(lines) == 4
    assert (volume(tmp_path / "out" / "dense.nii.gz")[:3, :3] == 100).all()
    assert (volume(tmp_path / "out" / "uncertainty.nii.gz") > 0).all()


def test_the_report_tells_scores_and_how_uncertainty_tells_errors(densify, tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "densify_figure", densify_figure)
    densify("--class_names", "tissue,ball")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    background, ball = report["classes"]
    assert (background["name"], background["value"], background["iou_held_out"]) == ("tissue", 0, 0.5)
    assert (ball["name"], ball["value"], ball["iou_held_out"]) == ("ball", 100, 0.7)
    label = slices(PLANES)
    assert [one["voxels_drawn"] for one in report["classes"]] == [(label == 0).sum(), (label == 100).sum()]
    dense = volume(tmp_path / "out" / "dense.nii.gz")
    assert ball["voxels"] == (dense == 100).sum() and ball["volume"] == pytest.approx(2 * (dense == 100).sum())
    (axis,) = (axis for axis, of in enumerate(report["held_out"]) if of)
    held_out = np.take(label, report["held_out"][axis][0], axis) == 100
    wrong = np.take(volume(tmp_path / "out" / "fit" / "volume1_seg.nii.gz"), report["held_out"][axis][0], axis)
    assert report["uncertainty"]["errors"] == (wrong.astype(bool) != held_out).sum()
    assert set(report["seconds"]) == {"fit", "score", "finish", "predict"}
    assert all(
        one["index"] not in read_record(tmp_path / "out")["planes"]["xyz".index(one["axis"])] for one in report["next"]
    )
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| ball " in text and "voxels" in text and "What to draw next" in text
    assert (tmp_path / "out" / "densify.png").stat().st_size > 0


def test_too_few_slices_are_all_trained_on_with_every_epoch(densify, lines, tmp_path, capsys):
    given = save(slices(PLANES[:3]), tmp_path / "few.nii.gz")
    assert densify("--patience", "3", given=[given]) == 0
    assert lines.names() == ["train+finish", "inference+uncertainty"]
    fit = lines[0][1]
    assert fit["held_out"] is None and fit["epochs"] > 12 and "patience" not in fit
    told = capsys.readouterr().out
    assert "No slice is held out (they are too few" in told and "Mean IoU" not in told
    assert (tmp_path / "out" / "model.pt").read_text() == "1"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["held_out"] is None and report["uncertainty"] is None
    assert [one["iou_held_out"] for one in report["classes"]] == [None, None]


def test_none_held_out_as_asked_for(densify, lines, capsys):
    densify("--hold_out", "0", "--epochs", "7")
    assert lines.names() == ["train+finish", "inference+uncertainty"] and lines[0][1]["epochs"] == "7"
    assert "No slice is held out (as asked for)" in capsys.readouterr().out


def test_settings_reach_the_lines_that_have_them(densify, lines):
    densify("--epochs", "9", "--widths", "[4,8]", "--finish_epochs", "2", "--device", "cpu", "--patience", "5")
    fit, score, finish, predict = (entries for _, entries in lines)
    assert all(entries["widths"] == "[4,8]" and entries["device"] == "cpu" for _, entries in lines)
    assert fit["epochs"] == "9" and fit["patience"] == "5"
    assert finish["epochs"] == 2 and "patience" not in finish
    assert "epochs" not in predict


def test_without_a_finish_the_scored_network_predicts(densify, lines, tmp_path, capsys):
    densify("--finish_epochs", "0")
    assert lines.names() == ["train", "train+evaluate+score", "inference+uncertainty"]
    assert (tmp_path / "out" / "model.pt").read_text() == (tmp_path / "out" / "fit" / "model.pt").read_text()
    told = capsys.readouterr().out
    assert "trained with these slices, too" not in told and "train on with all slices: left out, as asked for." in told


def test_overlays_lie_over_the_recipe_and_under_the_step(densify, lines):
    densify("--overlays", "small")
    assert [configs for configs, _ in lines] == [
        ("train", "densify", "small"),
        ("train", "evaluate", "densify", "small", "score"),
        ("train", "densify", "small", "finish"),
        ("inference", "densify", "small", "uncertainty"),
    ]


def test_blocks_are_worked_on_and_the_answer_is_on_the_images_grid(densify, lines, image, tmp_path):
    assert densify("--downsample", "2") == 0
    out, record = tmp_path / "out", read_record(tmp_path / "out")
    assert volume(out / "data" / "imagesTr" / "volume1.nii.gz").shape == (12, 10, 8)
    assert record["planes"] == [[5, 12], [10], [4, 8, 12]]
    assert all(index in [p // 2 for p in of] for out, of in zip(record["held_out"], record["planes"]) for index in out)
    dense = nibabel.load(out / "dense.nii.gz")
    assert dense.shape == SIZE and set(np.unique(dense.dataobj)) == {0, 100}
    there = slices(PLANES) != UNDRAWN
    assert np.array_equal(np.asarray(dense.dataobj)[there], slices(PLANES)[there])
    filled, _ = read_filled(out)
    assert filled.image.shape == filled.dense.shape == filled.uncertainty.shape == SIZE
    report = json.loads((out / "report.json").read_text())
    assert all(set(out) <= set(of) for out, of in zip(report["held_out"], record["planes"], strict=True))
    assert [[index // 2 for index in of] for of in report["held_out"]] == record["held_out"]
    assert report["uncertainty"]["voxels"] > 0


@pytest.mark.parametrize("form", ["tiff", "hdf5"])
def test_other_formats_get_answers_in_their_own(lines, tmp_path, monkeypatch, repository, form):
    monkeypatch.chdir(repository)
    suffix = {"tiff": ".tif", "hdf5": ".h5"}[form]
    pytest.importorskip({"tiff": "tifffile", "hdf5": "h5py"}[form])
    like = VolumeFile(tmp_path / f"scan{suffix}", np.zeros(SIZE, np.uint8), np.diag([1.0, 1, 2, 1]), "micron", form)
    write_like(like, tmp_path / f"scan{suffix}", (100 * BALL).astype(np.uint8), "raw")
    write_like(like, tmp_path / f"drawn{suffix}", slices(PLANES), "label")
    words = ["densify", str(tmp_path / f"scan{suffix}"), str(tmp_path / f"drawn{suffix}")]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    dense = read_volume(tmp_path / "out" / f"dense{suffix}")
    assert dense.shape == SIZE and dense.unit == "micron" and set(np.unique(dense.array)) == {0, 100}
    np.testing.assert_allclose(dense.spacing, (1, 1, 2), rtol=1e-5)
    there = slices(PLANES) != UNDRAWN
    assert np.array_equal(dense.array[there], slices(PLANES)[there])
