"""The words of "volseg annotate": what they take, what they refuse, what "next" writes beside a filled-up volume."""

from __future__ import annotations

import json
import re

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.cli.annotate import simulate
from common.cli.annotate.next_slices import annotate_next, parse_axes, plane_position
from common.cli.annotate.words import Annotate
from common.cli.commands import main
from common.cli.densify.folder import case_of
from common.cli.densify.request import Request, open_folder

SIZE = (16, 12, 10)


@pytest.fixture
def filled(tmp_path, repository):
    """A folder of densify that is done but for the network: all that is uncertain lies about two planes."""
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = 20, -5, 100
    dense = np.zeros(SIZE, np.uint8)
    dense[4:12, 3:9, 2:8] = 1
    drawn = np.full(SIZE, 255, np.uint8)
    drawn[8], drawn[:, :, 5] = dense[8], dense[:, :, 5]
    image = np.random.default_rng(0).random(SIZE).astype(np.float32) + dense
    for name, array in (("image", image), ("slices", drawn)):
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    bundle = repository / "bundles" / "unet3d_sparse"
    request = Request(bundle, str(tmp_path / "image.nii.gz"), (str(tmp_path / "slices.nii.gz"),), tmp_path / "out")
    folder = open_folder(request)
    uncertainty = np.zeros(SIZE, np.float32)
    uncertainty[:, 2], uncertainty[3] = 0.5, 0.25
    (folder.path / "predict").mkdir()
    for name, array in (("seg", dense), ("uncertainty", uncertainty)):
        path = folder.path / "predict" / f"{case_of(folder.record)}_{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
    folder.finish("predict", 1.0)
    return folder.path


def test_next_ranks_what_is_uncertain_and_tells_it_in_every_way_of_counting(filled, capsys):
    assert main(["annotate", "next", str(filled), "--count", "2"]) == 0
    rows = json.loads((filled / "next.json").read_text())["planes"]
    assert [(row["axis"], row["index"], row["slice"]) for row in rows] == [("y", 2, 3), ("x", 3, 4)]
    assert [row["position"] for row in rows] == ["P 3 mm", "R 17 mm"]
    assert rows[0]["gain"] > rows[1]["gain"] > 0
    told = capsys.readouterr().out
    assert "| 1   | y      |             3 |             2 |   P 3 mm |" in told and "simulate" in told
    assert (filled / "next.png").stat().st_size > 10_000


def test_next_stays_on_the_axes_asked_for(filled, capsys):
    assert main(["annotate", "next", str(filled), "--axes", "z", "--count", "3"]) == 0
    rows = json.loads((filled / "next.json").read_text())["planes"]
    assert [row["axis"] for row in rows] == ["z"] * 3 and 5 not in [row["index"] for row in rows]
    capsys.readouterr()


def test_next_says_when_nothing_is_uncertain(filled, capsys):
    (path,) = (filled / "predict").glob("*_uncertainty.nii.gz")
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.zeros(SIZE, np.float32), image.affine), path)
    assert annotate_next(str(filled)) == 0
    assert "none is worth more than another" in capsys.readouterr().out
    assert json.loads((filled / "next.json").read_text())["planes"] == []


def test_next_refuses_what_is_not_there_or_not_done(filled, tmp_path, capsys):
    assert main(["annotate", "next", str(tmp_path)]) == 2
    assert "has no densify.json: it must be a folder that volseg densify made" in capsys.readouterr().err
    (lost,) = (filled / "predict").glob("*_seg.nii.gz")
    lost.rename(tmp_path / lost.name)
    assert main(["annotate", "next", str(filled)]) == 2
    assert re.search("is not whole .*_seg.nii.gz", capsys.readouterr().err)
    record = json.loads((filled / "densify.json").read_text())
    (filled / "densify.json").write_text(json.dumps({**record, "steps": {}}))
    assert main(["annotate", "next", str(filled)]) == 2
    assert "is not filled up yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["next", "x", "--cuont", "3"], "--cuont was given: .* write --count"),
        (["next", "x", "--count", "0"], "count is 0: it must be 1 or more"),
        (["next", "x", "--axes", "xw"], "--axes is xw: it holds the letters"),
        (["next", "x", "y"], "'y' is not understood"),
        (["simulate", "a", "b", "c"], "'c' is not understood"),
        (["simulate", "a", "b", "--start", "3"], r"start is \(3,\): it is a number of slices for each axis"),
        (["simulate", "a", "b", "--repeats", "none"], "repeats is 'none': it must be a whole number"),
        (["simulate", "a", "b", "--strategies", "best"], "the strategies are best"),
        (["simulate", "a", "b", "--segmenter", "walker"], "--segmenter random_walker"),
        (["simulate", "a.nii.gz", "b", "--segmenter", "interpolation"], "a.nii.gz"),
        (["simulate", "a", "b", "--device", "abacus"], "--device is 'abacus'"),
    ],
)
def test_what_is_not_understood_is_refused(words, text, capsys):
    assert main(["annotate", *words]) == 2
    assert re.search(text, capsys.readouterr().err.replace("\n", " "))


