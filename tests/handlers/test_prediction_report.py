"""Reports and pictures of predictions."""

import hashlib
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.inferers import SimpleInferer
from monai.transforms import Compose, Invertd, LoadImaged, ScaleIntensityd, Spacingd

from common.checks import InputError
from common.engines.case_evaluator import CaseEvaluator, CasesFailed
from common.handlers.cases import class_indices
from common.handlers.prediction_report import PredictionReport
from common.transforms.save import AtomicSaveImaged

NAMES = ["background", "cube"]


def images(cube_case, *names):
    return [{"image": cube_case(name)["image"]} for name in names]


def test_report_of_a_case(tmp_path, cube_case, evaluator, set_state):
    out = tmp_path / "out"
    state = set_state(weights={"dataset": "kidney"}, warning="phantom weights")
    evaluator(images(cube_case, "a"), [state, PredictionReport(out, NAMES)]).run()
    report = json.loads((out / "a_report.json").read_text())
    # 6 x 6 x 6 voxels of 0.5 x 1 x 3 mm
    assert report["volumes"]["cube"] == {"voxels": 216, "mm3": pytest.approx(324.0), "ml": pytest.approx(0.324)}
    assert report["spacing_mm"] == [0.5, 1.0, 3.0] and report["shape"] == [16, 16, 16]
    assert report["found"] and report["warning"] == "phantom weights" and report["weights"] == {"dataset": "kidney"}
    assert report["seconds"] > 0 and "monai" in report["versions"]
    assert report["picture"] == "a.png" and (out / "a.png").stat().st_size > 10_000
    summary = json.loads((out / "predictions.json").read_text())
    assert [case["case"] for case in summary["cases"]] == ["a"] and summary["failures"] == []
    assert not (out / "failures.json").exists()
    assert str(tmp_path) not in "".join(path.read_text() for path in out.glob("*.json"))


def test_memory_on_the_processor(tmp_path, cube_case, evaluator):
    out = tmp_path / "out"
    evaluator(images(cube_case, "a"), [PredictionReport(out, NAMES, picture=False)]).run()
    report = json.loads((out / "a_report.json").read_text())
    assert report["peak_memory_bytes"] > 2**26 and report["peak_memory_kind"].startswith("resident size of the process")


def test_what_was_predicted_is_told_by_its_hash(tmp_path, cube_case, evaluator):
    case = cube_case("a")
    evaluator([{"image": case["image"]}], [PredictionReport(tmp_path / "out", NAMES, picture=False)]).run()
    report = json.loads((tmp_path / "out" / "a_report.json").read_text())
    assert report["input_sha256"] == hashlib.sha256(Path(case["image"]).read_bytes()).hexdigest()
    assert "input" not in report


@pytest.fixture
def metadata(tmp_path):
    """A file of metadata whose bundle expects CT of thin slices, and values up to 0.5."""
    path = tmp_path / "metadata.json"
    expected = {
        "modality": ["CT"],
        "spacing_mm": {"through_plane": [0.5, 1.0]},
        "intensity": {"unit": "HU", "percentile_99": [None, 0.5]},
    }
    path.write_text(json.dumps({"expected_input": expected}))
    return path


def test_a_report_says_how_the_image_differs_from_what_is_expected(tmp_path, cube_case, evaluator, metadata, caplog):
    case = cube_case("a")
    file = nibabel.load(case["image"])
    file.header["descrip"] = b"modality=MR"
    nibabel.save(nibabel.Nifti1Image(np.asarray(file.dataobj), file.affine, file.header), case["image"])
    report = PredictionReport(tmp_path / "out", NAMES, picture=False, metadata=metadata)
    evaluator([{"image": case["image"]}], [report]).run()
    said = [
        "it is MR; the bundle expects CT",
        "its slices are 3 mm apart; the bundle expects 0.5 to 1 mm",
        "its 99th percentile is 1 HU; the bundle expects at most 0.5 HU",
    ]
    told = json.loads((tmp_path / "out" / "a_report.json").read_text())["input"]
    assert told["warnings"] == said and all(f"a: {sentence}" in caplog.text for sentence in said)
    assert (told["modality"], told["spacing_mm"], told["field_of_view_mm"]) == ("MR", [0.5, 1, 3], [8, 16, 48])
    assert told["intensity"] == {"percentile_1": 0, "percentile_50": 0, "percentile_99": 1}
    summary = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert summary["cases"][0]["input"] == told


