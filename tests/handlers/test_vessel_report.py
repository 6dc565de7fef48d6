"""The report of vessels, on files whose axes lie otherwise than the network's."""

import csv
import json
import time

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.engines.utils import IterationEvents
from monai.transforms import Activationsd, AsDiscreted, Compose, CopyItemsd, Invertd, LoadImaged, Orientationd

from common.checks import InputError
from common.engines.case_evaluator import CaseEvaluator, CasesFailed
from common.handlers.vessel_report import VesselReport
from common.metrics.vessels import vessel_scores

NAMES = ["background", "vessel"]


class Logits(torch.nn.Module):
    """Answers of known worth: the image itself is the logit of a vessel."""

    def forward(self, image):
        return image


def vessels(offset=0):
    """Two tubes, and a logit that finds one of them, moved by `offset`."""
    label, logit = np.zeros((9, 14, 16), np.uint8), np.full((9, 14, 16), -2.0, np.float32)
    label[2:5, 2:5, 2:14] = label[6:8, 8:10, 1:15] = 1
    logit[2 + offset : 5 + offset, 2:5, 2:14] = 3.0
    return logit, label


def write(folder, name, logit, label, codes="RAS"):
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    paths = {"image": f"{folder / name}.nii.gz", "label": f"{folder / name}_label.nii.gz"}
    for key, content in (("image", logit), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(content, np.diag([1.0, 2.0, 3.0, 1.0])).as_reoriented(turn), paths[key])
    return paths


