"""A comparison of recipes: what is run, with what, and what becomes of it, by processes that only pretend to train."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from pretended import lines, pretended_bundle

from common.checks import InputError
from common.cli.commands import main
from common.cli.compare import compare
from common.cli.folds import FoldRuns
from common.cli.recipe_table import read_result, write_table
from common.cli.recipes import Recipe, parse_recipes

TRAIN = {"recipe": "paper", "dataset_dir": "x", "epochs": 9, "seed": 5, "fold": 0, "folds": 3, "batch_size": 1}
TRAIN |= {
    "loss": {"weight": 1.0},
    "bundle_root": "",
    "output_dir": "",
    "model_path": "",
    "resume": False,
    "rivals": ["wide", "paper:epochs=4"],
}
CONFIGS = {
    "train": TRAIN,
    "evaluate": {"report": True},
    "small": {"epochs": 2},
    "wide": {"batch_size": 8, "loss::weight": 0.5},
    "untrained": {"epochs": 0},
}


@pytest.fixture
def bundle(tmp_path, monkeypatch, repository) -> Path:
    """A bundle of configs only, whose lines are run by a script that pretends to."""
    return pretended_bundle(tmp_path, CONFIGS, repository, monkeypatch)


def test_every_recipe_gets_every_fold(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert compare(bundle, out, overrides={"epochs": "7"}) == 0
    ran = lines(out)
    order = [(config, told["fold"], told.get("epochs")) for config, told in ran]
    recipes = [("", "7"), ("+wide", "7"), ("", "4")]
    expected = [
        (base + more, str(fold), epochs)
        for fold in range(3)
        for more, epochs in recipes
        for base in ("train", "train+evaluate")
    ]
    assert order == expected  # fold by fold, the settings of a recipe over those of all
    assert {told["folds"] for _, told in ran} == {"3"} and not any("seed" in told for _, told in ran)
    assert [told.get("resume") for _, told in ran] == ["True", None] * 9
    assert len({told["output_dir"] for _, told in ran}) == 9
    assert all(told["model_path"] == str(Path(told["output_dir"]) / "model.pt") for _, told in ran)
    assert all(told["bundle_root"] == str(bundle) and "dataset_dir" not in told for _, told in ran)
    text = (out / "table.md").read_text()
    assert text in capsys.readouterr().out
    rows = {
        cells[0].strip(): [c.strip() for c in cells[1:]]
        for cells in (r[2:-2].split("|") for r in re.findall(r"^\|.*\|$", text, re.M))
    }
    assert rows[""] == ["runs", "Dice, %", "IoU, %", "training, min", "memory, MiB"]  # HD95 is nowhere
    assert rows["paper"] == ["3", "71.0 ± 1.0", "35.5 ± 0.5", "2.0 ± 0.0", "512 ± 0"]
    assert rows["paper:epochs=4"][1] == "41.0 ± 1.0"
    assert "- paper:epochs=4: epochs=4" in text and "resident, on cpu, 1 threads" in text
    with open(out / "table.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 9 and {row["class"] for row in table} == {"vessel"}
    assert [row["dice"] for row in table if row["recipe"] == "wide"] == ["0.7", "0.71", "0.72"]
    assert (out / "table.png").read_bytes().startswith(b"\x89PNG")


def test_an_overlay_of_a_recipe_prevails_and_is_told(bundle, tmp_path):
    given = {"batch_size": "2", "loss#weight": "0.7"}
    assert compare(bundle, tmp_path / "out", "wide,paper", overrides=given, runs="1") == 0
    ran = {told["output_dir"].split("/")[-2]: [told.get(name) for name in given] for _, told in lines(tmp_path / "out")}
    assert ran == {"wide": [None, None], "paper": ["2", "0.7"]}
    assert "- wide: batch_size=8, loss#weight=0.5" in (tmp_path / "out" / "table.md").read_text()


def test_a_recipe_without_training_is_scored_and_costs_nothing(bundle, tmp_path):
    out = tmp_path / "out"
    assert compare(bundle, out, "paper,untrained", runs="2", overrides={"epochs": "7"}) == 0
    given = {told["output_dir"].split("/")[-2]: told.get("epochs") for _, told in lines(out)}
    assert given == {"paper": "7", "untrained": None}  # its own 0 prevails
    text = (out / "table.md").read_text()
    cells = [cell.strip() for cell in re.search(r"^\| untrained .*$", text, re.M)[0][2:-2].split("|")]
    assert cells == ["untrained", "2", "0.5 ± 0.7", "0.2 ± 0.4", "-", "-"]
    assert compare(bundle, out, "paper,untrained", runs="2", overrides={"epochs": "7"}) == 0
    assert len(lines(out)) == 8  # it is done


def test_runs_beyond_the_folds_split_anew(bundle, tmp_path):
    out = tmp_path / "out"
    assert compare(bundle, out, "paper", folds="2", runs="5") == 0
    told = [(t["fold"], t.get("seed"), Path(t["output_dir"]).name) for config, t in lines(out) if config == "train"]
    names = ["fold0", "fold1", "fold0_seed6", "fold1_seed6", "fold0_seed7"]
    assert told == list(zip("01010", [None, None, "6", "6", "7"], names))


def test_what_is_done_is_not_done_again(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    compare(bundle, out, "paper", runs="2")
    (out / "paper" / "fold1" / "evaluated.json").unlink()  # as a run leaves it that is killed while it is evaluated
    before = len(lines(out))
    assert compare(bundle, out, "paper,wide", runs="2") == 0  # and a recipe more
    assert [(config, told["fold"]) for config, told in lines(out)[before:]] == [
        ("train+wide", "0"),
        ("train+evaluate+wide", "0"),
        ("train+evaluate", "1"),
        ("train+wide", "1"),
        ("train+evaluate+wide", "1"),
    ]
    assert "3 of 4 runs to do" in capsys.readouterr().out


def test_a_case_that_failed_is_scored_again(bundle, tmp_path):
    out = tmp_path / "out"
    compare(bundle, out, "paper", runs="1")
    scores = out / "paper" / "fold0" / "metrics.json"
    scores.write_text(json.dumps({**json.loads(scores.read_text()), "failed": ["case_1"]}))
    assert compare(bundle, out, "paper", runs="1") == 0
    assert [config for config, _ in lines(out)] == ["train", "train+evaluate", "train+evaluate"]


def test_one_bad_run_does_not_end_the_others(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert compare(bundle, out, "paper:epochs=13,paper", runs="2", jobs="2") == 1
    text = (out / "table.md").read_text()
    told = re.findall(r"- paper:epochs=13, fold(\d): ended with 1: InputError: the number is unlucky \((.*)\)", text)
    assert sorted(number for number, _ in told) == ["0", "1"] and all(Path(log).is_file() for _, log in told)
    assert re.search(r"\| paper +\| +2 \|", text) and not re.search(r"\| paper:epochs=13 ", text)
    assert "paper, fold1: done" in capsys.readouterr().out


def test_nothing_scored_is_said(bundle, tmp_path, capsys):
    assert compare(bundle, tmp_path / "out", "paper:epochs=13", runs="1") == 1
    assert "Nothing was scored." in capsys.readouterr().out and not (tmp_path / "out" / "table.csv").exists()


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["keyboard", "terminated"])
def test_an_interrupt_stops_the_processes_and_the_same_line_goes_on(bundle, tmp_path, capsys, request, number):
    out = tmp_path / "out"
    out.mkdir()
    (out / "wait").touch()
    before = signal.getsignal(signal.SIGTERM)
    # a shell's background jobs start with SIGINT ignored
    at_first = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, at_first))

    def told_itself() -> bool:
        return (out / "lines.txt").exists() and (out / "lines.txt").stat().st_size > 0

    def interrupt() -> None:
        deadline = time.monotonic() + 300
        while not told_itself() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    assert compare(bundle, out, "paper", runs="2") == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(lines(out)) == 1 and "the same line goes on from here" in capsys.readouterr().out
    (out / "wait").unlink()
    assert compare(bundle, out, "paper", runs="2") == 0
    trained = [json.loads((out / "paper" / f"fold{k}" / "trained.json").read_text()) for k in range(2)]
    assert [one["resumed"] for one in trained] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"recipes": "wid"}, "has no config 'wid'.*write 'wide'"),
        ({"recipes": "paper:epoch=3"}, "--epoch answers to no id.*use 'epochs'"),
        ({"overrides": {"epoch": "3"}}, "--epoch answers to no id.*use 'epochs'"),
        ({"overrides": {"fold": "1"}}, "'fold' was set for paper: each run .* its own.*leave it out"),
        ({"recipes": "paper:output_dir=x"}, "'output_dir' was set for paper:output_dir=x"),
        ({"overrides": {"rivals": "wide"}}, "--rivals was given.*write --recipes A,B"),
        ({"folds": "1"}, "folds is 1: .* two folds or more"),
        ({"folds": "some"}, "folds is 'some'.*whole number"),
        ({"runs": "0"}, "runs is 0: it must be 1 or more"),
        ({"jobs": "0"}, "jobs is 0: it must be 1 or more"),
        ({"overrides": {"dataset_dir": "nowhere"}}, "nowhere"),
        ({"overlays": ["tiny"]}, "has no config 'tiny'"),
    ],
)
def test_refused_before_anything_runs(bundle, tmp_path, arguments, text):
    with pytest.raises(InputError, match=text):
        compare(bundle, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_other_settings_want_another_folder(bundle, tmp_path):
    compare(bundle, tmp_path / "out", "paper", runs="1")
    with pytest.raises(InputError, match=r"holds runs of .*'overlays': \[\].*not .*'small'.*another folder"):
        compare(bundle, tmp_path / "out", "paper", runs="1", overlays=["small"])


def test_a_bundle_without_folds_wants_a_number(bundle, tmp_path):
    (bundle / "configs" / "train.json").write_text(json.dumps({**TRAIN, "folds": None}))
    with pytest.raises(InputError, match="folds is None.*pass for example --folds 4"):
        FoldRuns(bundle, tmp_path)
    assert FoldRuns(bundle, tmp_path, folds=2).folds == 2


@pytest.mark.parametrize("given", [{}, {"slice_folds": "2"}], ids=["config", "given"])
def test_folds_of_annotated_slices_where_cases_are_not_dealt_to_folds(bundle, tmp_path, given):
    slices = {"slice_fold": 0, "slice_folds": 3}
    (bundle / "configs" / "train.json").write_text(json.dumps({**TRAIN, "folds": None, **slices}))
    out = tmp_path / "out"
    assert compare(bundle, out, "paper", overrides=given) == 0
    count = int(given.get("slice_folds", 3))
    names = ["folds", "slice_fold", "slice_folds"]
    told = [[told[name] for name in names] for config, told in lines(out) if config == "train"]
    assert told == [["None", str(fold), str(count)] for fold in range(count)]
    assert not any("fold" in told for _, told in lines(out))
    assert f"one of {count} folds of the annotated slices;" in (out / "table.md").read_text()
    with pytest.raises(InputError, match="'slice_fold' was set for paper:slice_fold=1: each run"):
        compare(bundle, out, "paper:slice_fold=1", overrides=given)
    with pytest.raises(InputError, match=f"holds runs of .*'folds': {count}, 'of': 'slices'.*not .*'folds': 2, "):
        compare(bundle, out, "paper", folds="2", overrides={})


def test_jobs_share_the_cores(bundle, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert FoldRuns(bundle, tmp_path, jobs=3)._environment["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in FoldRuns(bundle, tmp_path)._environment


def test_the_command_hands_on_what_was_typed(bundle, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    words = ["compare", str(bundle), "--recipes", "paper,wide", "--runs=1", "--overlays", "small"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert [config for config, _ in lines(tmp_path / "out")] == [
        "train+small",
        "train+evaluate+small",
        "train+small+wide",
        "train+evaluate+small+wide",
    ]


def test_the_log_holds_the_line(bundle, tmp_path):
    plan = FoldRuns(bundle, tmp_path / "out", folds=2)
    (recipe,) = parse_recipes("wide")
    plan.run(recipe, plan.variant(1))
    assert (plan.folder(recipe, plan.variant(1)) / "train.log").read_text().startswith("$ python ")


def test_what_only_serves_to_go_on_does_not_stay(bundle, tmp_path):
    compare(bundle, tmp_path / "out", "paper", runs="1")
    assert not list((tmp_path / "out").rglob("resume_*"))


# -- the table --------------------------------------------------------------------------------------------------------


def vessels(folder: Path, seconds: float, **means: float | None) -> Path:
    folder.mkdir(parents=True)
    group = {name: {"mean": value} for name, value in means.items()}
    content = {"summary": {"vessel": group, "all classes": group}, "cases": []}
    content["application"] = {"seconds": {"mean": 9.0, "median": seconds}}
    (folder / "vessels.json").write_text(json.dumps(content))
    (folder / "metrics.json").write_text("{}")  # not looked at
    return folder


def test_vessels_have_the_columns_of_the_paper(tmp_path):
    scores = [dict(dice_loss=0.1, mean_accuracy=0.9, mean_iou=0.8, dice=0.85, cldice=0.7, betti0_error=2.0)]
    scores.append(dict(dice_loss=0.3, mean_accuracy=0.7, mean_iou=0.8, dice=None, cldice=0.5, betti0_error=4.0))
    results = [
        read_result(vessels(tmp_path / str(n), 0.25, **one), "paper", f"fold{n}") for n, one in enumerate(scores)
    ]
    text = write_table(results, tmp_path, "A title")
    head, _, row = [
        [cell.strip() for cell in line[2:-2].split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    titles = ["", "runs", "Dice loss", "MA, %", "IU, %", "DC, %", "clDice, %", "Betti-0 error", "application, ms"]
    assert head == titles
    spread = ["0.200 ± 0.141", "80.0 ± 14.1", "80.0 ± 0.0", "85.0 (n = 1)", "60.0 ± 14.1", "3.0 ± 1.4", "250 ± 0"]
    assert row == ["paper", "2", *spread]


def test_stages_of_a_training_add_up_and_classes_have_rows(tmp_path):
    groups = {
        name: {"dice": {"mean": value}} for name, value in zip(["liver", "tumour", "all classes"], [0.9, 0.5, 0.7])
    }
    (tmp_path / "metrics.json").write_text(json.dumps({"summary": groups, "cases": [], "failed": []}))
    for stage, seconds, peak in (("liver", 60, 100.0), ("tumour", 120, None)):
        record = {"seconds": seconds, "peak_memory_mib": peak, "memory": "resident", "device": "cpu"}
        (tmp_path / f"training_{stage}.json").write_text(json.dumps(record))
    text = write_table([read_result(tmp_path, "paper", "fold0")], tmp_path, "A title")
    assert "deviation" not in text and not (tmp_path / "table.png").exists()  # of one run
    rows = [[cell.strip() for cell in line[2:-2].split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "class", "runs", "Dice, %", "training, min", "memory, MiB"]
    assert rows[2:] == [
        ["paper", "liver", "1", "90.0", "3.0", "100"],
        ["", "tumour", "", "50.0", "", ""],
        ["", "all classes", "", "70.0", "", ""],
    ]


def test_a_recipe_is_hidden_from_none(tmp_path):
    """A recipe whose scores are all undefined still has its row."""
    results = [
        read_result(vessels(tmp_path / name, 0.1, dice=value), name, "fold0")
        for name, value in (("a", 0.5), ("b", None))
    ]
    assert re.search(r"\| b +\| +1 \| +- \|", write_table(results, tmp_path, "A title"))
    assert [result.recipe for result in results] == ["a", "b"]


def test_recipes_compare_as_values():
    assert Recipe("paper") == Recipe("paper") != Recipe("paper", ("small",))
