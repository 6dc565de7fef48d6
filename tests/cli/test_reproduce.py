"""A paper's experiments: what is run for them and with what, and their tables, by processes that pretend to train."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from pretended import lines, pretended_bundle

from common.bundling.experiments import faults
from common.checks import InputError
from common.cli.commands import main
from common.cli.experiments import Experiment, read_experiments
from common.cli.reproduce import reproduce
from common.data.decathlon import write_dataset

TRAIN = {"dataset_dir": {"_target_": "dict", "size": 3}, "epochs": 9, "norm": "batch", "rate": 1.0, "seed": 0}
TRAIN |= {"fold": 0, "folds": None, "slice_fold": 0, "slice_folds": 3, "slices": None, "cases": None}
TRAIN |= {"bundle_root": "", "output_dir": "", "model_path": "", "resume": False}
CONFIGS = {
    "train": TRAIN,
    "evaluate": {"report": True},
    "small": {"norm": "instance"},
    "automatic": {"slice_folds": None},
    "untrained": {"epochs": 0},
}
FOLDS = {
    "title": "Folds",
    "source": "a paper, table 1",
    "metric": "iou",
    "settings": {"folds": None},
    "rows": {
        "title": "held out",
        "name": "subset {number}",
        "count": 3,
        "option": "folds",
        "least": 2,
        "settings": {"slice_fold": "{index}", "slice_folds": "{count}"},
    },
    "recipes": {
        "without BN": {"settings": {"norm": None, "rate": 0.1}},
        "with BN": {"settings": {"norm": "batch"}},
        "no learning": {"overlays": ["untrained"]},
    },
    "paper": {
        "without BN": {"subset 1": 0.5, "subset 2": 0.6, "subset 3": 0.4, "average": 0.5},
        "with BN": {"subset 1": 0.6, "subset 2": 0.5, "subset 3": 0.5, "average": 0.533},
    },
    "average": "average",
    "differences": [["with BN", "without BN"], ["with BN", "no learning"]],
    "notes": ["A note.", "Another one."],
}
GRID = {
    "title": "Slices",
    "source": "a paper, table 2",
    "metric": "iou",
    "settings": {"slice_folds": None},
    "phantom": {"dataset_dir::size": 8},
    "rows": {
        "title": "slices",
        "each": {"1, 1": {"slices": [1, 1], "epochs": 2}, "3, 2": {"slices": [3, 2], "epochs": 4}},
    },
    "columns": {
        "title": "volume",
        "name": "S{number}",
        "count": 2,
        "option": "volumes",
        "limit": "cases",
        "settings": {"cases": "[{index}]"},
    },
    "ordered": True,
    "recipes": {"with BN": {"settings": {"norm": "batch"}}, "no learning": {"settings": {"rate": 0.0}}},
    "paper": {"with BN": {"1, 1": {"S1": 0.3, "S2": 0.4}, "3, 2": {"S1": 0.5, "S2": 0.35}}},
    "beside": {"title": "voxels", "cells": {"1, 1": "2.5 %"}},
    "notes": [],
}
AUTOMATIC = {
    **{key: FOLDS[key] for key in ("title", "source", "metric", "notes")},
    "overlays": ["automatic"],
    "rows": {**FOLDS["rows"], "limit": "patients", "settings": {"fold": "{index}", "folds": "{count}"}},
    "recipes": {"with BN": {}},
    "paper": {},
}
TOLD = {"folds": FOLDS, "grid": GRID, "automatic": AUTOMATIC}


@pytest.fixture
def bundle(tmp_path, monkeypatch, repository) -> Path:
    """A bundle with three experiments, whose lines are run by a script that pretends to."""
    folder = pretended_bundle(tmp_path, CONFIGS, repository, monkeypatch)
    write(folder, TOLD)
    return folder


def write(bundle: Path, told: dict) -> None:
    (bundle / "docs").mkdir(exist_ok=True)
    (bundle / "docs" / "experiments.json").write_text(json.dumps(told))


def data_set(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    write_dataset(folder, {}, names)
    return folder


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every Markdown table, without the rules."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.M):
        rows = [[cell.strip() for cell in line[2:-2].split("|")] for line in block.splitlines()]
        found.append([rows[0], *rows[2:]])
    return found


def test_each_recipe_in_each_row_and_the_figures_of_the_paper_beside(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert reproduce(bundle, out, ["folds"], overlays=["small"], overrides={"rate": "0.7", "seed": "4"}) == 0
    ran = lines(out / "folds")
    order = [(told["slice_fold"], told.get("norm"), told.get("rate"), config) for config, told in ran]
    recipes = [("None", "0.1", ""), ("batch", "0.7", ""), (None, "0.7", "+untrained")]
    assert order == [
        (str(fold), norm, rate, base + more)
        for fold in range(3)
        for norm, rate, more in recipes
        for base in ("train+small", "train+evaluate+small")
    ]
    assert {(told["folds"], told["slice_folds"], told["seed"]) for _, told in ran} == {("None", "3", "4")}
    assert len({told["output_dir"] for _, told in ran}) == 9
    text = (out / "folds" / "table.md").read_text()
    assert text in capsys.readouterr().out
    (table,) = tables(text)
    assert table == [
        ["held out", "without BN", "paper", "with BN", "paper", "no learning"],
        ["subset 1", "0.450", "0.500", "0.450", "0.600", "0.000"],
        ["subset 2", "0.455", "0.600", "0.455", "0.500", "0.005"],
        ["subset 3", "0.460", "0.400", "0.460", "0.500", "0.010"],
        ["average", "0.455", "0.500", "0.455", "0.533", "0.005"],
    ]
    assert "- with BN less without BN: +0.000 (0 of 3); paper +0.033 (2 of 3)\n" in text
    assert "- with BN less no learning: +0.450 (3 of 3); paper -\n" in text
    assert "IoU, and in the columns `paper` what is published (a paper, table 1)." in text
    assert "Training took 12.0 minutes, 6 runs together." in text and "- A note.\n- Another one." in text
    assert "Overlays of all recipes: small. Settings: rate=0.7 seed=4." in text
    assert "- without BN: rate=0.1" in text and "Missing" not in text
    assert (out / "folds" / "table.png").read_bytes().startswith(b"\x89PNG")


def test_columns_below_each_recipe_give_a_table_each(bundle, tmp_path):
    out = tmp_path / "out"
    assert reproduce(bundle, out, ["grid"]) == 0
    told = [(t["slices"], t["cases"], t["dataset_dir::size"]) for config, t in lines(out / "grid") if config == "train"]
    assert told == [(s, c, "8") for s in ("[1, 1]", "[3, 2]") for c in ("[0]", "[1]") for _ in range(2)]
    text = (out / "grid" / "table.md").read_text()
    assert tables(text) == [
        [
            ["slices", "voxels", "S1", "paper", "S2", "paper"],
            ["1, 1", "2.5 %", "0.100", "0.300", "0.100", "0.400"],
            ["3, 2", "", "0.200", "0.500", "0.200", "0.350"],
        ],
        [["slices", "voxels", "S1", "S2"], ["1, 1", "2.5 %", "0.100", "0.100"], ["3, 2", "", "0.200", "0.200"]],
    ]
    assert "Scored: S1: case0; S2: case1.\n" in text
    assert re.findall("^## (.*)$", text, re.M) == ["with BN", "no learning"]
    assert "- with BN: 2 of 2; paper 1 of 2\n- no learning: 2 of 2; paper -\n" in text
    with open(out / "grid" / "table.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8 and {row["class"] for row in rows} == {"vessel"}
    assert [(r["row"], r["column"], r["iou"], r["paper_iou"]) for r in rows if r["recipe"] == "with BN"] == [
        ("1, 1", "S1", "0.1", "0.3"),
        ("1, 1", "S2", "0.1", "0.4"),
        ("3, 2", "S1", "0.2", "0.5"),
        ("3, 2", "S2", "0.2", "0.35"),
    ]


def test_a_data_set_of_ones_own_has_other_numbers_of_folds_and_volumes(bundle, tmp_path):
    out, data = tmp_path / "out", data_set(tmp_path / "nuclei", ["a", "b"])
    options, given = {"folds": "2", "volumes": "1"}, {"dataset_dir": str(data)}
    assert reproduce(bundle, out, ["all"], options=options, overrides=given) == 0
    ran = lines(out / "automatic")
    assert [(told["fold"], told["folds"], config) for config, told in ran if "evaluate" not in config] == [
        ("0", "2", "train+automatic"),
        ("1", "2", "train+automatic"),
    ]
    assert {told["dataset_dir"] for _, told in ran} == {str(data)}
    assert not any("dataset_dir::size" in told for _, told in lines(out / "grid"))  # that is for the phantom
    text = (out / "folds" / "table.md").read_text()
    assert "Scored" not in text  # the same in all rows
    assert "Scored: subset 1: case0; subset 2: case1.\n" in (out / "automatic" / "table.md").read_text()
    assert "Here: folds 2, in the paper 3, so that no line is the paper's.\n" in text and "on nuclei" in text
    assert "- with BN less without BN: +0.000 (0 of 2); paper +0.033 (2 of 3)\n" in text  # of all the paper's rows
    grid = (out / "grid" / "table.md").read_text()
    assert "- with BN: 1 of 1; paper 1 of 2\n" in grid and "Here: volumes 1, in the paper 2.\n" in grid
    assert [row[0] for row in tables(text)[0]] == ["held out", "subset 1", "subset 2", "average"]
    assert len(tables(grid)[0][0]) == 4


def test_the_same_line_goes_on_and_chosen_recipes_come_first(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert reproduce(bundle, out, ["folds"], recipes=["no learning", "with BN"]) == 0
    before = lines(out / "folds")
    assert {Path(told["output_dir"]).parent.name for _, told in before} == {"no_learning", "with_bn"}
    assert tables((out / "folds" / "table.md").read_text())[0][0] == ["held out", "with BN", "paper", "no learning"]
    (out / "folds" / "with_bn" / "subset_2" / "evaluated.json").unlink()
    assert reproduce(bundle, out, ["folds"]) == 0
    after = [(c, Path(told["output_dir"]).parent.name, told["slice_fold"]) for c, told in lines(out / "folds")]
    expected = [(base, "without_bn", str(fold)) for fold in range(3) for base in ("train", "train+evaluate")]
    assert after[len(before) :] == [*expected[:4], ("train+evaluate", "with_bn", "1"), *expected[4:]]
    assert "folds: 4 of 9 runs to do" in capsys.readouterr().out


def test_a_run_that_fails_is_named_and_no_average_is_told(bundle, tmp_path):
    rows = {"title": "rows", "each": {"good": {"epochs": 5}, "bad": {"epochs": 13}}}
    told = {**FOLDS, "rows": rows, "recipes": {"a": {}}, "paper": {"a": {"average": 0.7}}, "differences": []}
    write(bundle, {"folds": told, "grid": GRID})
    out = tmp_path / "out"
    assert reproduce(bundle, out, ["all"]) == 1
    text = (out / "folds" / "table.md").read_text()
    assert tables(text) == [
        [["rows", "a", "paper"], ["good", "0.250", "-"], ["bad", "-", "-"], ["average", "-", "0.700"]]
    ]
    assert re.search(r"Missing:\n\n- a, bad: ended with 1: InputError: the number is unlucky \(.*train\.log\)", text)
    assert (out / "grid" / "table.md").is_file()  # the next experiment is run none the less


def test_nothing_measured_leaves_the_figures_of_the_paper(bundle, tmp_path):
    out = tmp_path / "out"
    assert reproduce(bundle, out, ["folds"], recipes=["with BN", "no learning"], overrides={"epochs": "13"}) == 1
    (out / "folds" / "no_learning").rename(out / "elsewhere")  # that recipe has epochs of its own
    assert reproduce(bundle, out, ["folds"], recipes=["with BN"], overrides={"epochs": "13"}) == 1
    text = (out / "folds" / "table.md").read_text()
    assert tables(text)[0][-1] == ["average", "-", "0.533"] and text.count("the number is unlucky") == 3


@pytest.mark.parametrize(
    ("names", "arguments", "text"),
    [
        (["fold"], {}, "no experiment 'fold': it has folds, grid, automatic.*write 'folds'"),
        (["folds"], {"recipes": ["with bn"]}, "no recipe 'with bn': there are .*write 'with BN'"),
        (["folds"], {"options": {"volumes": "2"}}, "--volumes is no option of folds: it has folds"),
        (["folds"], {"options": {"folds": "1"}}, "folds is 1 for folds: it must be 2 or more"),
        (["folds"], {"options": {"folds": "few"}}, "folds is 'few'.*whole number"),
        (["folds"], {"jobs": "0"}, "jobs is 0: it must be 1 or more"),
        (["folds"], {"overrides": {"slice_folds": "4"}}, "'slice_folds' was set for without BN: each run .* its own"),
        (["automatic"], {"overrides": {"slice_folds": "4"}}, "'slice_folds' was set for with BN"),  # by its overlay
        (["folds", "grid"], {"overrides": {"slices": "[1, 1]"}}, "'slices' was set for with BN"),
        (["folds"], {"overrides": {"epoch": "4"}}, "--epoch answers to no id.*use 'epochs'"),
        (["folds"], {"overrides": {"overlay": "small"}}, "--overlay answers to no id.*use 'overlays'"),
        (["folds"], {"overlays": ["smal"]}, "has no config 'smal'.*write 'small'"),
        (["grid"], {"overrides": {"dataset_dir": "nowhere"}}, "nowhere"),
    ],
)
def test_refused_before_anything_runs(bundle, tmp_path, names, arguments, text):
    with pytest.raises(InputError, match=text):
        reproduce(bundle, tmp_path / "out", names, **arguments)
    assert not list(tmp_path.glob("out/*/lines.txt"))


@pytest.mark.parametrize(
    ("name", "cases", "text"),
    [
        ("grid", ["a"], "has 1 cases and grid wants 2: .*pass --volumes 1"),
        ("automatic", ["a", "b"], "has 2 patients and automatic wants 3: .*pass --folds 2"),
        ("automatic", ["a_scan1", "a_scan2"], "has 1 patients and automatic wants 3: .*name another data set"),
    ],
)
def test_more_than_the_data_have_is_refused(bundle, tmp_path, name, cases, text):
    data = data_set(tmp_path / "data", cases)
    with pytest.raises(InputError, match=text):
        reproduce(bundle, tmp_path / "out", [name], overrides={"dataset_dir": str(data)})


def test_other_settings_want_another_folder(bundle, tmp_path):
    out = tmp_path / "out"
    reproduce(bundle, out, ["folds"], recipes=["with BN"])
    with pytest.raises(InputError, match=r"holds runs of .*'overlays': \[\].*not .*'small'.*another folder"):
        reproduce(bundle, out, ["folds"], recipes=["with BN"], overlays=["small"])
    changed = {**FOLDS, "recipes": {**FOLDS["recipes"], "with BN": {"settings": {"norm": "group"}}}}
    write(bundle, {"folds": changed})
    with pytest.raises(InputError, match="subset_1' holds runs of .*'norm': 'batch'.*not .*'norm': 'group'"):
        reproduce(bundle, out, ["folds"])


def test_an_interrupt_is_told(bundle, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("common.cli.reproduce.execute", interrupted)
    assert reproduce(bundle, tmp_path / "out", ["all"]) == 130
    assert "the same line goes on from here" in capsys.readouterr().out


def test_a_bundle_without_experiments_and_a_file_out_of_order(bundle):
    write(bundle, {"folds": {**FOLDS, "paper": {"with BM": {}}}})
    with pytest.raises(InputError, match="folds::paper: 'with BM' is not among .*write 'with BN'"):
        read_experiments(bundle)
    (bundle / "docs" / "experiments.json").unlink()
    with pytest.raises(InputError, match="toy has no docs/experiments.json.*name another bundle"):
        read_experiments(bundle)


def test_the_command_lists_and_runs(bundle, tmp_path, monkeypatch, repository, capsys):
    monkeypatch.chdir(repository)
    assert main(["reproduce", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^grid +Slices +with BN, no learning +8 *$", shown, re.M)
    assert "volseg reproduce toy folds --out FOLDER" in shown
    words = ["reproduce", str(bundle), "folds", "--recipes", "with BN,no learning", "--folds", "2"]
    assert main([*words, "--overlays", "small", "--rate", "0.5", "--out", str(tmp_path / "out")]) == 0
    ran = lines(tmp_path / "out" / "folds")
    assert len(ran) == 8 and {told["rate"] for _, told in ran} == {"0.5"}
    assert main([*words, "--device", "cuda:99", "--out", str(tmp_path / "out")]) == 2


def test_the_figures_of_unet3d_sparse_are_those_of_the_paper(repository):
    """Averages in the file are the means of its rows, to the last digit that the paper prints."""
    bundle = repository / "bundles" / "unet3d_sparse"
    assert faults(json.loads((bundle / "docs" / "experiments.json").read_text())) == []
    found = {one.name: one for one in read_experiments(bundle)}
    averaged = [(one, recipe) for one in found.values() if "average" in one.told for recipe in one["paper"]]
    assert len(averaged) == 6
    for one, recipe in averaged:
        figures = [one.paper(recipe, row) for row in one.rows]
        assert abs(sum(figures) / 3 - one.paper(recipe, "average")) <= 0.0005 + 1e-9, (one.name, recipe)
    number = found["number_of_slices"]
    assert number.columns == ["S1", "S2", "S3"] and number.paper("3D with BN", "5, 5, 3", "S3") == 0.872
    variant = number.variant("3, 3, 2", "S2", phantom=True)
    assert variant.settings["slices"] == [3, 3, 2] and variant.settings["cases"] == "[1]"
    assert variant.folder == "3_3_2_s2"
    assert not {"dataset_dir::slices"} & set(number.variant("3, 3, 2", "S2").settings)
    assert isinstance(number, Experiment)