def test_help_is_of_the_word_that_was_asked(capsys):
    for words, told in ((["annotate", "next", "--help"], "--count"), (["annotate", "simulate", "-h"], "--strategies")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert told in "".join(capsys.readouterr()).lower().replace("[1m", "").replace("count=", "--count")
    with pytest.raises(SystemExit):
        main(["annotate", "--help"])
    both = "".join(capsys.readouterr())
    assert "next" in both and "simulate" in both


def test_options_of_simulate_reach_the_plan(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(simulate, "simulate", lambda *arguments: asked.append(arguments) or 0)
    words = ["--start", "2,1,0", "--rounds", "5", "--add", "1", "--strategies", "even,random", "--axes", "zx"]
    words += ["--segmenter", "interpolation", "--seed", "7", "--label_key", "lab", "--background", "3"]
    assert main(["annotate", "simulate", "i.h5", "l.h5", *words]) == 0
    ((image, label, out, plan, segmenter, bundle, options, overlays, overrides),) = asked
    assert (image, label, out, segmenter, bundle.name) == ("i.h5", "l.h5", None, "interpolation", "unet3d_sparse")
    assert (plan.start, plan.rounds, plan.add, plan.repeats) == ((2, 1, 0), 5, 1, 3)
    assert (plan.strategies, plan.axes, plan.seed) == (("even", "random"), (0, 2), 7)
    assert options["label_key"] == "lab" and options["key"] is None and options["background"] == "3"
    assert not overlays and not overrides


@pytest.mark.parametrize(
    ("codes", "axis", "index", "expected"),
    [("RAS", 0, 0, "L 4.5 mm"), ("RAS", 2, 9, "S 4.5 mm"), ("LPS", 0, 0, "R 4.5 mm"), ("SRA", 0, 7, "S 2.5 mm")],
)
def test_positions_are_those_of_the_world(codes, axis, index, expected):
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for across, (world, sign) in enumerate(nibabel.orientations.axcodes2ornt(codes)):
        affine[int(world), across] = sign
    affine[:3, 3] = -affine[:3, :3] @ [4.5, 4.5, 4.5]
    record = {"placed": True, "affine": affine.tolist(), "shape": (10, 10, 10), "unit": "mm", "spacing": [1, 1, 1]}
    assert plane_position(axis, index, record) == expected


def test_axes_are_letters():
    assert parse_axes("zyx") == (0, 1, 2) and parse_axes("[x, z]") == (0, 2)
    with pytest.raises(InputError, match="letters of the array axes"):
        parse_axes("")


@pytest.mark.slow
def test_the_network_goes_on_from_the_weights_of_the_round_before(tmp_path, repository, monkeypatch):
    """A simulation that does train, in miniature: two rounds."""
    grid = np.indices((20, 18, 16))
    label = (((grid - np.array([10, 9, 8])[:, None, None, None]) ** 2).sum(0) < 30).astype(np.uint8)
    image = (label + np.random.default_rng(0).normal(0, 0.3, label.shape)).astype(np.float32)
    for name, array in (("image", image), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    monkeypatch.chdir(repository)
    settings = {"widths": "[4,8]", "epochs": "1", "iterations_per_epoch": "2", "patch_size": "[16,16,16]"}
    out = tmp_path / "out"
    given = {"out": str(out), "rounds": "1", "repeats": "1", "strategies": "gain", "add": "1"}
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")]
    assert Annotate().simulate(*files, **given, **settings) == 0
    log = (out / "work" / "repeat0_gain_round1" / "log.txt").read_text()
    assert f"--start_from {out / 'work' / 'repeat0_start_round0' / 'model.pt'}" in log
    assert sorted(path.name for path in (out / "work" / "repeat0_gain_round1").iterdir()) == [
        "log.txt",
        "model.json",
        "model.pt",
    ]
    assert "| 4 " in (out / "report.md").read_text()
