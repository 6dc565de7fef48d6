"""Annotation pretended: who draws what, what is scored, what is told; by segmenters that only pretend to be some."""

from __future__ import annotations

import csv
import json
import math

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.cli.annotate import simulate as command
from common.cli.annotate.report import write_report
from common.cli.annotate.segmenters import RivalSegmenter
from common.cli.annotate.simulate import read_known, simulate
from common.cli.annotate.simulation import Known, Plan, Simulation, class_ious
from common.data.volume_file import read_volume
from common.geometry.planes import on_planes

SIZE = (12, 10, 8)


def ball(size=SIZE, radius=3.2) -> np.ndarray:
    middle = [(length - 1) / 2 for length in size]
    return (sum((np.indices(size)[axis] - middle[axis]) ** 2 for axis in range(3)) < radius**2).astype(np.uint8)


def known(**changes) -> Known:
    planes = [list(range(size)) for size in SIZE]
    given = {"label": ball(), "values": (0, 7), "spacing": (1.0, 1.0, 2.0), "candidates": planes, "background": 0}
    return Known(**{**given, **changes})


class Pretender:
    """Knows all but a share of the foreground, which is the smaller the more is drawn; notes what it was given."""

    def __init__(self, label=None, fails=()):
        self.label, self.fails, self.calls = ball() if label is None else label, fails, []

    def __call__(self, drawn, place, before):
        self.calls.append((place.name, None if before is None else before.name, drawn))
        if place.name in self.fails:
            raise RuntimeError("the segmenter fell over")
        count = int((1 - (drawn != 2).mean()) * (self.label == 1).sum())
        found = self.label.copy()
        found[tuple(np.argwhere(found == 1)[:count].T)] = 0
        return found, (found != self.label) + 0.01


@pytest.mark.parametrize("classes", [2, 3])
def test_iou_is_that_of_sets(classes):
    random = np.random.default_rng(classes)
    label, predicted = random.integers(0, classes, (2, 5, 6, 7))
    scored = random.random((5, 6, 7)) < 0.5
    label[~scored] = classes  # unknown where nothing is scored
    for k, iou in enumerate(class_ious(predicted, label, scored, classes)):
        a, b = (
            set(map(tuple, np.argwhere(scored & (label == k)))),
            set(map(tuple, np.argwhere(scored & (predicted == k)))),
        )
        assert iou == pytest.approx(len(a & b) / len(a | b))
    assert class_ious(predicted, label, np.zeros_like(scored), classes) == [None] * classes


def test_what_is_drawn_is_the_label_on_the_planes_and_nothing_else():
    drawn = known().drawn([[3], [], [2, 5]])
    mask = on_planes(SIZE, [[3], [], [2, 5]])
    assert (drawn[~mask] == 2).all() and (drawn[mask] == ball()[mask]).all()


def test_what_is_drawn_is_not_scored():
    planes = [[3], [4], []]
    assert (known().scored(planes) == ~on_planes(SIZE, planes)).all()
    held_out = [[], [], [6]]
    sparse = known(label=known().drawn([[3], [4], [6]]), held_out=held_out)
    assert sparse.scored(planes).sum() == SIZE[0] * SIZE[1] - SIZE[0] - SIZE[1] + 1


def test_all_strategies_of_a_repeat_start_from_the_same_planes_and_repeats_from_others(tmp_path):
    segment = Pretender()
    simulation = Simulation(known(), Plan(rounds=2, add=2, repeats=3), segment, tmp_path)
    for task in simulation.tasks():
        simulation.run(*task)
    assert len(segment.calls) == 3 * (1 + 2 * 3) == len(simulation.records())
    starts = []
    for repeat in range(3):
        start = simulation.record(repeat, "start", 0)
        starts.append(start["planes"])
        assert (
            start["slices"] == 3 and start["strategy"] == "start" and set(start["next"]) == {"gain", "random", "even"}
        )
        for strategy in ("gain", "random", "even"):
            first, second = (simulation.record(repeat, strategy, number) for number in (1, 2))
            assert (first["slices"], second["slices"]) == (5, 7) and set(first["next"]) == {strategy}
            for before, after, chosen in (
                (start, first, start["next"][strategy]),
                (first, second, first["next"][strategy]),
            ):
                added = [
                    [axis, index]
                    for axis in range(3)
                    for index in set(after["planes"][axis]) - set(before["planes"][axis])
                ]
                assert sorted(added) == sorted(chosen)
    assert len({json.dumps(start) for start in starts}) == 3
    before = {name: former for name, former, _ in segment.calls}
    assert before["repeat1_start_round0"] is None
    assert before["repeat1_gain_round1"] == "repeat1_start_round0"
    assert before["repeat1_gain_round2"] == "repeat1_gain_round1"