def test_a_phantom_is_not_what_a_paper_had_and_needs_no_warning(tmp_path, cube_case, evaluator, metadata, caplog):
    case = cube_case("a", phantom=True)
    report = PredictionReport(tmp_path / "out", NAMES, picture=False, metadata=metadata)
    evaluator([{"image": case["image"]}], [report]).run()
    assert report.reports[0]["input"]["warnings"] == [] and "expects" not in caplog.text


def test_what_is_compared_is_the_file_and_not_what_was_made_of_it(tmp_path, cube_case, evaluator, metadata):
    pre = Compose(
        [
            LoadImaged(keys="image", ensure_channel_first=True),
            Spacingd(keys="image", pixdim=(1, 1, 1)),
            ScaleIntensityd(keys="image", minv=0.0, maxv=0.4),
        ]
    )
    post = Invertd(keys="pred", transform=pre, orig_keys="image", nearest_interp=True, to_tensor=True)
    cases = images(cube_case, "a")
    loader = DataLoader(Dataset(cases, pre), batch_size=1, collate_fn=list_data_collate)
    report = PredictionReport(tmp_path / "out", NAMES, metadata=metadata)
    evaluator(cases, [report], loader=loader, postprocessing=post).run()
    told = report.reports[0]["input"]
    assert told["spacing_mm"] == [0.5, 1, 3] and told["intensity"]["percentile_99"] == 1.0
    assert told["modality"] is None and len(told["warnings"]) == 2 and report.reports[0]["picture"] == "a.png"


def test_metadata_that_is_not_there_is_told_before_anything_is_predicted(tmp_path):
    with pytest.raises(InputError, match="metadata.json' does not exist"):
        PredictionReport(tmp_path, NAMES, metadata=tmp_path / "metadata.json")


def test_volumes_of_a_file_in_micrometres_are_those_of_micrometres(tmp_path, cube_case, evaluator):
    case = cube_case("a")
    file = nibabel.load(case["image"])
    file.header.set_xyzt_units("micron")
    nibabel.save(nibabel.Nifti1Image(np.asarray(file.dataobj), file.affine, file.header), case["image"])
    evaluator([{"image": case["image"]}], [PredictionReport(tmp_path / "out", NAMES, picture=False)]).run()
    report = json.loads((tmp_path / "out" / "a_report.json").read_text())
    assert report["volumes"]["cube"]["mm3"] == pytest.approx(324.0e-9)
    assert report["spacing_mm"] == pytest.approx([0.0005, 0.001, 0.003])


def test_nothing_found_is_said(tmp_path, cube_case, evaluator, threshold, caplog):
    evaluator(images(cube_case, "a"), [PredictionReport(tmp_path / "out", NAMES)], threshold(2.0)).run()
    assert "a: nothing found" in caplog.text
    assert json.loads((tmp_path / "out" / "a_report.json").read_text())["found"] is False


def test_names_follow_the_saved_volumes(tmp_path, cube_case, evaluator):
    out = tmp_path / "out"
    save = AtomicSaveImaged(
        keys="pred",
        output_dir=str(out),
        output_postfix="seg",
        output_dtype=np.uint8,
        separate_folder=False,
        print_log=False,
    )
    handlers = [PredictionReport(out, NAMES, picture=False)]
    evaluator(images(cube_case, "x/a", "y/a"), handlers, postprocessing=save).run()
    assert {path.name for path in out.iterdir()} == {
        "a_seg.nii.gz",
        "y_a_seg.nii.gz",
        "a_report.json",
        "y_a_report.json",
        "predictions.json",
    }
    report = json.loads((out / "y_a_report.json").read_text())
    assert report["picture"] is None and report["label_file"] == "y_a_seg.nii.gz"


