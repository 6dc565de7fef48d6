"""What each word of ``volseg`` stands for, and what it refuses before anything runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.cli import demo, locate
from common.cli import words as words_of_cli
from common.cli.commands import main

NAME = "unet3d_sparse"


@pytest.fixture
def launched(monkeypatch) -> list[list[str]]:
    """The argument lists that would have run; nothing runs."""
    lines: list[list[str]] = []
    monkeypatch.setattr(
        words_of_cli,
        "launch",
        lambda command, verbose: lines.append([*command, *(["verbose"] if verbose else [])]) or 0,
    )
    return lines


@pytest.fixture
def here(repository, monkeypatch) -> Path:
    monkeypatch.chdir(repository)
    return repository


def _configs(*names: str) -> str:
    files = [f"bundles/{NAME}/configs/{name}.json" for name in names]
    return files[0] if len(files) == 1 else "[" + ",".join(f"'{file}'" for file in files) + "]"


@pytest.mark.parametrize(
    ("words", "configs", "overrides"),
    [
        (["train", NAME], ("train",), []),
        (["train", NAME, "--overlays", "small,demo", "--epochs", "3"], ("train", "small", "demo"), ["--epochs", "3"]),
        (["train", NAME, "--overlays=['small','demo']"], ("train", "small", "demo"), []),
        (["train", NAME, "--widths", "[4, 8]", "--resume"], ("train",), ["--widths", "[4, 8]", "--resume", "True"]),
        (["train", NAME, "--dataset_dir", "007"], ("train",), ["--dataset_dir", "007"]),
        (["train", NAME, "--slice_folds", "None"], ("train",), ["--slice_folds", "$None"]),
        (["train", NAME, "--norm=null"], ("train",), ["--norm", "$None"]),
        (["train", NAME, "--validate::evaluator::amp=false"], ("train",), ["--validate::evaluator::amp", "False"]),
        (["train", NAME, "--padded", "true"], ("train",), ["--padded", "True"]),
        (["train", NAME, "--tracking", "mlflow"], ("train",), ["--tracking", "mlflow"]),
        (["evaluate", NAME, "--overlays", "small"], ("train", "evaluate", "small"), []),
    ],
)
def test_a_word_is_a_line(here, launched, words, configs, overrides):
    assert main(words) == 0
    assert launched == [[sys.executable, "-m", "monai.bundle", "run", "--config_file", _configs(*configs), *overrides]]


def test_demo_is_three_lines_that_spare_the_bundles_weights(here, launched, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")  # the user's own stays
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "")
    monkeypatch.delenv("MALLOC_MMAP_MAX_")
    summary = {"inside": {"iou": {"mean": 0.75}}, "all classes": {"iou": {"mean": None}}}
    (tmp_path / "metrics.json").write_text(json.dumps({"summary": summary}))
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["demo", NAME, "--out", str(tmp_path), "--epochs", "1"]) == 0
    used = [line[5] for line in launched]
    assert used == [
        _configs("train", "small", "demo"),
        _configs("train", "evaluate", "small"),
        _configs("inference", "small"),
    ]
    for line in launched:
        assert line[line.index("--model_path") + 1] == str(tmp_path / "model.pt")
    assert ["--epochs" in line for line in launched] == [True, True, False]  # only where a config has it
    out = capsys.readouterr().out
    assert "IoU on what was held out: inside 0.750, all classes -" in out
    assert "a.png" in out and "narrower network" in out
    if sys.platform == "linux":  # told, and handed on to the runs
        assert "trains faster: MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=7\n" in out
        assert os.environ["MALLOC_MMAP_MAX_"] == "0"


@pytest.mark.parametrize(
    ("named", "headline"),
    [
        ({"IoU": "", "Dice": ""}, "IoU on"),
        ({"Dice": ""}, "Dice on"),
        ({"speed": "", "IoU": ""}, "IoU on"),
        ({}, "Dice on"),
    ],
)
def test_demo_tells_the_bundles_own_metric_and_its_table_of_stages(
    here, launched, tmp_path, capsys, monkeypatch, named, headline
):
    summary = {"liver": {"dice": {"mean": 0.5}, "iou": {"mean": 0.25}}}
    written = {"metrics.json": {"summary": summary}, "metadata.json": {"eval_metrics": named}}
    (tmp_path / "stages.md").write_text("| stage 1 | mean | 99.0 |\n")
    monkeypatch.setattr(demo, "read_json", lambda path: written.get(path.name, {}))
    assert main(["demo", NAME, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    value = "0.250" if headline.startswith("IoU") else "0.500"
    assert f"{headline} what was held out: liver {value}" in out and "| stage 1 | mean | 99.0 |" in out


@pytest.fixture
def rivals(here, tmp_path, monkeypatch) -> Path:
    """A copy of a bundle whose demo has two rivals, one of which sets what others may be given."""
    bundle = tmp_path / "rivalled"
    shutil.copytree(here / "bundles" / NAME, bundle, ignore=shutil.ignore_patterns("models", "eval"))
    demonstration = json.loads((bundle / "configs" / "demo.json").read_text())
    listed = demonstration | {"rivals": ["wide", "paper:val_interval=7"]}
    (bundle / "configs" / "demo.json").write_text(json.dumps(listed))
    (bundle / "configs" / "wide.json").write_text('{"widths": [9, 9]}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(words_of_cli, "check_package", lambda: None)
    return bundle


def _results(folder: Path, dice: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    group = {"dice": {"mean": dice}, "iou": {"mean": dice}}
    content = {"summary": {"kidney": group, "all classes": group}, "cases": []}
    (folder / "metrics.json").write_text(json.dumps(content))


def test_demo_trains_the_rivals_too_and_tells_all_in_one_table(rivals, launched, tmp_path, capsys):
    out = tmp_path / "out"
    for folder, dice in ((out, 0.5), (out / "wide", 0.25), (out / "paper_val_interval_7", 0.75)):
        _results(folder, dice)
    assert main(["demo", str(rivals), "--out", str(out), "--epochs", "1", "--widths", "[2, 4]"]) == 0
    names = [re.findall(r"(\w+)\.json", line[5]) for line in launched]
    assert names == [
        ["train", "small", "demo"],
        ["train", "evaluate", "small"],
        ["inference", "small"],
        ["train", "small", "demo", "wide"],
        ["train", "evaluate", "small", "wide"],
        ["train", "small", "demo"],
        ["train", "evaluate", "small"],
    ]
    options = [dict(zip(line[6::2], line[7::2])) for line in launched]
    folders = [out, out, out / "predictions", *[out / "wide"] * 2, *[out / "paper_val_interval_7"] * 2]
    weights = [*[out] * 3, *folders[3:]]
    assert [one["--output_dir"] for one in options] == [str(folder) for folder in folders]
    assert [one["--model_path"] for one in options] == [str(folder / "model.pt") for folder in weights]
    assert [one.get("--widths") for one in options] == [*["[2, 4]"] * 3, None, None, *["[2, 4]"] * 2]
    assert [one.get("--val_interval") for one in options] == [*[None] * 5, "7", "7"]
    printed = capsys.readouterr().out
    for row in (r"rivalled \| +1 \| +50.0", r"wide +\| +1 \| +25.0", r"paper:val_interval=7 \| +1 \| +75.0"):
        assert re.search(row.replace("rivalled", "rivalled +"), printed), row
    assert (out / "table.md").is_file()


@pytest.mark.parametrize(("chosen", "number"), [("none", 3), ("wide", 5), ("wide,paper:val_interval=7", 7)])
def test_the_rivals_of_a_demo_can_be_chosen(rivals, launched, tmp_path, chosen, number):
    for folder in ("", "wide", "paper_val_interval_7"):
        _results(tmp_path / "out" / folder, 0.5)
    assert main(["demo", str(rivals), "--out", str(tmp_path / "out"), "--rivals", chosen]) == 0
    assert len(launched) == number
    assert (tmp_path / "out" / "table.md").exists() == (number > 3)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", NAME, "--epoch", "3"], "--epoch answers to no id of the config.*use 'epochs'"),
        (
            ["train", NAME, "--overlay", "small"],
            "--overlay is no option, and answers to no id of the config.*write --overlays",
        ),
        (["train", NAME, "--validate::dataset::dat", "x"], "use 'validate::dataset::data'"),
        (["demo", NAME, "--lerning_rate", "3"], "use 'learning_rate'"),
        (["demo", NAME, "--rivals", "wide"], "has no config 'wide'"),
        (["demo", NAME, "--rivals", "paper:epoch=3"], "--epoch answers to no id.*use 'epochs'"),
        (["compare", NAME, "--recipes", "modrn", "--folds", "2"], "has no config 'modrn'.*write 'modern'"),
        (["compare", NAME, "small"], "'small' is not understood"),
        (["compare", NAME, "--device", "quantum"], "--device is 'quantum'"),
        (["train", NAME, "--config_file", "x.json"], "lay others over: --overlays"),
        (["predict", NAME, "x", "--overlays", "evaluate"], "inference.json.*evaluate.json do not fit.*in 'validate'"),
        (["train", NAME, "--overlays", "smal"], "has no config 'smal'.*write 'small'"),
        (["train", "unet3d_spars"], f"no bundle 'unet3d_spars'.*write '{NAME}'"),
        (["train", NAME, "small"], "'small' is not understood"),
        (["lint", NAME, "--fast", "1"], "'--fast' is not understood"),
        (["pack", NAME, "--widths", "[2]"], "'--widths' is not understood.*put those into an overlay"),
        (
            ["convert", "hdf4", "x", "--out", "y"],
            "no converter for 'hdf4'.*hdf5, totalsegmentator, btcv, amos.*convert hdf5",
        ),
        (["convert", "amos", "x", "--out", "y", "--spit", "val"], "--spit is no option .* for amos.*use 'split'"),
        (["convert", "btcv", "nowhere", "--out", "y"], "'nowhere' does not exist"),
        (["convert", "hdf5", "x"], "pass --out FOLDER"),
        (["convert", "hdf5", "--out", "y"], "no file was named"),
        (["convert", "hdf5", "nowhere.h5", "--out", "y"], "'nowhere.h5' does not exist"),
    ],
)
def test_refused_before_anything_runs(here, launched, capsys, words, text):
    assert main(words) == 2
    assert re.search(text, capsys.readouterr().err)
    assert launched == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict", NAME], ["Additional flags are accepted.", "any entry of the config, as --NAME VALUE."]),
        (["train"], ["REST", "none; all that follows is --option value.", "any entry of the config, as --NAME VALUE."]),
        (["lint", NAME], ["Flags are accepted.", "and refused: there is none."]),
        (["pack"], ["Additional flags are accepted.", "and refused: there is no other; what training got as one"]),
    ],
)
def test_help_says_what_flags_are_taken(capsys, words, told):
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    words = " ".join(capsys.readouterr().err.split())
    places = [words.find(" ".join(part.split())) for part in told]
    assert -1 not in places and places == sorted(places), words


def test_the_status_of_the_run_is_passed_on(here, monkeypatch):
    monkeypatch.setattr(words_of_cli, "launch", lambda command, verbose: 7)
    assert main(["train", NAME]) == 7
    assert main(["demo", NAME]) == 7


def test_list_shows_task_version_and_weights(here, capsys):
    assert main(["list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(NAME))
    assert json.loads((here / "bundles" / NAME / "configs" / "metadata.json").read_text())["version"] in line


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [({"phantom": True}, "yes, of a phantom"), ({"phantom": False}, "yes"), (None, "yes, of unknown origin")],
)
def test_weights_are_told_from_their_sidecar(tmp_path, sidecar, said):
    for folder in ("configs", "models"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs" / "metadata.json").write_text('{"name": "x"}')
    assert locate.describe(tmp_path)["weights"] == "no"
    (tmp_path / "models" / "model.pt").write_bytes(b"")
    if sidecar is not None:
        (tmp_path / "models" / "model.json").write_text(json.dumps(sidecar))
    assert locate.describe(tmp_path)["weights"] == said


@pytest.fixture
def wheel(repository, tmp_path, monkeypatch) -> Path:
    """A package as a wheel installs it, its bundles inside, run from an empty folder."""
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__", "models", "eval")
    shutil.copytree(repository / "common", site / "common", ignore=ignored)
    shutil.copytree(repository / "bundles", site / "common" / "_bundles", ignore=ignored)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))
    return tmp_path / "empty"


def _volseg(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "common", *words], cwd=folder, capture_output=True, text=True)


def test_a_wheels_bundle_is_copied_to_the_working_directory(wheel):
    assert NAME in _volseg(wheel, "list").stdout
    assert not (wheel / "bundles").exists()
    done = _volseg(wheel, "train", NAME, "--epoch", "1")
    assert (
        "was copied to bundles/unet3d_sparse" in done.stdout and "use 'epochs'" in done.stderr and done.returncode == 2
    )
    assert (wheel / "bundles" / NAME / "configs" / "train.json").is_file()
    assert "was copied" not in _volseg(wheel, "train", NAME, "--epoch", "1").stdout  # the second time it is there


def test_a_bundle_elsewhere_is_told_its_root(tmp_path, repository, monkeypatch, launched):
    copy = tmp_path / "mine"
    shutil.copytree(repository / "bundles" / NAME, copy, ignore=shutil.ignore_patterns("models", "eval"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    assert main(["train", "mine"]) == 0
    assert launched[0][5:] == ["mine/configs/train.json", "--bundle_root", str(copy)]
