"""One bad case does not end a batch, and is not forgotten."""

import inspect
import json
import weakref

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanIoUHandler, StatsHandler, from_engine
from monai.transforms import Compose, LoadImaged

from common.checks import InputError
from common.data.loader import CaseLoader
from common.engines.case_evaluator import CaseEvaluator, CasesFailed
from common.handlers.prediction_report import PredictionReport
from common.transforms.save import AtomicSaveImaged

NAMES = ["background", "bright"]


class Picky(torch.nn.Module):
    """Fails where the image holds a 7."""

    def __init__(self, error=RuntimeError):
        super().__init__()
        self.error = error

    def forward(self, image):
        if bool((image == 7).any()):
            raise self.error("a 7 is too much for this network")
        return (image > 0.5).float()


@pytest.fixture
def cases(tmp_path):
    """Writes cases by name: 'good...', 'seven...' (the network fails), 'torn...' (not readable)."""

    def write(*names):
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for name in names:
            path = folder / f"{name}.nii.gz"
            content = np.full((6, 7, 8), 7.0 if name.startswith("seven") else 0.0, dtype=np.float32)
            content[2:4, 2:4, 2:4] += 1
            nibabel.save(nibabel.Nifti1Image(content, np.eye(4)), path)
            if name.startswith("torn"):
                path.write_bytes(path.read_bytes()[:40])
        return [{"image": str(folder / f"{name}.nii.gz")} for name in names]

    return write


def build(items, out, network=None, loader=CaseLoader, reports=None, **kwargs):
    dataset = Dataset(items, Compose([LoadImaged(keys="image", ensure_channel_first=True)]))
    save = AtomicSaveImaged(
        keys="pred",
        output_dir=str(out),
        output_postfix="seg",
        output_dtype=np.uint8,
        separate_folder=False,
        print_log=False,
    )
    return CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader(dataset),
        network=network or Picky(),
        postprocessing=save,
        val_handlers=[StatsHandler(iteration_log=False), PredictionReport(reports or out, NAMES, picture=False)],
        **kwargs,
    )


def saved(out):
    return sorted(path.name for path in out.glob("*.nii.gz"))


def test_takes_the_arguments_of_the_supervised_evaluator():
    assert inspect.signature(CaseEvaluator) == inspect.signature(SupervisedEvaluator)


def test_all_good(tmp_path, cases):
    out = tmp_path / "out"
    build(cases("good1", "good2"), out).run()
    assert saved(out) == ["good1_seg.nii.gz", "good2_seg.nii.gz"]


def test_bad_cases_are_passed_over_and_told_at_the_end(tmp_path, cases, caplog):
    out = tmp_path / "out"
    engine = build(cases("torn1", "good1", "seven1", "good2", "torn2"), out)
    with pytest.raises(
        CasesFailed, match=r"3 of 5 cases failed .*torn1\.nii\.gz.*seven1\.nii\.gz: a 7 is too much"
    ) as told:
        engine.run()
    assert isinstance(told.value, InputError)
    assert saved(out) == ["good1_seg.nii.gz", "good2_seg.nii.gz"]
    failures = json.loads((out / "failures.json").read_text())
    assert sorted(failure["case"] for failure in failures) == ["seven1.nii.gz", "torn1.nii.gz", "torn2.nii.gz"]
    summary = json.loads((out / "predictions.json").read_text())
    assert [case["case"] for case in summary["cases"]] == ["good1", "good2"] and summary["failures"] == failures
    assert "seven1.nii.gz failed: a 7 is too much" in caplog.text


@pytest.mark.parametrize("names", [("torn1",), ("seven1", "torn2"), ("torn1", "torn2", "torn3")])
def test_no_good_case(tmp_path, cases, names):
    with pytest.raises(CasesFailed, match=f"{len(names)} of {len(names)} cases failed"):
        build(cases(*names), tmp_path / "out").run()
    assert not saved(tmp_path / "out") and not (tmp_path / "out" / "predictions.json").exists()


@pytest.mark.filterwarnings("ignore:.*skip the `run`")
@pytest.mark.parametrize("loader", [CaseLoader, DataLoader])
def test_no_case_at_all(tmp_path, loader):
    with pytest.raises(InputError, match="no case to work on"):
        build([], tmp_path / "out", loader=loader).run()


