"""LiTS scores of an evaluation, on files whose axes lie otherwise than the network's."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.inferers import Inferer
from monai.transforms import Compose, CopyItemsd, DeleteItemsd, Invertd, LoadImaged, Orientationd, SplitDimd
from monai.utils import convert_to_dst_type

from common.checks import InputError
from common.engines.case_evaluator import CaseEvaluator, CasesFailed
from common.handlers.lesion_report import LesionReport
from common.metrics.lits import lits_scores

STAGES = {"pred_localiser": "localiser", "pred": "liver"}
SPACING = (1.0, 2.0, 3.0)
CODES = ("LPI", "PIR")


class Sloppy(Inferer):
    """Answers of known worth: labels are the grey values of the image, but every lesion lacks its lowest slice.

    The localiser lacks a slice of the organ, and the box is all but the lower half of the first axis.
    """

    legend = {"box_share": "box_share is told of here."}

    def __call__(self, inputs, network, *args, **kwargs):
        labels = inputs.as_tensor().round()
        ahead = torch.cat((torch.zeros_like(labels[..., :1]), labels[..., :-1]), dim=-1)
        labels[(labels == 2) & (ahead != 2)] = 1
        localiser, box = (labels >= 1).float(), torch.zeros_like(labels)
        localiser[:, :, :5] = 0
        box[:, :, 6:] = 1
        self.report = {"box_share": 0.25, "windows": {"liver": 2}, "seconds": {"liver": 1.5}, "liver_found": True}
        answer = torch.cat((labels, localiser, box), dim=1)
        return convert_to_dst_type(answer, inputs, dtype=torch.uint8)[0]


def organs(lesions=True):
    """8 slices of liver, along the first axis, two of them below slice 6; two lesions of 3 and 1 slices in it."""
    volume = np.zeros((16, 9, 7), dtype=np.uint8)
    volume[4:12, 2:8, 1:6] = 1
    if lesions:
        volume[5:9, 3:5, 2:5] = 2
        volume[10:11, 6:7, 2:3] = 2
    return volume


def truth(volume):
    """What the stub makes of `volume`, by a loop."""
    found = volume.copy()
    for x, y, z in np.argwhere(volume == 2):
        if volume[x, y, z - 1] != 2:
            found[x, y, z] = 1
    return found


def write(folder, name, volume, codes="RAS", label=None):
    """A case whose file has its axes in another order and direction than RAS."""
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    paths = {"image": f"{folder / name}.nii.gz", "label": f"{folder / name}_label.nii.gz"}
    label = volume if label is None else label
    for key, content in (("image", volume.astype(np.float32)), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(content, np.diag([*SPACING, 1.0])).as_reoriented(turn), paths[key])
    return paths


def evaluate(cases, handlers, postfixes=("labels", "localiser", "box")):
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
            CopyItemsd(keys="pred_labels", names="pred"),
        ]
    )
    engine = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases, before), batch_size=1, collate_fn=list_data_collate),
        network=torch.nn.Identity(),
        inferer=Sloppy(),
        postprocessing=after,
        val_handlers=handlers,
    )
    engine.run()
    return engine


@pytest.mark.parametrize("codes", CODES)
def test_scores_and_stages_on_the_grid_of_the_file(tmp_path, caplog, codes):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    evaluate([write(tmp_path, "a", organs(), codes)], [LesionReport(out, stages=STAGES, box="pred_box")])
    volume = organs()
    wanted = lits_scores(torch.from_numpy(truth(volume))[None], torch.from_numpy(volume)[None], SPACING)
    (row,) = csv.DictReader((out / "lits.csv").open())
    for mask, name in (("organ", "liver"), ("lesion", "tumour")):
        for score in ("dice", "voe", "rvd", "assd_mm", "rmsd_mm", "msd_mm"):
            assert float(row[f"{name}_{score}"]) == pytest.approx(wanted[mask][score], rel=1e-6)
    assert float(row["liver_dice"]) == 1.0 and 0 < float(row["tumour_dice"]) < 1 and float(row["tumour_msd_mm"]) > 0
    assert (row["tumour_lesions_label"], row["tumour_lesions_pred"], row["tumour_lesions_iou > 0"]) == ("2", "1", "1")
    assert float(row["burden_label"]) == pytest.approx(25 / 240) and float(row["burden_pred"]) == pytest.approx(
        16 / 240
    )
    # 7 of the organ's 8 slices in the localiser's mask, 6 of 8 in the box
    assert float(row["dice localiser"]) == pytest.approx(14 / 15) and float(row["box_recall"]) == pytest.approx(6 / 8)
    assert (row["box_share"], row["seconds liver"], row["windows liver"]) == ("0.25", "1.5", "2")
    text, content = (out / "lits.md").read_text(), json.loads((out / "lits.json").read_text())
    assert text in caplog.text and "a: the box holds 75.00 % of the liver" in caplog.text
    assert "# LiTS scores" in text and "# Dice in percent, by stage" in text and "box recall, %" in text
    assert text.endswith("box_share is told of here.\n") and str(tmp_path) not in text + json.dumps(content)
    assert content["stages"]["dice_percent"]["localiser"]["liver"]["mean"] == pytest.approx(100 * 14 / 15)
    assert content["summary"]["detection"]["iou > 0"]["recall"] == 0.5


def test_a_case_without_lesions_counts(tmp_path):
    """Nothing there and nothing found is a case of Dice 1, and one of burden 0."""
    cases = [write(tmp_path, "a", organs()), write(tmp_path, "b", organs(lesions=False))]
    evaluate(cases, [LesionReport(tmp_path)])
    summary = json.loads((tmp_path / "lits.json").read_text())["summary"]
    first, second = csv.DictReader((tmp_path / "lits.csv").open())
    assert (second["case"], second["tumour_status"], second["tumour_dice"]) == ("b", "absent", "1.0")
    assert summary["tumour"]["dice_per_case"]["mean"] == pytest.approx((float(first["tumour_dice"]) + 1) / 2)
    assert summary["tumour"]["dice_global"] == pytest.approx(float(first["tumour_dice"]))
    assert summary["tumour_burden"]["rmse"] == pytest.approx((9 / 240) / 2**0.5)


def test_no_organ_in_the_reference(tmp_path, caplog):
    """The box then holds nothing of what is there, which is no share; the log does not say nan."""
    caplog.set_level("INFO")
    case = write(tmp_path, "a", organs(), label=np.zeros((16, 9, 7), np.uint8))
    evaluate([case], [LesionReport(tmp_path, stages=STAGES, box="pred_box")])
    (row,) = csv.DictReader((tmp_path / "lits.csv").open())
    assert (row["liver_status"], row["liver_dice"], row["box_recall"]) == ("false find", "0.0", "")
    assert "the box holds" not in caplog.text and "nan" not in (tmp_path / "lits.md").read_text()


def test_lesions_that_the_data_set_does_not_label(tmp_path):
    case = write(tmp_path, "a", organs(), label=np.minimum(organs(), 1))
    evaluate([case], [LesionReport(tmp_path, organ="liver", lesion="tumour", classes=[1], stages=STAGES)])
    text, content = (tmp_path / "lits.md").read_text(), json.loads((tmp_path / "lits.json").read_text())
    assert "tumour" not in text + json.dumps(content) and content["summary"]["liver"]["dice_global"] == 1.0
    with pytest.raises(InputError, match=r"the liver \(label 1\) is not among.*\[2\].*take the report out"):
        LesionReport(tmp_path, classes=[2])


def test_a_second_run_starts_anew_and_warnings_are_told(tmp_path, set_state):
    cases = [write(tmp_path, name, organs()) for name in ("a", "b")]
    handlers = [set_state(warning="phantom weights", weights={"path": "/x/y.pt"}), LesionReport(tmp_path)]
    evaluate(cases, handlers).run()
    content = json.loads((tmp_path / "lits.json").read_text())
    assert [case["case"] for case in content["cases"]] == ["a", "b"] and content["weights"] == {"path": "y.pt"}
    assert (tmp_path / "lits.md").read_text().endswith("**Warning:** phantom weights\n")


def test_failed_cases_are_named_and_what_is_missing_is(tmp_path, caplog):
    good, bad = (write(tmp_path, name, organs()) for name in ("a", "b"))
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), bad["label"])
    with pytest.raises(CasesFailed, match="against reference"):
        evaluate([good, bad], [LesionReport(tmp_path)])
    assert "Failed, and not counted: b.nii.gz." in (tmp_path / "lits.md").read_text()
    assert len(json.loads((tmp_path / "lits.json").read_text())["cases"]) == 1
    with pytest.raises(CasesFailed, match="has no 'pred_rois'"):
        evaluate([good], [LesionReport(tmp_path / "none", box="pred_rois")])
    assert "no case was scored: there is no table of LiTS scores" in caplog.text and not (tmp_path / "none").exists()
