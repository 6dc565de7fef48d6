"""``volseg densify``: what is done in which order, what is taken up again, refused and told, by lines that pretend."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.cli import densify as command
from common.cli import densify_folder, densify_report, densify_steps, densify_work
from common.cli.commands import main
from common.cli.densify_folder import NEXT, read_filled, read_record
from common.cli.densify_steps import LineError
from common.data.volume_file import VolumeFile, read_volume, write_like
from common.files import case_name
from common.visualize.densify import densify_figure

SIZE = (24, 20, 16)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 1, 0, 2], [0, 0, 2, -7], [0, 0, 0, 1]])
UNDRAWN = 255
_AT = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"))
BALL = ((_AT - np.array(SIZE).reshape(3, 1, 1, 1) / 2) ** 2).sum(0) < 36
PLANES = [(0, 5), (0, 12), (1, 10), (2, 4), (2, 8), (2, 12)]


def slices(planes, values=(0, 100)) -> np.ndarray:
    label = np.full(SIZE, UNDRAWN, np.uint8)
    for axis, index in planes:
        at = tuple(index if a == axis else slice(None) for a in range(3))
        label[at] = np.where(BALL[at], values[1], values[0])
    return label


def save(array, path: Path) -> str:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return str(path)


class Lines(list):
    """The lines that were run, as configs and overrides; each leaves what such a line leaves."""

    fails: str = ""  # name of a config whose line fails
    status = 1

    def __call__(self, line, log=None, verbose=False):
        self.append((line.configs, line.overrides()))
        line.command()
        if self.fails in line.configs:
            raise LineError(self.status)
        entries = line.overrides()
        place, model = Path(entries["output_dir"]), Path(entries["model_path"])
        place.mkdir(parents=True, exist_ok=True)
        if line.configs[0] == "inference":
            assert model.is_file()
            self._label(Path(entries["dataset_dir"]), place)
        elif "evaluate" in line.configs:
            classes = {name: {"iou": {"mean": 0.5 + 0.2 * k}} for k, name in enumerate(entries["class_names"])}
            content = {"summary": {**classes, "all classes": {"iou": {"mean": 0.6}}}, "failed": []}
            (place / "metrics.json").write_text(json.dumps(content))
            if "score" in line.configs:
                (image,) = Path(entries["dataset_dir"]).glob("imagesTr/*")
                self._label(image, place)
        else:
            for name in ("model.pt", "model.json"):
                (model.parent / name).parent.mkdir(parents=True, exist_ok=True)
                model.with_name(name).write_text(f"{len(self)}")
            (place / "resume_model.pt").write_text("")
            cost = {"seconds": 60, "peak_memory_mib": 1, "memory": "resident", "device": "cpu"}
            (place / "training.json").write_text(json.dumps(cost))

    @staticmethod
    def _label(image: Path, place: Path) -> None:
        """Bright voxels, and a corner that is wrong; uncertain where grey values are in between."""
        grey = nibabel.load(image)
        values = grey.get_fdata()
        found = (values > 50).astype(np.uint8)
        found[:3, :3] = 1
        unsure = np.full(values.shape, 0.1, np.float32)
        unsure[:4, :4] = 0.9
        for name, array in (("seg", found), ("uncertainty", unsure)):
            nibabel.save(nibabel.Nifti1Image(array, grey.affine), place / f"{case_name(image)}_{name}.nii.gz")

    def names(self) -> list[str]:
        """What the lines do, by their last config."""
        return ["+".join(name for name in configs if name != "densify") for configs, _ in self]


@pytest.fixture
def lines(monkeypatch) -> Lines:
    made = Lines()
    monkeypatch.setattr(densify_work, "run_line", made)
    monkeypatch.setattr(densify_steps, "run_line", made)
    monkeypatch.setattr(densify_work, "pace_of", lambda line: None)
    monkeypatch.setattr(densify_report, "densify_figure", lambda *_: False)  # drawing takes longer than all the rest
    monkeypatch.setattr(command, "check_package", lambda: None)
    monkeypatch.setattr(command, "keep_memory", lambda: "A=1")
    return made


@pytest.fixture
def image(tmp_path) -> str:
    noise = np.random.default_rng(0).normal(0, 5, SIZE)
    return save((100 * BALL + noise).astype(np.float32), tmp_path / "scan.nii.gz")


@pytest.fixture
def drawn(tmp_path) -> str:
    return save(slices(PLANES), tmp_path / "drawn.nii.gz")


@pytest.fixture
def densify(lines, image, drawn, tmp_path, monkeypatch, repository):
    """The command on the image, with the slices unless others are given, into the folder ``out``."""
    monkeypatch.chdir(repository)

    def run(*words, given=None) -> int:
        return main(["densify", image, *(given or [drawn]), "--out", str(tmp_path / "out"), *words])

    return run


def volume(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


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
    monkeypatch.setattr(densify_report, "densify_figure", densify_figure)
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


# -- further slices ---------------------------------------------------------------------------------------------------


@pytest.fixture
def more(tmp_path) -> str:
    return save(slices([(0, 18), (1, 4), (1, 15), (2, 2), (2, 14)]), tmp_path / "more.nii.gz")


def test_further_slices_are_added_and_training_goes_on_from_what_has_not_seen_those_held_out(
    densify, lines, more, tmp_path
):
    densify()
    out, before = tmp_path / "out", read_record(tmp_path / "out")
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0
    record = read_record(out)
    assert lines[0][1]["start_from"] == str(out / "fit" / "model.pt")
    assert record["planes"] == [[5, 12, 18], [4, 10, 15], [2, 4, 8, 12, 14]]
    assert all(set(old) <= set(new) for old, new in zip(before["held_out"], record["held_out"], strict=True))
    new = sum(map(len, record["held_out"])) - sum(map(len, before["held_out"]))
    assert new == 1
    assert [len(one) for one in record["inputs"]["slices"]] == [1, 1]
    assert not (out / NEXT).exists() and "contents" not in record
    assert sorted(path.name for path in (out / "data" / "imagesTr").iterdir()) == ["volume2.nii.gz"]
    both = np.where(slices(PLANES) == UNDRAWN, volume(Path(more)), slices(PLANES))
    assert np.array_equal(volume(out / "dense.nii.gz")[both != UNDRAWN], both[both != UNDRAWN])


@pytest.mark.parametrize("factor", [1, 2])
def test_nothing_is_scored_that_an_earlier_round_was_trained_on(densify, more, tmp_path, capsys, factor):
    out, words = tmp_path / "out", ["--downsample", str(factor)]

    def case(number):
        return volume(out / "data" / "labelsTr" / f"volume{number}.nii.gz") != 2

    def on(held_out):
        mask = np.zeros(case_shape, bool)
        for axis, indices in enumerate(held_out):
            mask[tuple(indices if a == axis else slice(None) for a in range(3))] = True
        return mask

    densify(*words)
    case_shape = tuple(n // factor for n in SIZE)
    trained, drawn = [case(1) & ~on(read_record(out)["held_out"])], [case(1)]
    last = save(slices([(0, 2), (1, 7), (2, 6), (2, 10)]), tmp_path / "last.nii.gz")
    for number, given in ((2, more), (3, last)):
        capsys.readouterr()
        assert densify("--continue", "true", given=[given]) == 0
        told, held_out = capsys.readouterr().out, on(read_record(out)["held_out"])
        everything = drawn[-1] | coarse(volume(Path(given)) != UNDRAWN, factor)
        scored = case(number) & held_out
        crossed = everything & held_out & trained[-1]
        assert crossed.any() and not (scored & trained[-1]).any()
        np.testing.assert_array_equal(scored, everything & held_out & ~trained[-1])
        np.testing.assert_array_equal(case(number) & ~held_out, everything & ~held_out)
        assert f"{crossed.sum()} voxels held out are not scored" in told
        trained.append(trained[-1] | (case(number) & ~held_out))
        drawn.append(everything)
        dense = volume(out / "dense.nii.gz")
        there = volume(Path(given)) != UNDRAWN
        assert np.array_equal(dense[there], volume(Path(given))[there])
        if factor == 1:
            assert json.loads((out / "report.json").read_text())["uncertainty"]["voxels"] == scored.sum()
    data = [nibabel.load(next((out / "data" / part).iterdir())) for part in ("imagesTr", "labelsTr")]
    assert np.allclose(data[0].affine, data[1].affine)
    assert data[0].header.get_xyzt_units() == data[1].header.get_xyzt_units()


def coarse(mask, factor):
    for axis in range(3):
        mask = np.logical_or.reduceat(mask, range(0, mask.shape[axis], factor), axis)
    return mask


def test_a_folder_may_have_any_name(lines, image, drawn, more, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    out = tmp_path / NEXT
    for words in ([drawn], [drawn], [more, "--continue", "true"]):
        assert main(["densify", image, *words, "--out", str(out)]) == 0
        assert (out / "report.md").is_file() and (out / "fit" / "model.pt").is_file() and not (out / NEXT).exists()
    assert read_record(out)["planes"] == [[5, 12, 18], [4, 10, 15], [2, 4, 8, 12, 14]]


def test_a_round_that_fails_leaves_the_one_before_whole(densify, lines, more, tmp_path):
    densify()
    out = tmp_path / "out"
    kept = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    lines.fails = "inference"
    assert densify("--continue", "true", given=[more]) == 1
    assert all((out / path).read_bytes() == content for path, content in kept.items())
    lines.fails = ""
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0
    assert lines.names() == ["inference+uncertainty"] and not (out / NEXT).exists()


def test_a_round_is_given_up_for_other_slices(densify, lines, more, tmp_path):
    densify()
    lines.fails = "train"
    assert densify("--continue", "true", given=[more]) == 1
    lines.fails = ""
    other = save(slices([(1, 4)]), tmp_path / "other.nii.gz")
    assert densify("--continue", "true", given=[other]) == 0
    assert read_record(tmp_path / "out")["planes"] == [[5, 12], [4, 10], [4, 8, 12]]


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
        patched.setattr(densify_folder.os, "replace", cut)
        densify("--continue", "true", given=[more])
    assert (tmp_path / "out" / NEXT).exists()
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0 and not lines
    out = tmp_path / "out"
    assert not (out / NEXT).exists() and not (out / "rivals").exists()
    assert [path.name for path in (out / "data" / "labelsTr").iterdir()] == ["volume2.nii.gz"]
    assert read_record(out)["planes"] == [[5, 12, 18], [4, 10, 15], [2, 4, 8, 12, 14]]
    read_filled(out)


def test_one_axis_is_warned_of_only_when_it_is_one_of_all(densify, tmp_path, capsys):
    densify(given=[save(slices([(2, 3), (2, 6), (2, 8), (2, 12)]), tmp_path / "z.nii.gz")])
    assert "Warning: slices were drawn across z only" in capsys.readouterr().out
    assert densify("--continue", "true", given=[save(slices([(1, 10)]), tmp_path / "y.nii.gz")]) == 0
    told = capsys.readouterr().out
    assert "slices were drawn across" not in told and "All slices (counted from 0): y 10; z 3, 6, 8, 12" in told


def test_the_second_round_again_does_nothing(densify, lines, more, tmp_path):
    densify()
    densify("--continue", "true", given=[more])
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0 and not lines


def test_voxels_drawn_anew_replace_the_old_ones(densify, tmp_path, capsys):
    densify()
    capsys.readouterr()
    again = slices([(2, 8)])
    again[0, 0, 8] = 100
    assert densify("--continue", "true", given=[save(again, tmp_path / "again.nii.gz")]) == 0
    assert "1 were labelled otherwise" in capsys.readouterr().out
    assert volume(tmp_path / "out" / "dense.nii.gz")[0, 0, 8] == 100


def test_a_new_class_starts_from_random_weights(densify, lines, tmp_path, capsys):
    densify()
    lines.clear()
    third = slices([(2, 6)], values=(0, 7))
    assert densify("--continue", "true", given=[save(third, tmp_path / "third.nii.gz")]) == 0
    assert lines[0][1]["start_from"] is None and lines[0][1]["num_classes"] == 3
    assert "There are 3 classes now and were 2" in capsys.readouterr().out


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


# -- what is refused --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--epoch", "3"], "--epoch answers to no id of the config.*use 'epochs'"),
        (["--num_classes", "3"], "--num_classes was given: it follows from the image"),
        (["--held_out", "[[1],[],[]]"], "--held_out was given: it follows"),
        (["--disputed", "first"], "disputed is 'first': it is one of error, unlabelled, last"),
        (["--unlabeled", "0"], "--unlabeled answers to no id.*use 'unlabelled'"),
        (["--downsampel", "2"], "--downsampel answers to no id.*use 'downsample'"),
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


def test_a_training_is_not_done_again_whose_end_was_not_noted(densify, lines, tmp_path, monkeypatch):
    """Weights to go on from are kept until then."""
    finish = densify_folder.Folder.finish
    for step, place in (("fit", "fit"), ("finish", "finish"), ("rivals/slice2d", "rivals/slice2d")):

        def cut(self, name, seconds, at=step):
            if name == at:
                raise RuntimeError("power cut")
            finish(self, name, seconds)

        left = tmp_path / "out" / place / "resume_model.pt"
        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
            patched.setattr(densify_folder.Folder, "finish", cut)
            densify("--rivals", "slice2d")
        assert left.is_file()
    assert densify("--rivals", "slice2d") == 0 and not list((tmp_path / "out").rglob("resume_*.pt"))


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


def test_a_beginning_that_was_cut_short_is_begun_anew(densify, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
        patched.setattr(densify_folder.Folder, "save", lambda self: (_ for _ in ()).throw(RuntimeError("power cut")))
        densify()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "drawn.nii.gz"]
    assert densify() == 0 and (tmp_path / "out" / "report.md").is_file()


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


def test_further_slices_want_what_is_done(densify, lines, more, capsys):
    lines.fails = "score"
    densify()
    assert densify("--continue", "true", given=[more]) == 2
    assert "is not done with the slices before" in capsys.readouterr().err


def test_the_grid_stays_in_further_rounds(densify, more, capsys):
    densify()
    assert densify("--continue", "true", "--downsample", "2", given=[more]) == 2
    assert "--downsample is 2 and was not given" in capsys.readouterr().err


def test_rivals_want_slices_held_out(densify, lines, capsys):
    assert densify("--rivals", "slice2d", "--hold_out", "0") == 2
    assert "no slice is held out" in capsys.readouterr().err and not lines


def test_a_folder_that_is_not_done_is_not_read(densify, lines, tmp_path):
    lines.fails = "finish"
    densify()
    with pytest.raises(InputError, match="is not filled up yet"):
        read_filled(tmp_path / "out")
    with pytest.raises(InputError, match="has no densify.json.*that volseg densify made"):
        read_filled(tmp_path)
