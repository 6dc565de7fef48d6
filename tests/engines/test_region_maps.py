"""The step between two stages: maps, figures, resumption, bad cases, several processes."""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, Orientationd
from scipy import ndimage
from torch import nn

from common.checks import InputError
from common.engines import RegionMaps
from common.transforms import LoadRegiond, region_path

REPOSITORY = Path(__file__).resolve().parents[2]
# columns of a right-handed and of a flipped, anisotropic grid
AFFINES = (
    np.diag([1.0, 1.0, 1.0, 1.0]),
    np.array([[-0.7, 0, 0, 90], [0, 0, 1.3, -40], [0, 2.5, 0, 5], [0, 0, 0, 1.0]]),
)
SIZE = (9, 8, 11)


class Thresholds(nn.Module):
    """A stage 1 of one number: what is brighter is foreground."""

    def __init__(self, level=200.0):
        super().__init__()
        self.stage1 = nn.BatchNorm3d(1)  # with running statistics, so that its mode shows
        self.stage2 = nn.Dropout()
        nn.init.constant_(self.stage1.bias, level)


class Localiser:
    """The body is what is above `threshold`; the candidate region is what is above stage 1's number, dilated."""

    def __init__(self, threshold=-500.0, dilation=1):
        self.threshold, self.dilation = threshold, dilation
        self.report = {}
        self._calls, self._stop_at = [], None

    def localise(self, volume, network):
        assert volume.shape[:2] == (1, 1) and volume.dtype == torch.float32 and type(volume) is torch.Tensor
        assert not torch.is_grad_enabled() and not network.training and not network.stage1.training
        if len(self._calls) == self._stop_at:
            raise KeyboardInterrupt
        self._calls.append(float(volume.max()))
        self.report = {"seconds": len(self._calls)}
        body = volume >= self.threshold
        labels = (volume >= network.stage1.bias).to(torch.uint8)
        dilated = torch.nn.functional.max_pool3d(labels.float(), 2 * self.dilation + 1, 1, self.dilation) > 0
        return body, labels, dilated & body


TRANSFORM = Compose(
    [
        LoadImaged(keys=["image", "label"], ensure_channel_first=True),
        Orientationd(keys=["image", "label"], axcodes="RAS", labels=None),
    ]
)


def write_case(folder, name, affine=AFFINES[0], organ=True, bright=300.0, seed=0):
    """A body with an organ of 3x3x4 voxels, of which one corner is not labelled in the image's brightness."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image, label = np.full(SIZE, -1000.0, np.float32), np.zeros(SIZE, np.uint8)
    image[1:8, 1:7, :10] = 40 + rng.normal(0, 5, (7, 6, 10))
    if organ:
        image[3:5, 2:4, 3:6] = bright
        label[3:6, 2:5, 3:7] = 3
        label[6, 6, 9] = 1  # far from what stage 1 finds
    nib.save(nib.Nifti1Image(image, affine), folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), folder / f"{name}_label.nii.gz")
    return {"image": str(folder / f"{name}.nii.gz"), "label": str(folder / f"{name}_label.nii.gz")}


@pytest.fixture
def cases(tmp_path):
    return [write_case(tmp_path / "data", f"case_{index}", AFFINES[index % 2], seed=index) for index in range(3)]


def maps(cases, folder, inferer=None, network=None, **changes):
    return RegionMaps(cases, TRANSFORM, network or Thresholds(), inferer or Localiser(), folder, **changes)


def expected_of(case):
    """The slow way, on the file's own grid."""
    image, label = (np.asarray(nib.load(case[key]).dataobj) for key in ("image", "label"))
    body = image >= -500
    candidate = ndimage.binary_dilation(image >= 200, np.ones((3, 3, 3))) & body
    foreground = label > 0
    recall = (candidate & foreground).sum() / foreground.sum() if foreground.any() else None
    return body.astype(np.uint8) + candidate, body.mean(), candidate.mean(), recall