def test_planes_to_start_with_show_every_class(tmp_path):
    label = np.zeros(SIZE, np.uint8)
    label[5, 4, 3] = 1  # one voxel: few planes show it
    for repeat in range(5):
        simulation = Simulation(known(label=label), Plan(), Pretender(label), tmp_path)
        planes = simulation.run(repeat, "start", 0)["planes"]
        assert 5 in planes[0] or 4 in planes[1] or 3 in planes[2]
    with pytest.raises(InputError, match="show 1 class: two classes must be told apart. .* larger --start"):
        Simulation(known(label=np.zeros(SIZE, np.uint8)), Plan(), Pretender(), tmp_path).run(0, "start", 0)


def test_strategies_choose_what_they_say(tmp_path):
    """Uncertain on one plane alone: gain takes it; even takes the widest gap; random stays on the foreground."""

    def segment(drawn, place, before):
        uncertainty = np.zeros(SIZE)
        uncertainty[:, 8] = 1
        return ball(), uncertainty

    record = Simulation(known(), Plan(add=1, axes=(1,)), segment, tmp_path).run(0, "start", 0)
    drawn = record["planes"][1][0]
    assert record["next"]["gain"] == [(1, 8)]
    assert abs(record["next"]["even"][0][1] - drawn) >= 3
    assert ball()[:, record["next"]["random"][0][1]].any()


def test_slices_run_out(tmp_path):
    few = [[4, 6], [5], [3]]
    plan = Plan(start=(1, 1, 1), rounds=2, add=2, repeats=1, strategies=("gain",))
    simulation = Simulation(known(candidates=few), plan, Pretender(), tmp_path)
    simulation.check()
    simulation.run(0, "start", 0)
    assert simulation.run(0, "gain", 1)["planes"] == few
    with pytest.raises(RuntimeError, match="every slice that may be drawn is drawn"):
        simulation.run(0, "gain", 2)