@pytest.mark.parametrize(("kept_in", "told"), [("out/sub", "sub/a_seg.nii.gz"), ("elsewhere", None)])
def test_where_the_label_lies_is_told_below_the_folder_of_the_reports(tmp_path, cube_case, evaluator, kept_in, told):
    options = {"output_postfix": "seg", "output_dtype": np.uint8, "separate_folder": False, "print_log": False}
    save = AtomicSaveImaged(keys="pred", output_dir=str(tmp_path / kept_in), **options)
    handlers = [PredictionReport(tmp_path / "out", NAMES, picture=False)]
    evaluator(images(cube_case, "a"), handlers, postprocessing=save).run()
    assert json.loads((tmp_path / "out" / "a_report.json").read_text())["label_file"] == told
    assert (tmp_path / kept_in / "a_seg.nii.gz").is_file()


def test_prediction_on_another_grid_than_the_image_in_memory(tmp_path, cube_case, evaluator, monkeypatch):
    """After Invertd the prediction is on the file's grid; the picture is of the file, not of the resampled image."""
    drawn = {}
    monkeypatch.setattr(
        "common.handlers.prediction_report.prediction_figure",
        lambda image, pred, path, **more: drawn.update(image=image, pred=pred, **more) or True,
    )
    cases = images(cube_case, "a")
    pre = Compose([LoadImaged(keys="image", ensure_channel_first=True), Spacingd(keys="image", pixdim=(1, 1, 1))])
    post = Invertd(keys="pred", transform=pre, orig_keys="image", nearest_interp=True, to_tensor=True)
    loader = DataLoader(Dataset(cases, pre), batch_size=1, collate_fn=list_data_collate)
    evaluator(cases, [PredictionReport(tmp_path / "out", NAMES)], loader=loader, postprocessing=post).run()
    assert drawn["image"].shape == (1, 16, 16, 16) and drawn["pred"].shape == (16, 16, 16)
    assert float(drawn["image"].max()) == 1.0 and set(np.unique(drawn["image"])) == {0.0, 1.0}
    assert np.allclose(drawn["affine"], np.diag([-0.5, 1, 3, 1]))


def test_log_counts_cases_where_there_is_no_terminal(tmp_path, cube_case, evaluator, caplog):
    caplog.set_level("INFO")
    evaluator(images(cube_case, "a", "b"), [PredictionReport(tmp_path / "out", NAMES, picture=False)]).run()
    assert "case 2 of 2: b," in caplog.text and "2 predicted, 0 failed" in caplog.text


def test_nothing_is_predicted_where_nothing_can_be_written(tmp_path, cube_case, evaluator):
    (tmp_path / "out").write_text("a file, not a folder")
    engine = evaluator(images(cube_case, "a"), [PredictionReport(tmp_path / "out", NAMES)])
    with pytest.raises(InputError, match="out/.*can not be written.*choose another folder"):
        engine.run()
    assert engine.state.iteration == 0


def test_list_of_failures_of_an_earlier_run_goes(tmp_path, cube_case, evaluator):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "failures.json").write_text("[]")
    evaluator(images(cube_case, "a"), [PredictionReport(tmp_path / "out", NAMES, picture=False)]).run()
    assert not (tmp_path / "out" / "failures.json").exists()


@pytest.mark.gpu
def test_memory_and_volumes_on_cuda(tmp_path, cube_case, evaluator, threshold):
    out = tmp_path / "out"
    evaluator(images(cube_case, "a"), [PredictionReport(out, NAMES)], threshold().cuda(), device="cuda").run()
    report = json.loads((out / "a_report.json").read_text())
    assert report["peak_memory_bytes"] >= 2 * 16**3 * 4 and report["device"] == "cuda"
    assert report["volumes"]["cube"]["voxels"] == 216 and (out / "a.png").is_file()


class Telling(SimpleInferer):
    """An inferer that tells of its last call."""

    report = {}

    def __call__(self, inputs, network, *args, **kwargs):
        self.report = {"c2_share": float(inputs.mean()), "windows": [3, 1], "source": "/home/jane_doe/scan.nii.gz"}
        return super().__call__(inputs, network, *args, **kwargs)


