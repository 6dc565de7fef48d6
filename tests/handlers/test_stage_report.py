"""Several stages in one evaluation, on grids that differ from the file's."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.handlers import MeanDice, from_engine
from monai.inferers import Inferer
from monai.transforms import Compose, CopyItemsd, DeleteItemsd, Invertd, LoadImaged, Orientationd, SplitDimd
from monai.utils import convert_to_dst_type

from common.engines.case_evaluator import CaseEvaluator, CasesFailed
from common.handlers.case_report import CaseReport
from common.handlers.stage_report import StageReport

NAMES = ["background", "liver", "spleen", "pancreas"]
STAGES = {"pred_stage1": "stage 1", "pred_stage2": "stage 2"}
SPACING = (1.0, 2.0, 3.0)
CODES = ("LPI", "PIR")


class TwoStages(Inferer):
    """Answers of known worth: stage 1 lacks a slice of every organ and names nothing 3, stage 2 is right.

    Class numbers are the grey values of the image; the candidate region is all but the lower half of the first axis.
    """

    legend = {"c2": "C2 is where stage 2 is run.", "roi_recall": "RoIs are where the tumour may be."}

    def __init__(self):
        self.report = {}

    def __call__(self, inputs, network, *args, **kwargs):
        second = inputs.as_tensor().round()
        first = second.clone()
        first[second == 3] = 0
        first[:, :, :6] = 0
        candidate = torch.zeros_like(second)
        candidate[:, :, 6:] = 1
        self.report = {"c1_share": 0.4, "c2_share": 0.5, "windows": [8, 2], "seconds": {"stage1": 1.5}}
        answer = torch.cat((first, second, candidate), dim=1)
        return convert_to_dst_type(answer, inputs, dtype=torch.uint8)[0]  # Invertd needs the metadata


def organs():
    """Axis 0 runs from right to left: 8 slices of liver, two of which lie below slice 6, and the other two organs."""
    volume = np.zeros((16, 9, 7), dtype=np.uint8)
    volume[4:12, 2:5, 2:5] = 1
    volume[8:12, 6:8, 1:3] = 2
    volume[8:9, 6:8, 4:6] = 3
    return volume


def write(folder, name, volume, codes):
    """A case whose file has its axes in another order and direction than RAS."""
    label = nibabel.Nifti1Image(volume, np.diag([*SPACING, 1.0]))
    image = nibabel.Nifti1Image(volume.astype(np.float32), label.affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    paths = {"image": f"{folder / name}.nii.gz", "label": f"{folder / name}_label.nii.gz"}
    nibabel.save(image.as_reoriented(turn), paths["image"])
    nibabel.save(label.as_reoriented(turn), paths["label"])
    return paths


def evaluate(cases, handlers, postfixes=("stage1", "stage2", "candidate"), **kwargs):
    """As evaluate.json does it: the network sees RAS, scores are taken on the grid of the file."""
    before = Compose(
        [
            LoadImaged(keys=["image", "label"], ensure_channel_first=True),
            Orientationd(keys="image", axcodes="RAS", labels=None),
        ]
    )
    after = Compose(
        [
            Invertd(keys="pred", transform=before, orig_keys="image", nearest_interp=True),
            SplitDimd(keys="pred", output_postfixes=list(postfixes)),
            DeleteItemsd(keys="pred"),
            CopyItemsd(keys="pred_stage2", names="pred"),
        ]
    )
    engine = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases, before), batch_size=1, collate_fn=list_data_collate),
        network=torch.nn.Identity(),
        inferer=TwoStages(),
        postprocessing=after,
        val_handlers=handlers,
        **kwargs,
    )
    engine.run()
    return engine


@pytest.mark.parametrize("codes", CODES)
def test_stages_and_recall_on_the_grid_of_the_file(tmp_path, caplog, codes):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    evaluate([write(tmp_path, "a", organs(), codes)], [StageReport(out, NAMES, [1, 2, 3], STAGES)])
    rows = {(row["stage"], row["class"]): row for row in csv.DictReader((out / "stages.csv").open())}
    dice = {key: float(row["dice_percent"]) for key, row in rows.items()}
    # 6 of the liver's 8 slices: 2 * 6 / 14
    assert dice["stage 1", "liver"] == pytest.approx(100 * 12 / 14)
    assert dice["stage 1", "spleen"] == dice["stage 2", "liver"] == dice["stage 2", "pancreas"] == 100.0
    assert (dice["stage 1", "pancreas"], rows["stage 1", "pancreas"]["status"]) == (0.0, "missed")
    content = json.loads((out / "stages.json").read_text())
    (case,) = content["cases"]
    total, lost = 8 * 9 + 4 * 4 + 4, 2 * 9
    assert case["candidate_recall"] == pytest.approx((total - lost) / total)
    assert (case["c2_share"], case["seconds stage1"]) == (0.5, 1.5) and "windows" not in case
    assert content["dice_percent"]["stage 1"]["average"]["mean"] == pytest.approx((100 * 12 / 14 + 100 + 0) / 3)
    text = (out / "stages.md").read_text()
    assert text in caplog.text and "candidate recall, %" in text and "# Dice in percent, by stage" in text
    assert text.endswith("C2 is where stage 2 is run.\n")
    assert f"holds {100 * (total - lost) / total:.2f} % of what is labelled" in caplog.text
    assert str(tmp_path) not in text + json.dumps(content)


def test_organs_that_are_not_labelled_are_not_scored(tmp_path):
    """A test set with liver and spleen only: what the method calls pancreas costs nothing, nor does recall count it."""
    volume = organs()
    case = write(tmp_path, "a", volume, "RAS")
    volume[volume == 3] = 0
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([*SPACING, 1.0])), case["label"])
    evaluate([case], [StageReport(tmp_path, NAMES, [1, 2], STAGES), CaseReport(tmp_path, NAMES, [1, 2])])
    columns = json.loads((tmp_path / "stages.json").read_text())["dice_percent"]["stage 2"]
    assert set(columns) == {"liver", "spleen", "average"} and columns["average"]["mean"] == pytest.approx(100.0)
    assert set(json.loads((tmp_path / "metrics.json").read_text())["summary"]) == {"liver", "spleen", "all classes"}


def test_a_method_names_its_regions_and_members(tmp_path, caplog):
    """The second case has none of the scored class: neither a score nor a recall, and the log says so."""
    caplog.set_level("INFO")
    cases = [write(tmp_path, name, organs(), "RAS") for name in ("a", "b")]
    volume = organs()
    volume[volume == 3] = 0
    for key in ("image", "label"):
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), np.diag([*SPACING, 1.0])), cases[1][key])
    evaluate(cases, [StageReport(tmp_path, NAMES, [3], STAGES, recall="roi_recall", kind="network")])
    text, content = (tmp_path / "stages.md").read_text(), json.loads((tmp_path / "stages.json").read_text())
    assert "by network" in text and "- stage 2, pancreas: absent in 1" in text and "candidate" not in text
    assert text.endswith("RoIs are where the tumour may be.\n")
    assert [case["roi_recall"] for case in content["cases"]] == [1.0, None]
    assert "a: the candidate region holds 100.00 %" in caplog.text
    assert "b: nothing is labelled that a candidate region could hold" in caplog.text and "nan" not in caplog.text


def test_scores_are_those_of_the_numbers_given(tmp_path):
    """Labelled organs need not be the first ones: the scores of stage 1 differ from organ to organ."""
    evaluate([write(tmp_path, "a", organs(), "RAS")], [StageReport(tmp_path, NAMES, [3, 1], STAGES)])
    columns = json.loads((tmp_path / "stages.json").read_text())["dice_percent"]["stage 1"]
    assert columns["pancreas"]["mean"] == 0.0 and columns["liver"]["mean"] == pytest.approx(100 * 12 / 14)
    assert set(columns) == {"pancreas", "liver", "average"}


def test_distances_of_each_stage_are_those_of_the_case_report(tmp_path):
    """The same prediction in both reports; without the argument no distance is taken."""
    case, stages = write(tmp_path, "a", organs(), "RAS"), {"pred": "all"}
    reports = [CaseReport(tmp_path, NAMES, [3, 1], picture=False), StageReport(tmp_path, NAMES, [3, 1], stages, None)]
    evaluate([case], [*reports[:1], StageReport(tmp_path, NAMES, [3, 1], stages, None, distances=True)])
    rows = {row["class"]: row for row in json.loads((tmp_path / "stages.json").read_text())["scores"]}
    with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for name in ("assd_mm", "hd95_mm"):
                assert rows[row["class"]][name] == pytest.approx(float(row[name]), abs=1e-3)
    evaluate([case], reports[1:])
    assert "assd_mm" not in (tmp_path / "stages.csv").read_text()


@pytest.mark.parametrize("codes", CODES)
def test_case_report_on_class_indices(tmp_path, caplog, monkeypatch, codes):
    caplog.set_level("INFO")
    drawn = {}
    monkeypatch.setattr(
        "common.handlers.case_report.prediction_figure",
        lambda image, pred, path, **more: drawn.update(image=image, pred=pred, **more),
    )
    case = write(tmp_path, "a", organs(), codes)
    evaluate([case], [CaseReport(tmp_path, NAMES, [1, 2, 3])])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["summary"]["all classes"]["dice"]["mean"] == 1.0 and content["summary"]["liver"]["nsd"]["n"] == 1
    assert [row["class"] for row in content["cases"]] == ["liver", "spleen", "pancreas"] and content["notes"] == []
    assert content["inferer"]["a"]["windows"] == [8, 2]
    assert "a: c1_share 0.4, c2_share 0.5, seconds stage1 1.5" in caplog.text
    # the picture is of the file: image, prediction and reference on one grid
    stored = np.asarray(nibabel.load(case["image"]).dataobj)
    assert np.array_equal(np.asarray(drawn["image"])[0], stored)
    assert np.array_equal(drawn["pred"].numpy(), stored) and np.array_equal(drawn["label"].numpy(), stored)


def test_the_candidate_region_is_on_the_picture(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "common.handlers.case_report.prediction_figure",
        lambda image, pred, path, **more: drawn.update(more),
    )
    case = write(tmp_path, "a", organs(), "PIR")
    evaluate([case], [CaseReport(tmp_path, NAMES, [1, 2, 3], candidate="pred_candidate")])
    assert drawn["region"].shape == drawn["label"][None].shape and 0 < drawn["region"].float().mean() < 1
    with pytest.raises(CasesFailed, match="has no 'pred_rois'.*candidate region"):
        evaluate([case], [CaseReport(tmp_path, NAMES, [1, 2, 3], candidate="pred_rois")])


def test_picture_of_a_turned_case_is_drawn(tmp_path):
    evaluate([write(tmp_path, "a", organs(), "PIR")], [CaseReport(tmp_path, NAMES, [1, 2, 3])])
    assert (tmp_path / "a_evaluation.png").stat().st_size > 10_000


def test_the_mean_dice_of_monai_on_class_indices(tmp_path):
    """What chooses weights during training: labels as floating point with metadata, predictions as bytes."""
    metric = MeanDice(include_background=False, num_classes=4, output_transform=from_engine(["pred_stage1", "label"]))
    engine = evaluate([write(tmp_path, "a", organs(), "PIR")], [], key_val_metric={"val_mean_dice": metric})
    assert engine.state.output[0]["label"].is_floating_point()
    assert engine.state.output[0]["pred_stage1"].dtype == torch.uint8
    assert engine.state.metrics["val_mean_dice"] == pytest.approx((12 / 14 + 1 + 0) / 3)


def test_a_second_run_starts_anew_and_warnings_are_told(tmp_path, set_state):
    cases = [write(tmp_path, name, organs(), "RAS") for name in ("a", "b")]
    engine = evaluate(cases, [set_state(warning="phantom weights"), StageReport(tmp_path, NAMES, None, STAGES)])
    engine.run()
    content = json.loads((tmp_path / "stages.json").read_text())
    assert [case["case"] for case in content["cases"]] == ["a", "b"]
    assert content["dice_percent"]["stage 2"]["background"]["n"] == 2
    assert "**Warning:** phantom weights" in (tmp_path / "stages.md").read_text()


def test_a_missing_stage_is_named(tmp_path):
    case = write(tmp_path, "a", organs(), "RAS")
    with pytest.raises(CasesFailed, match=r"has no 'pred_stage3' \(it has .*pred_stage1.*split these in the postproc"):
        evaluate([case], [StageReport(tmp_path, NAMES, [1], {"pred_stage3": "stage 3"})])
    with pytest.raises(CasesFailed, match="has no 'pred_candidate'"):
        evaluate([case], [StageReport(tmp_path, NAMES, [1], STAGES)], ("stage1", "stage2", "other"))
    evaluate([case], [StageReport(tmp_path, NAMES, [1], STAGES, None)], ("stage1", "stage2", "other"))
    assert "recall" not in (tmp_path / "stages.md").read_text()


def test_failed_cases_are_named(tmp_path):
    good, bad = (write(tmp_path, name, organs(), "RAS") for name in ("a", "b"))
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), bad["label"])
    with pytest.raises(CasesFailed, match="against reference"):
        evaluate([good, bad], [StageReport(tmp_path, NAMES, [1], STAGES)])
    assert "Failed, and not counted: b.nii.gz." in (tmp_path / "stages.md").read_text()


@pytest.mark.parametrize(
    ("classes", "text"), [([], r"classes are \[\]"), ([1, 4], r"\[1, 4\]: at least one of 0 to 3")]
)
@pytest.mark.parametrize("report", ["case", "stage"])
def test_classes_without_a_name(tmp_path, report, classes, text):
    with pytest.raises(ValueError, match=text):
        CaseReport(tmp_path, NAMES, classes) if report == "case" else StageReport(tmp_path, NAMES, classes, STAGES)