def test_ordinary_loader(tmp_path, cases):
    out = tmp_path / "out"
    with pytest.raises(CasesFailed, match=r"1 of 3 cases failed \(seven1"):
        build(cases("good1", "seven1", "good2"), out, loader=DataLoader).run()
    assert saved(out) == ["good1_seg.nii.gz", "good2_seg.nii.gz"]


def test_saving_that_fails_is_a_failed_case(tmp_path, cases):
    (tmp_path / "file").write_text("in the way")
    engine = build(cases("good1"), tmp_path / "file" / "out", reports=tmp_path / "reports")
    with pytest.raises(CasesFailed, match="1 of 1 cases failed .*good1_seg.nii.gz' can not be written"):
        engine.run()
    assert [failure["case"] for failure in engine.failures] == ["good1.nii.gz"]


def test_a_folder_that_can_not_be_written_ends_the_run_before_the_first_case(tmp_path, cases):
    (tmp_path / "file").write_text("in the way")
    engine = build(cases("good1"), tmp_path / "file" / "out", network=Picky(KeyboardInterrupt))
    with pytest.raises(InputError, match="can not be written .*choose another folder"):
        engine.run()
    assert engine.failures == []


def test_report_that_fails_is_a_failed_case(tmp_path, cases):
    out = tmp_path / "out"
    (out / "good1_report.json").mkdir(parents=True)
    with pytest.raises(CasesFailed, match=r"1 of 2 cases failed \(good1\.nii\.gz: .*good1_report\.json"):
        build(cases("good1", "good2"), out).run()
    assert [case["case"] for case in json.loads((out / "predictions.json").read_text())["cases"]] == ["good2"]


def test_interrupt_passes_at_once(tmp_path, cases):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(cases("good1", "seven1", "good2"), out, network=Picky(KeyboardInterrupt)).run()
    assert saved(out) == ["good1_seg.nii.gz"] and not (out / "predictions.json").exists()


def test_running_again_begins_anew(tmp_path, cases):
    items = cases("good1", "seven1", "good2", "torn1")
    engine = build(items, tmp_path / "out")
    for failing in (2, 3):
        with pytest.raises(CasesFailed, match=f"{failing} of 4 cases failed"):
            engine.run()
        if failing == 2:
            nibabel.save(nibabel.load(items[1]["image"]), items[0]["image"].replace("good1", "torn1"))
            cases("torn2")
            items[2]["image"] = items[3]["image"].replace("torn1", "torn2")
    assert len(json.loads((tmp_path / "out" / "failures.json").read_text())) == 3


def test_metrics_see_whole_cases_only(tmp_path, cases):
    items = [{**item, "label": item["image"]} for item in cases("good1", "seven1", "good2")]
    dataset = Dataset(items, Compose([LoadImaged(keys=["image", "label"], ensure_channel_first=True)]))
    engine = CaseEvaluator(
        device="cpu",
        val_data_loader=CaseLoader(dataset),
        network=Picky(),
        key_val_metric={"iou": MeanIoUHandler(output_transform=from_engine(["pred", "label"]))},
    )
    with pytest.raises(CasesFailed, match="1 of 3"):
        engine.run()
    assert engine.state.metrics["iou"] == 1.0
    assert engine.state.metric_details["iou"].shape == (2, 1)


def test_metrics_of_no_case_do_not_hide_what_failed(tmp_path, cases):
    items = [{**item, "label": item["image"]} for item in cases("seven1", "torn1")]
    dataset = Dataset(items, Compose([LoadImaged(keys=["image", "label"], ensure_channel_first=True)]))
    engine = CaseEvaluator(
        device="cpu",
        val_data_loader=CaseLoader(dataset),
        network=Picky(),
        key_val_metric={"iou": MeanIoUHandler(output_transform=from_engine(["pred", "label"]))},
    )
    with pytest.raises(CasesFailed, match="2 of 2"):
        engine.run()


def test_memory_is_given_back_when_nothing_holds_the_tensors(tmp_path, cases, monkeypatch):
    class Greedy(torch.nn.Module):
        def forward(self, image):
            feature_map = torch.zeros(3)
            held.append(weakref.ref(feature_map))
            raise torch.OutOfMemoryError("too much")

    held, free = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append([ref() is None for ref in held]))
    with pytest.raises(CasesFailed, match="too much"):
        build(cases("good1"), tmp_path / "out", network=Greedy()).run()
    assert free == [[True]]
