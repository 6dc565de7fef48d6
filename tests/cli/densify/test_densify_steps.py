"""The lines that volseg densify consists of: what they are given, and what becomes of failures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.cli.densify import steps
from common.cli.densify.steps import LineError, case_settings, densify_once, patch_for
from common.data.decathlon import write_dataset

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "unet3d_sparse"


@pytest.fixture
def case(tmp_path):
    """A Decathlon folder of one case, two channels of 20 x 33 x 9 voxels, of which one plane is labelled."""
    folder = tmp_path / "case"
    for part, volume in (("imagesTr", np.zeros((20, 33, 9, 2), np.int16)), ("labelsTr", np.full((20, 33, 9), 2))):
        (folder / part).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4)), folder / part / "volume.nii.gz")
    labels = {"0": "background", "1": "it's a cell", "2": "unlabelled"}
    write_dataset(folder, {"modality": {"0": "a", "1": "b"}, "labels": labels}, ["volume"])
    return folder


@pytest.fixture
def started(monkeypatch):
    """The lines that would have been started; each ends well, or as `started.status` says, and writes a line."""
    lines = type("Lines", (list,), {"status": 0, "says": "done\n"})()

    def run(command, stdout, **_):
        lines.append(command)
        stdout.write(lines.says)
        stdout.flush()
        return subprocess.CompletedProcess(command, lines.status)

    monkeypatch.setattr(steps.subprocess, "run", run)
    return lines


def given(command: list[str]) -> dict[str, str]:
    """The options of a line."""
    return {name[2:]: value for name, value in zip(command[4::2], command[5::2], strict=True)}


@pytest.mark.parametrize("size", [(100, 100, 100), (48, 48, 48), (30, 240, 240), (1, 500, 7), (5, 5, 5), (17, 900, 33)])
def test_a_patch_has_whole_cells_within_the_volume_and_about_as_many_voxels(size):
    patch = patch_for(size)
    padded = [max(16, -(-n // 8) * 8) for n in size]
    assert all(p % 8 == 0 and 16 <= p <= limit for p, limit in zip(patch, padded, strict=True))
    if np.prod(padded) > 48**3:
        assert 0.8 < np.prod(patch) / 48**3 < 1.2
    else:
        assert patch == padded


@pytest.mark.parametrize(
    ("size", "like", "patch"),
    [
        ((100, 100, 100), (64, 64, 64), [64, 64, 64]),
        ((30, 240, 240), (64, 64, 64), [32, 88, 88]),
        ((100, 100, 100), (16, 16, 16), [16, 16, 16]),
        ((100, 100, 100), (96, 96, 24), [64, 64, 64]),
    ],
)
def test_a_patch_is_as_large_as_another(size, like, patch):
    assert patch_for(size, like) == patch


def test_a_patch_is_as_large_as_that_of_the_configs(case, repository, tmp_path):
    overlay = tmp_path / "thin.json"
    overlay.write_text('{"patch_size": [16, 16, 8]}')
    assert case_settings(BUNDLE, case, [str(overlay)])["patch_size"] == [16, 16, 16]


def test_a_patch_follows_the_axes():
    assert patch_for((240, 30, 240)) == [56, 32, 56] and patch_for((240, 240, 30)) == [56, 56, 32]


def test_what_a_case_decides(case):
    assert case_settings(BUNDLE, case) == {
        "dataset_dir": str(case),
        "in_channels": 2,
        "num_classes": 2,
        "class_names": ["background", "it's a cell"],
        "ignore_index": 2,
        "patch_size": [24, 40, 16],
    }


@pytest.mark.parametrize(("names", "labels"), [(["a", "b"], 3), (["a"], 2), ([], 3)])
def test_what_is_no_case(tmp_path, names, labels):
    write_dataset(tmp_path, {"labels": {str(k): str(k) for k in range(labels)}}, names)
    with pytest.raises(InputError, match=rf"lists {len(names)} cases and {labels - 1} classes: it must hold one case"):
        case_settings(BUNDLE, tmp_path)


def test_trains_at_a_falling_rate_and_predicts_with_what_came_of_it(case, started, tmp_path, repository):
    bundle, log = repository / "bundles" / "unet3d_sparse", tmp_path / "log.txt"
    settings = {"epochs": 3, "widths": [4, 8], "workers": 1}
    found = densify_once(bundle, case, tmp_path / "out", settings, tmp_path / "old.pt", log)
    assert found == (tmp_path / "out" / "volume_seg.nii.gz", tmp_path / "out" / "volume_uncertainty.nii.gz")
    train, predict = map(given, started)
    assert all(line[:4] == [sys.executable, "-m", "monai.bundle", "run"] for line in started)
    for line, names in ((train, ("train", "densify", "finish")), (predict, ("inference", "densify", "uncertainty"))):
        assert [part.split("/")[-1] for part in line["config_file"].strip("[]'").split("','")] == [
            f"{name}.json" for name in names
        ]
        assert line["class_names"] == str(["background", "it's a cell"]) and line["in_channels"] == "2"
        assert line["patch_size"] == "[24, 40, 16]" and line["widths"] == "[4, 8]"
        assert line["model_path"] == str(tmp_path / "out" / "model.pt")
        assert line["output_dir"] == str(tmp_path / "out")
    assert train["dataset_dir"] == str(case) and predict["dataset_dir"] == str(case / "imagesTr" / "volume.nii.gz")
    assert train["start_from"] == str(tmp_path / "old.pt") and train["ignore_index"] == "2"
    assert train["epochs"] == "3" and train["workers"] == "1" and not {"epochs", "workers", "start_from"} & set(predict)
    assert log.read_text().count("$ python -m monai.bundle run") == 2


def test_from_random_weights_with_all_epochs_and_on_from_others_with_few(case, started, tmp_path, repository):
    bundle = repository / "bundles" / "unet3d_sparse"
    densify_once(bundle, case, tmp_path / "out", log=tmp_path / "log.txt")
    first = given(started[0])
    assert first["start_from"] == "$None" and int(first["epochs"]) > 12
    densify_once(bundle, case, tmp_path / "out", start_from=tmp_path / "old.pt", log=tmp_path / "log.txt")
    assert "epochs" not in given(started[2])


def test_a_failure_is_told_with_the_log_and_ends_it(case, started, tmp_path, repository):
    started.status = 1
    started.says = "Traceback (most recent call last):\n  File\ncommon.checks.InputError: no such thing\n"
    with pytest.raises(LineError, match=r"^ended with 1: InputError: no such thing \(.*log.txt\)$") as raised:
        densify_once(repository / "bundles" / "unet3d_sparse", case, tmp_path / "out", log=tmp_path / "log.txt")
    assert raised.value.status == 1 and len(started) == 1
