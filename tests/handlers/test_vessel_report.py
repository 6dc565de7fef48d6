"""The report of vessels, on files whose axes lie otherwise than the network's."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, list_data_collate
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


def evaluate(cases, *handlers):
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
        network=Logits(),
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
    for row, offset in zip(rows, (0, 1), strict=True):
        logit, label = (torch.from_numpy(volume)[None] for volume in vessels(offset))
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