class TestMaps:
    def test_maps_and_tables(self, cases, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        folder = tmp_path / "regions"
        maps(cases, folder).run()
        content = json.loads((folder / "regions.json").read_text())
        with open(folder / "regions.csv", newline="") as stream:
            table = list(csv.DictReader(stream))
        assert [row["case"] for row in table] == ["case_0", "case_1", "case_2"]
        for case, row, line in zip(cases, content["cases"], table):
            regions, body, candidate, recall = expected_of(case)
            assert 0 < candidate < body < 1 and 0.5 < recall < 1
            file = nib.load(region_path(folder, case["image"]))
            assert file.get_data_dtype() == np.uint8 and Path(file.get_filename()).name == row["map"] == line["map"]
            # the map lies on the working grid: turned back, it is the reference on the file's grid
            back = nib.orientations.ornt_transform(
                nib.io_orientation(file.affine), nib.io_orientation(nib.load(case["image"]).affine)
            )
            turned = file.as_reoriented(back)
            assert np.array_equal(np.asarray(turned.dataobj), regions)
            np.testing.assert_allclose(turned.affine, nib.load(case["image"]).affine, atol=1e-5)
            assert nib.aff2axcodes(file.affine) == ("R", "A", "S")
            for column, value in (("body_share", body), ("candidate_share", candidate), ("recall", recall)):
                assert row[column] == pytest.approx(value) == float(line[column])
            assert row["stage1_found"] is True
            shown = f"regions of {row['case']}: C1 {100 * body:.1f} %, C2 {100 * candidate:.1f} % of the volume, recall"
            assert f"{shown} {100 * recall:.2f} %" in caplog.text
        for column in ("body_share", "candidate_share", "recall"):
            assert content["means"][column] == pytest.approx(np.mean([row[column] for row in content["cases"]]))
        assert "mean of 3 cases" in caplog.text
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]

    def test_loader_finds_them(self, cases, tmp_path):
        maps(cases, tmp_path / "regions").run()
        load = Compose([TRANSFORM, LoadRegiond(keys="image", folder=tmp_path / "regions")])
        for case in cases:
            item = load(case)
            candidate = ndimage.binary_dilation(np.asarray(item["image"][0]) >= 200, np.ones((3, 3, 3)))
            assert np.array_equal(item["body"][0], item["image"][0] >= -500)
            assert np.array_equal(item["region"][0], candidate & np.asarray(item["body"][0]))

    def test_two_images_of_one_name(self, tmp_path):
        cases = [write_case(tmp_path / name, "scan", bright=bright) for name, bright in (("a", 300.0), ("b", 100.0))]
        maps(cases, tmp_path / "regions").run()
        found = [np.asarray(nib.load(region_path(tmp_path / "regions", case["image"])).dataobj).max() for case in cases]
        assert found == [2, 1]

    def test_modules_are_left_in_the_mode_they_were_in(self, cases, tmp_path):
        network = Thresholds().train()
        network.stage1.eval()
        maps(cases, tmp_path / "regions", network=network).run()
        assert (network.training, network.stage1.training, network.stage2.training) == (True, False, True)
        inferer = Localiser()
        inferer._stop_at = 1
        with pytest.raises(KeyboardInterrupt):
            maps(cases, tmp_path / "other", inferer, network).run()
        assert (network.training, network.stage1.training, network.stage2.training) == (True, False, True)

    def test_stage_1_finds_nothing(self, tmp_path, caplog):
        case = write_case(tmp_path / "data", "dark", bright=100.0)
        maps([case], tmp_path / "regions").run()
        assert "stage 1 found nothing in dark" in caplog.text
        (row,) = json.loads((tmp_path / "regions" / "regions.json").read_text())["cases"]
        assert (row["stage1_found"], row["candidate_share"], row["recall"]) == (False, 0, 0)
        assert row["body_share"] > 0

    def test_without_foreground_there_is_no_recall(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        cases = [write_case(tmp_path / "data", "empty", organ=False), write_case(tmp_path / "data", "full")]
        maps(cases, tmp_path / "regions").run()
        content = json.loads((tmp_path / "regions" / "regions.json").read_text())
        assert content["cases"][0]["recall"] is None and "no foreground" in caplog.text
        assert content["means"]["recall"] == content["cases"][1]["recall"]
        assert (tmp_path / "regions" / "regions.csv").read_text().splitlines()[1].endswith(",0.0,,False")
        maps(cases[:1], tmp_path / "alone").run()
        assert json.loads((tmp_path / "alone" / "regions.json").read_text())["means"]["recall"] is None


class TestAgain:
    """Which maps a further run makes."""

    def calls(self, cases, folder, network=None, transform=TRANSFORM, stop_at=None, **settings):
        inferer = Localiser(**settings)
        inferer._stop_at = stop_at
        RegionMaps(cases, transform, network or Thresholds(), inferer, folder).run()
        return len(inferer._calls)

    def test_none_when_nothing_changed(self, cases, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        assert self.calls(cases, tmp_path / "regions") == 3
        before = {path.name: path.read_bytes() for path in (tmp_path / "regions").iterdir()}
        assert len(before) == 8
        assert self.calls(cases, tmp_path / "regions") == 0
        assert "3 of 3 maps are there" in caplog.text
        assert {path.name: path.read_bytes() for path in (tmp_path / "regions").iterdir()} == before

    def test_all_when_weights_or_settings_changed(self, cases, tmp_path):
        folder, network = tmp_path / "regions", Thresholds()
        assert self.calls(cases, folder, network) == 3
        with torch.no_grad():
            network.stage1.bias += 0.5
        assert self.calls(cases, folder, network) == 3
        assert self.calls(cases, folder, network, dilation=2) == 3
        assert self.calls(cases, folder, network, dilation=2) == 0
        turned = Compose([TRANSFORM, Orientationd(keys=["image", "label"], axcodes="LPS", labels=None)])
        assert self.calls(cases, folder, network, turned, dilation=2) == 3
        assert nib.aff2axcodes(nib.load(region_path(folder, cases[0]["image"])).affine) == ("L", "P", "S")

    def test_all_when_the_precision_changed(self, cases, tmp_path):
        step = maps(cases, tmp_path / "regions")
        for amp, calls in ((False, 3), (True, 6), (True, 6), (False, 9)):
            step.amp = amp  # past the check of the device
            step.run()
            assert len(step.inferer._calls) == calls
            assert json.loads((tmp_path / "regions" / "regions.json").read_text())["settings"]["amp"] is amp

    def test_none_with_objects_that_have_run(self, cases, tmp_path):
        step = maps(cases, tmp_path / "regions")
        step.run()
        assert step.inferer.report == {"seconds": 3}
        step.run()
        assert len(step.inferer._calls) == 3

    def test_stage_2_does_not_matter(self, cases, tmp_path):
        network = Thresholds()
        self.calls(cases, tmp_path / "regions", network)
        network.stage2 = nn.Linear(2, 2)
        assert self.calls(cases, tmp_path / "regions", network) == 0

    def test_those_whose_files_were_made_anew(self, cases, tmp_path):
        self.calls(cases, tmp_path / "regions")
        write_case(tmp_path / "data", "case_1", AFFINES[1], bright=250.0, seed=9)
        assert self.calls(cases, tmp_path / "regions") == 1

    def test_those_that_are_gone(self, cases, tmp_path):
        self.calls(cases, tmp_path / "regions")
        path = region_path(tmp_path / "regions", cases[0]["image"])
        path.unlink()
        other = region_path(tmp_path / "regions", cases[2]["image"])
        Path(str(other).replace(".nii.gz", ".json")).write_text("[]")
        assert self.calls(cases, tmp_path / "regions") == 2 and path.is_file()

    def test_the_rest_after_a_kill(self, cases, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            self.calls(cases, tmp_path / "regions", stop_at=2)
        assert not (tmp_path / "regions" / "regions.json").exists()
        assert self.calls(cases, tmp_path / "regions") == 1
        self.calls(cases, tmp_path / "unbroken")
        for name in ("regions.json", "regions.csv"):
            assert (tmp_path / "regions" / name).read_text() == (tmp_path / "unbroken" / name).read_text()

    def test_a_kill_between_map_and_note_leaves_no_note(self, cases, tmp_path, monkeypatch):
        """A new map must not stand under the note of the old one."""
        self.calls(cases[:1], tmp_path / "regions")

        def killed(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr("common.engines.region_maps.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            self.calls(cases[:1], tmp_path / "regions", dilation=2)
        monkeypatch.undo()
        assert self.calls(cases[:1], tmp_path / "regions") == 1


class TestFaults:
    def test_one_bad_case_leaves_the_others(self, cases, tmp_path, caplog):
        path = Path(cases[1]["image"])
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(
            InputError, match=r"regions of 1 of 3 cases were not found \(case_1: .*truncated.* the others are kept"
        ):
            maps(cases, tmp_path / "regions").run()
        assert "regions of case_1 failed" in caplog.text
        content = json.loads((tmp_path / "regions" / "regions.json").read_text())
        assert [row["case"] for row in content["cases"]] == ["case_0", "case_2"]
        # mended, it alone is made
        write_case(tmp_path / "data", "case_1", AFFINES[1], seed=1)
        inferer = Localiser()
        maps(cases, tmp_path / "regions", inferer).run()
        assert len(inferer._calls) == 1

    def test_all_bad(self, cases, tmp_path):
        for case in cases:
            Path(case["label"]).unlink()
        with pytest.raises(InputError, match="regions of 3 of 3 cases .*case_0_label.nii.gz' does not exist"):
            maps(cases, tmp_path / "regions").run()
        assert list((tmp_path / "regions").iterdir()) == []

    def test_label_on_another_grid(self, cases, tmp_path):
        nib.save(nib.Nifti1Image(np.zeros((9, 8, 10), np.uint8), AFFINES[0]), cases[0]["label"])
        with pytest.raises(InputError, match=r"label has \(9, 8, 10\) voxels and the region map \(9, 8, 11\)"):
            maps(cases, tmp_path / "regions").run()

    def test_no_case(self, tmp_path):
        with pytest.raises(InputError, match="there is no case to find regions in"):
            maps([], tmp_path / "regions").run()

    def test_folder_that_can_not_be_written_to(self, cases, tmp_path):
        (tmp_path / "file").write_text("in the way")
        inferer = Localiser()
        with pytest.raises(InputError, match="can not be written"):
            maps(cases, tmp_path / "file" / "regions", inferer).run()
        assert not inferer._calls

    def test_amp_is_for_cuda(self, cases, tmp_path):
        assert maps(cases, tmp_path, amp="true").amp is False
        assert maps(cases, tmp_path, amp="true", device="cuda").amp is True
        assert maps(cases, tmp_path, amp="false", device="cuda:0").amp is False


# Run by torchrun: each rank leaves how many cases it looked at and what the run ended with.
WORKER = """
import json, sys
sys.path[:0] = sys.argv[4:]
import torch
import test_region_maps as toy
from common.checks import InputError

torch.distributed.init_process_group("gloo")
inferer, ended = toy.Localiser(), ""
try:
    toy.maps(json.loads(sys.argv[1]), sys.argv[2], inferer).run()
except InputError as error:
    ended = str(error)
with open(f"{sys.argv[3]}/rank{torch.distributed.get_rank()}.json", "w") as stream:
    json.dump({"calls": len(inferer._calls), "ended": ended}, stream)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_the_cases(cases, tmp_path):
    cases.append(write_case(tmp_path / "data", "case_3", seed=3))
    path = Path(cases[2]["image"])
    path.write_bytes(path.read_bytes()[:60])
    (tmp_path / "worker.py").write_text(WORKER)
    here = Path(__file__).resolve().parent

    def run():
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "worker.py"]
            + [json.dumps(cases), str(tmp_path / "regions"), str(tmp_path), str(REPOSITORY), str(here)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]

    first, second = run()
    assert (first["calls"], second["calls"]) == (1, 2)  # the broken case was rank 0's
    assert first["ended"] == second["ended"] and "regions of 1 of 4 cases were not found (case_2" in first["ended"]
    content = json.loads((tmp_path / "regions" / "regions.json").read_text())
    assert [row["case"] for row in content["cases"]] == ["case_0", "case_1", "case_3"]
    write_case(tmp_path / "data", "case_2", seed=2)
    assert run() == [{"calls": 1, "ended": ""}, {"calls": 0, "ended": ""}]
    maps(cases, tmp_path / "alone").run()
    for name in ("regions.json", "regions.csv"):
        assert (tmp_path / "regions" / name).read_text() == (tmp_path / "alone" / name).read_text()