def evaluate(cases, *handlers, network=None):
    """As evaluate.json does it: the network sees ASR, scores are taken on the grid of the file."""
    before = Compose(
        [
            LoadImaged(keys=["image", "label"], ensure_channel_first=True),
            Orientationd(keys="image", axcodes="ASR", labels=None),
        ]
    )
    after = Compose(
        [
            Activationsd(keys="pred", sigmoid=True),
            Invertd(keys="pred", transform=before, orig_keys="image", nearest_interp=False),
            CopyItemsd(keys="pred", names="probability"),
            AsDiscreted(keys="pred", threshold=0.5),
        ]
    )
    engine = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases, before), batch_size=1, collate_fn=list_data_collate),
        network=network or Logits(),
        postprocessing=after,
        val_handlers=list(handlers),
    )
    engine.run()
    return engine


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_scores_on_the_grid_of_the_file(tmp_path, caplog, codes):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    cases = [write(tmp_path, name, *vessels(offset), codes) for name, offset in (("a", 0), ("b", 1))]
    evaluate(cases, VesselReport(out, NAMES, [1], probability="probability"))
    rows = list(csv.DictReader((out / "vessels.csv").open()))
    assert [row["case"] for row in rows] == ["a", "b"] and {row["class"] for row in rows} == {"vessel"}
    for row, case in zip(rows, cases, strict=True):
        # as the file has them: where a tube has no middle voxel, its centre line depends on the order of the axes
        logit, label = (torch.from_numpy(nibabel.load(path).get_fdata())[None] for path in case.values())
        (wanted,) = vessel_scores((logit > 0).int(), label, [1], torch.sigmoid(logit))
        assert {name: pytest.approx(float(row[name]), abs=1e-6) for name in wanted if name != "status"} == {
            name: value for name, value in wanted.items() if name != "status"
        }
        assert float(row["seconds"]) > 0 and 0 < float(row["dice_loss"]) < 1
    assert (rows[0]["betti0_error"], rows[0]["pred_components"], rows[0]["label_components"]) == ("1", "1", "2")
    content, text = json.loads((out / "vessels.json").read_text()), (out / "vessels.md").read_text()
    dice = [float(row["dice"]) for row in rows]
    assert content["summary"]["vessel"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert content["summary"]["all classes"]["dice"]["std"] == pytest.approx(np.std(dice, ddof=1))
    assert content["application"]["seconds"]["n"] == 2 and content["application"]["device"].startswith("cpu, ")
    assert content["application"]["peak_memory_mib"] > 50
    (line,) = (line for line in text.splitlines() if line.startswith("| DC, %"))
    assert f" {100 * np.mean(dice):.1f} ± {100 * np.std(dice, ddof=1):.1f} [" in line
    assert text in caplog.text and "Dice loss" in text and "all classes" not in text
    assert str(tmp_path) not in text + json.dumps(content)


def test_empty_cases_are_told_apart(tmp_path):
    logit, label = vessels()
    nothing = np.full_like(logit, -2)
    cases = [
        write(tmp_path, "absent", nothing, np.zeros_like(label)),
        write(tmp_path, "missed", nothing, label),
        write(tmp_path, "false_find", logit, np.zeros_like(label)),
        write(tmp_path, "scored", logit, label),
    ]
    evaluate(cases, VesselReport(tmp_path, NAMES, probability="probability"))
    rows = {row["case"]: row for row in csv.DictReader((tmp_path / "vessels.csv").open())}
    assert {name: row["status"].replace(" ", "_") for name, row in rows.items()} == {name: name for name in rows}
    assert rows["absent"]["dice"] == rows["absent"]["dice_loss"] == rows["absent"]["betti0_error"] == ""
    assert (rows["missed"]["cldice"], rows["missed"]["betti0_error"], rows["missed"]["mean_accuracy"]) == (
        "0.0",
        "2",
        "0.5",
    )
    content, text = json.loads((tmp_path / "vessels.json").read_text()), (tmp_path / "vessels.md").read_text()
    assert content["summary"]["vessel"]["dice"]["mean"] == pytest.approx(float(rows["scored"]["dice"]) / 3)
    assert content["status"]["vessel"] == {"absent": 1, "missed": 1, "false find": 1, "scored": 1}
    assert content["cases"][0]["dice"] is None and content["application"]["seconds"]["n"] == 4
    assert "(3 of 4)" in text and "cases, false find" in text and "nan" not in text + json.dumps(content)


def test_several_classes_and_no_probability(tmp_path):
    """The background is no vessel; a case's classes have a mean."""
    logit, label = vessels()
    label[6:8] *= 2
    names = ["background", "artery", "vein"]
    evaluate([write(tmp_path, "a", logit, label)], VesselReport(tmp_path, names))
    content, text = json.loads((tmp_path / "vessels.json").read_text()), (tmp_path / "vessels.md").read_text()
    assert [row["class"] for row in content["cases"]] == ["artery", "vein"]
    assert content["summary"]["all classes"]["dice"]["mean"] == pytest.approx(0.5)  # one is found whole, one is missed
    assert "all classes" in text and "| Dice loss" not in text and content["summary"]["artery"]["dice_loss"]["n"] == 0
    assert content["application"]["seconds"]["std"] is None  # of one case


def test_a_second_run_starts_anew_and_warnings_are_told(tmp_path, set_state):
    cases = [write(tmp_path, name, *vessels()) for name in ("a", "b")]
    state = set_state(warning="phantom weights", weights={"path": "/x/y.pt"})
    evaluate(cases, state, VesselReport(tmp_path, NAMES)).run()
    content = json.loads((tmp_path / "vessels.json").read_text())
    assert [case["case"] for case in content["cases"]] == ["a", "b"] and content["weights"] == {"path": "y.pt"}
    assert (tmp_path / "vessels.md").read_text().endswith("**Warning:** phantom weights\n")


def test_failed_cases_are_named_and_what_is_missing_is(tmp_path, caplog):
    good, bad = (write(tmp_path, name, *vessels()) for name in ("a", "b"))
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), bad["label"])
    with pytest.raises(CasesFailed, match="against reference"):
        evaluate([good, bad], VesselReport(tmp_path, NAMES))
    assert "Failed, and not counted: b.nii.gz." in (tmp_path / "vessels.md").read_text()
    content = json.loads((tmp_path / "vessels.json").read_text())
    assert content["failed"] == ["b.nii.gz"] and [case["case"] for case in content["cases"]] == ["a"]
    with pytest.raises(
        CasesFailed, match="a case has no 'certainty'.*the Dice loss is one of probabilities.*CopyItems"
    ):
        evaluate([good], VesselReport(tmp_path / "none", NAMES, probability="certainty"))
    assert "no case was scored: there is no table of vessels in" in caplog.text and not (tmp_path / "none").exists()


def test_classes_that_can_not_be_scored_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"classes are \[2\]: at least one of 0 to 1 is needed"):
        VesselReport(tmp_path, NAMES, classes=[2])
    with pytest.raises(InputError, match=r"classes are \[\]"):
        VesselReport(tmp_path, NAMES, classes=[0])


def test_seconds_are_those_of_the_network(tmp_path):
    """Postprocessing and other reports do not count, and the network's time does."""

    class Slow(Logits):
        def forward(self, image):
            time.sleep(0.05)
            return image

    class Dawdling:
        def attach(self, engine):
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda engine: time.sleep(0.5))

    evaluate([write(tmp_path, "a", *vessels())], Dawdling(), VesselReport(tmp_path, NAMES), network=Slow())
    (row,) = json.loads((tmp_path / "vessels.json").read_text())["cases"]
    assert 0.05 <= row["seconds"] < 0.45