@pytest.fixture
def files(tmp_path):
    """An image and its label as files, and a place."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    image = np.random.default_rng(0).random(SIZE).astype(np.float32) + 3 * ball()
    for name, array in (("image", image), ("label", 7 * ball())):
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    return tmp_path / "image.nii.gz", tmp_path / "label.nii.gz", tmp_path / "out"


def run(files, segmenter="interpolation", plan=None, repository=None, **more):
    image, label, out = files
    plan = plan or Plan(rounds=1, add=2, repeats=2)
    options = {name: more.pop(name) for name in ("unlabelled", "background") if name in more}
    bundle = out if repository is None else repository / "bundles" / "unet3d_sparse"  # only the network asks for it
    return simulate(str(image), str(label), str(out), plan, segmenter, bundle, options, **more)


def test_a_simulation_is_told_and_goes_on_where_it_was_stopped(files, monkeypatch, capsys):
    assert run(files) == 0
    out = files[2]
    text = (out / "report.md").read_text()
    assert "| slices | voxels drawn |" in text and "| 3 " in text and "| 5 " in text
    assert "**gain less random**" in text and "2 repeats" in text and "Missing" not in text
    assert (out / "curves.png").stat().st_size > 10_000
    with open(out / "rounds.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 4 * 3 and {row["class"] for row in rows} == {"0", "7", "mean"}
    assert "8 of 8 rounds to do" in capsys.readouterr().out

    (out / "rounds" / "repeat1_even_round1.json").unlink()
    calls = []
    kept = RivalSegmenter.__call__
    monkeypatch.setattr(RivalSegmenter, "__call__", lambda self, *args: calls.append(args[1].name) or kept(self, *args))
    assert run(files) == 0
    assert calls == ["repeat1_even_round1"] and (out / "report.md").read_text()[:400] == text[:400]
    with pytest.raises(InputError, match="holds a simulation with another rounds: .* another folder"):
        run(files, plan=Plan(rounds=3, add=2, repeats=2))
    with pytest.raises(InputError, match="with another segmenter"):
        run(files, "random_walker")


def test_who_draws_what_is_hard_is_not_relieved_of_it(tmp_path):
    """One answer to all that is drawn: wrong and uncertain in a slab, into which one strategy goes alone."""
    answer = ball()
    answer[:, :, 2:5] = 0
    simulation = Simulation(
        known(),
        Plan(rounds=3, add=2, repeats=1, strategies=("gain", "even")),
        lambda drawn, place, before: (answer, (answer != ball()) + 0.01),
        tmp_path,
    )
    apart = [simulation.run(*task) for task in simulation.tasks()]
    assert len({record["mean_iou"] for record in apart if record["round"] == 3}) == 2
    for _again in range(2):  # a line that is given again scores anew
        simulation.rescore()
        for number in range(4):
            records = [record for record in simulation.records() if record["round"] == number]
            planes = [sorted({index for record in records for index in record["planes"][axis]}) for axis in range(3)]
            scored = known().scored(planes)
            assert {record["scored_voxels"] for record in records} == {scored.sum()}
            expected = class_ious(answer, ball(), scored, 2)
            assert all(list(record["iou"].values()) == pytest.approx(expected) for record in records)
            assert all(record["mean_iou"] == pytest.approx(np.mean(expected)) for record in records)


def test_a_round_that_fails_ends_only_those_that_go_on_from_it(files, monkeypatch, capsys):
    pretender = Pretender(fails=("repeat0_gain_round1", "repeat1_start_round0"))
    monkeypatch.setattr(command, "RivalSegmenter", lambda *args: pretender)
    assert run(files, plan=Plan(rounds=2, add=1, repeats=2, strategies=("gain", "random"))) == 1
    text = (files[2] / "report.md").read_text()
    assert "- repeat 1, gain, round 1: the segmenter fell over" in text
    assert "- repeat 1, gain, round 2: left out: repeat 1, gain, round 1 is missing" in text
    assert "- repeat 2, random, round 1: left out: repeat 2, start is missing" in text
    assert "**gain and random** can not be compared" in text
    assert len(list((files[2] / "rounds").iterdir())) == 3
    assert "random, round 2: 5 slices" in capsys.readouterr().out


def test_an_interrupt_keeps_what_was_done(files, monkeypatch, capsys):
    def stop(drawn, place, before):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "RivalSegmenter", lambda *args: stop)
    assert run(files) == 130 and "the same line goes on" in capsys.readouterr().out


def told(tmp_path, scores) -> str:
    """The report of rounds with these scores, by strategy and repeat."""
    plan = Plan(rounds=1, repeats=len(scores["random"]), strategies=tuple(scores))
    simulation = Simulation(known(), plan, Pretender(), tmp_path)
    for part in ("rounds", "labels"):
        (tmp_path / part).mkdir()
    for strategy, of_repeats in {"start": [0.5] * plan.repeats, **scores}.items():
        for repeat, score in enumerate(of_repeats):
            number = int(strategy != "start")
            record = {"repeat": repeat, "strategy": strategy, "round": number, "slices": 3 + number, "share": 0.1}
            record |= {"iou": {"0": score}, "mean_iou": score, "seconds": 1.0}
            simulation._path(repeat, strategy, number).write_text(json.dumps(record))
            simulation._answer(repeat, strategy, number).touch()
    return write_report(simulation, "title", {})


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ([0.70, 0.74, 0.72], "choosing slices by gain was better than by random"),
        ([0.50, 0.54, 0.52], "choosing slices by gain was worse than by random"),
        ([0.601, 0.643, 0.619], "random is as good as gain, within 0.02 mean IoU"),
        ([0.70, 0.64, 0.55], "no difference can be told from chance, so that random may be as good; more repeats"),
    ],
)
def test_verdicts_follow_from_the_interval(tmp_path, gain, verdict):
    text = told(tmp_path, {"gain": gain, "random": [0.60, 0.64, 0.62]})
    assert verdict in text and "3 repeats)" in text


def test_one_repeat_gives_no_verdict(tmp_path):
    text = told(tmp_path, {"gain": [0.9], "random": [0.6]})
    assert "+0.300 mean IoU over the rounds, of one repeat; chance can not be told from it" in text
    assert json.loads((tmp_path / "report.json").read_text())["differences"]["gain - random"]["low"] is None


def write_label(files, label) -> None:
    nibabel.save(nibabel.Nifti1Image(label, np.diag([1.0, 1.0, 2.0, 1.0])), files[1])


def test_a_label_of_many_slices_lends_some_and_holds_some_out(files):
    planes = [[2, 5, 8], [3, 6], [1, 3, 5]]
    write_label(files, np.where(on_planes(SIZE, planes), ball(), 9).astype(np.uint8))
    found, notes = read_known(read_volume(files[0]), str(files[1]), {})
    assert found.values == (0, 1) and found.background == 0
    together = [sorted([*a, *b]) for a, b in zip(found.candidates, found.held_out, strict=True)]
    assert together == planes and sum(map(len, found.held_out)) == 2
    assert any("8 annotated slices (unlabelled: 9): 2 are held out" in note for note in notes)


def test_a_dense_label_is_known_for_one_and_may_be_drawn_anywhere(files):
    found, notes = read_known(read_volume(files[0]), str(files[1]), {})
    assert found.values == (0, 7) and found.held_out is None and found.spacing == (1.0, 1.0, 2.0)
    assert [len(of_axis) for of_axis in found.candidates] == list(SIZE) and "dense" in notes[-1]
    assert read_known(read_volume(files[0]), str(files[1]), {"background": "7"})[0].background == 1
    assert read_known(read_volume(files[0]), str(files[1]), {"background": "none"})[0].background is None


def test_what_can_not_be_simulated_is_refused(files):
    volume = read_volume(files[0])
    with pytest.raises(InputError, match="--background is 3: it is one of the label's values 0, 7, or none"):
        read_known(volume, str(files[1]), {"background": "3"})
    with pytest.raises(InputError, match="has the classes 7: two classes or more"):
        read_known(volume, str(files[1]), {"unlabelled": "0"})
    write_label(files, known().drawn([[5], [], [4]]))
    with pytest.raises(InputError, match="has 2 annotated slices: .* 8 slices or more"):
        read_known(volume, str(files[1]), {})
    with pytest.raises(InputError, match="segmenter is unets: .* --segmenter unet"):
        run(files, "unets")
    with pytest.raises(InputError, match="--epochs was given: interpolation trains nothing"):
        run(files, overrides={"epochs": "3"})
    holed = np.where(ball() > 0, np.nan, 1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(holed, np.diag([1.0, 1.0, 2.0, 1.0])), files[0])
    with pytest.raises(InputError, match=f"'image.nii.gz' holds {ball().sum()} values that are NaN or infinite"):
        run(files)


def test_overrides_for_the_network_are_checked_before_anything_runs(files, repository):
    with pytest.raises(InputError, match="epohcs.*epochs"):
        run(files, "unet", repository=repository, overrides={"epohcs": "3"})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"strategies": ("gain", "guess")}, "the strategies are gain, guess: they are some of gain, random, even"),
        ({"strategies": ("gain", "gain")}, "each once"),
        ({"strategies": ()}, "the strategies are none"),
        ({"start": (0, 0, 0)}, r"start is \(0, 0, 0\): .* not all 0"),
        ({"rounds": 0}, "rounds is 0, add 3 and repeats 3: each is 1 or more"),
    ],
)
def test_plans_that_make_no_sense_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        Plan(**arguments)


def test_more_slices_to_start_with_than_there_are_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"start is \(13, 0, 0\) and \(12, 10, 8\) slices may be drawn"):
        Simulation(known(), Plan(start=(13, 0, 0)), Pretender(), tmp_path).check()


@pytest.mark.parametrize("name", ["interpolation", "random_walker"])
def test_rivals_keep_what_is_drawn_and_are_sure_of_it(files, name):
    truth = ball()
    drawn = known().drawn([[5], [4], [3]])
    label, uncertainty = RivalSegmenter(name, read_volume(files[0]), 2)(drawn, files[2], None)
    there = drawn != 2
    assert label.shape == uncertainty.shape == SIZE and label.dtype == np.uint8
    assert (label[there] == truth[there]).all() and not uncertainty[there].any()
    assert 0 < uncertainty.max() <= 1 and class_ious(label, truth, ~there, 2)[1] > 0.5
    assert all(math.isfinite(value) for value in (uncertainty.min(), uncertainty.max()))