def test_what_the_inferer_tells_is_in_the_report_of_its_case(tmp_path, cube_case, evaluator, caplog):
    caplog.set_level("INFO")
    evaluator(
        images(cube_case, "a"), [PredictionReport(tmp_path / "out", NAMES, picture=False)], inferer=Telling()
    ).run()
    share = 216 / 16**3
    wanted = {"c2_share": pytest.approx(share), "windows": [3, 1], "source": "scan.nii.gz"}
    assert json.loads((tmp_path / "out" / "a_report.json").read_text())["inferer"] == wanted
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"][0]["inferer"] == wanted
    assert re.search(r"case 1 of 1: a, [0-9.]+ s \(c2_share 0\.0527\)", caplog.text)


def test_an_inferer_that_tells_nothing_leaves_no_entry(tmp_path, cube_case, evaluator, caplog):
    caplog.set_level("INFO")
    evaluator(images(cube_case, "a"), [PredictionReport(tmp_path / "out", NAMES, picture=False)]).run()
    assert "inferer" not in json.loads((tmp_path / "out" / "a_report.json").read_text())
    assert re.search(r"case 1 of 1: a, [0-9.]+ s$", caplog.text, re.MULTILINE)


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.uint8, torch.uint8), (torch.int64, torch.int64), (torch.float32, torch.int16)]
)
def test_class_indices_take_no_more_memory_than_they_need(dtype, kept):
    volume = torch.tensor([0, 2, 1, 255]).reshape(1, 2, 2, 1).to(dtype)
    found = class_indices(volume)
    assert found.dtype == kept and found.flatten().tolist() == [0, 2, 1, 255]


def test_class_indices_of_one_hot_tell_what_is_unlabelled():
    volume = torch.tensor([[1, 0, 0], [0, 1, 0]], dtype=torch.uint8).reshape(2, 3, 1, 1)
    assert class_indices(volume).flatten().tolist() == [0, 1, -1]


def test_vessels_as_projections_that_turn(tmp_path, cube_case, evaluator, set_state, monkeypatch):
    views = []
    monkeypatch.setattr(
        "common.handlers.prediction_report.prediction_figure", lambda *args, **more: views.append(more["view"]) or True
    )
    out, state = tmp_path / "out", set_state(warning="phantom weights")
    evaluator(images(cube_case, "a"), [state, PredictionReport(out, NAMES, view="mip", rotating=True)]).run()
    evaluator(images(cube_case, "a"), [PredictionReport(tmp_path / "plain", NAMES)]).run()
    assert views == ["mip", "slices"]
    report = json.loads((out / "a_report.json").read_text())
    assert (report["picture"], report["rotating"]) == ("a.png", "a_rotating.gif")
    assert (out / "a_rotating.gif").read_bytes()[:3] == b"GIF"
    assert "rotating" not in json.loads((tmp_path / "plain" / "a_report.json").read_text())
    assert not list((tmp_path / "plain").glob("*.gif"))


def test_a_turn_needs_no_other_picture(tmp_path, cube_case, evaluator):
    report = PredictionReport(tmp_path / "out", NAMES, picture=False, rotating=True)
    evaluator(images(cube_case, "a"), [report]).run()
    assert (report.reports[0]["picture"], report.reports[0]["rotating"]) == (None, "a_rotating.gif")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".gif", ".json"}


def test_a_case_whose_turn_can_not_be_written_has_failed(tmp_path, cube_case, evaluator):
    (tmp_path / "out" / "a_rotating.gif").mkdir(parents=True)
    engine = evaluator(
        images(cube_case, "a", "b"),
        [PredictionReport(tmp_path / "out", NAMES, picture=False, rotating=True)],
        kind=CaseEvaluator,
    )
    with pytest.raises(CasesFailed, match=r"1 of 2 cases failed \(a\.nii\.gz"):
        engine.run()
    assert (tmp_path / "out" / "b_report.json").is_file() and not (tmp_path / "out" / "a_report.json").exists()


def test_an_unknown_view_is_refused_before_anything_is_predicted(tmp_path):
    with pytest.raises(InputError, match="view is 'MIP'.*slices, mip"):
        PredictionReport(tmp_path, NAMES, view="MIP")
