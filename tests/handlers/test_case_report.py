"""Tables and pictures of an evaluation."""

import csv
import json

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.engines.case_evaluator import CaseEvaluator, CasesFailed
from common.handlers.case_report import CaseReport
from common.metrics.scores import NOT_DENSE

NAMES = ["background", "cube"]


def rows(folder):
    return {(row["case"], row["class"]): row for row in csv.DictReader((folder / "metrics.csv").open())}


def summary_of(folder):
    return json.loads((folder / "metrics.json").read_text())["summary"]


def test_scores_are_those_of_the_volumes_in_mm(tmp_path, cube_case, evaluator, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    cases = [cube_case("a"), cube_case("b", low=(4, 4, 5)), cube_case("c", low=(0, 0, 0), size=0)]
    evaluator(cases, [CaseReport(out, NAMES)]).run()
    table = rows(out)
    # the prediction lies one voxel of 3 mm beside the label of case a: 36 surface voxels 3 mm off, and of the 4 x 4
    # inside, at most 0.5 or 1.0 mm (first axis) or 1 and 2 voxels of 1 mm (second) from a side: 8 and 4 columns at 0.5
    # mm, 4 at 1.0
    assert float(table["a", "cube"]["dice"]) == pytest.approx(5 / 6)
    assert float(table["a", "cube"]["hd95_mm"]) == pytest.approx(3.0)
    assert float(table["a", "cube"]["assd_mm"]) == pytest.approx((36 * 3.0 + 8 * 0.5 + 8 * 1.0) / 152)
    assert [table["b", "cube"][name] for name in ("dice", "iou", "nsd", "hd95_mm", "assd_mm")] == [
        "1.0",
        "1.0",
        "1.0",
        "0.0",
        "0.0",
    ]
    assert (table["c", "cube"]["status"], table["c", "cube"]["dice"], table["c", "cube"]["hd95_mm"]) == (
        "false find",
        "0.0",
        "",
    )
    # the background has overlap, but no surface worth a score
    assert table["a", "background"]["assd_mm"] == "" and float(table["a", "background"]["dice"]) > 0.9
    content = json.loads((out / "metrics.json").read_text())
    assert content["summary"]["cube"]["dice"]["mean"] == pytest.approx((5 / 6 + 1 + 0) / 3)
    assert content["summary"]["cube"]["dice"]["n"] == 3 and len(content["summary"]["cube"]["dice"]["ci95"]) == 2
    assert content["status"]["cube"] == {"scored": 2, "false find": 1} and content["notes"] == []
    assert {path.name for path in out.glob("*.png")} == {"a_evaluation.png", "b_evaluation.png", "c_evaluation.png"}
    assert "all classes" in caplog.text and "95 % intervals" in caplog.text
    assert str(tmp_path) not in (out / "metrics.json").read_text() + (out / "metrics.csv").read_text()


def test_the_means_are_metrics_of_the_run_and_of_no_earlier_one(tmp_path, cube_case, evaluator):
    cases = [cube_case("a"), cube_case("b", low=(4, 4, 5)), cube_case("c", low=(0, 0, 0), size=0)]
    engine = evaluator(cases, [CaseReport(tmp_path / "out", NAMES, classes=[1], picture=False)])
    engine.run()
    means = {name: content["mean"] for name, content in summary_of(tmp_path / "out")["all classes"].items()}
    assert means["dice"] == pytest.approx((5 / 6 + 1 + 0) / 3)
    assert {f"val_mean_{name}": pytest.approx(mean) for name, mean in means.items()} == engine.state.metrics
    cases.clear()
    cases.append(cube_case("d", unlabelled=(slice(None), slice(None), [k for k in range(16) if k != 7])))
    engine.run()
    assert engine.state.metrics == {"val_mean_dice": 1.0, "val_mean_iou": 1.0}  # surfaces need a dense reference


def test_sparse_reference(tmp_path, cube_case, evaluator):
    out = tmp_path / "out"
    plane = (slice(None), slice(None), [k for k in range(16) if k != 7])
    evaluator([cube_case("a", unlabelled=plane)], [CaseReport(out, NAMES, picture=False)]).run()
    row = rows(out)["a", "cube"]
    # slice 7 lies inside both cubes: there they agree
    assert (row["dice"], row["label_voxels"], row["assd_mm"]) == ("1.0", "36", "")
    assert json.loads((out / "metrics.json").read_text())["notes"] == [NOT_DENSE]
    assert not list(out.glob("*.png"))


def test_picture_of_a_sparse_case_shows_the_whole_prediction(tmp_path, cube_case, evaluator, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "common.handlers.case_report.prediction_figure",
        lambda image, pred, path, **more: drawn.update(pred=pred, **more),
    )
    plane = (slice(None), slice(None), [k for k in range(16) if k != 7])
    evaluator([cube_case("a", unlabelled=plane)], [CaseReport(tmp_path, NAMES)]).run()
    assert int((drawn["pred"] == 1).sum()) == 216
    assert int((drawn["label"] == 1).sum()) == 36 and int((drawn["label"] == -1).sum()) == 15 * 256
    assert drawn["title"] == "a"


def test_weights_and_warning_are_on_record(tmp_path, cube_case, evaluator, set_state):
    state = set_state(weights={"dataset": "kidney", "source": "/home/jane_doe/data"}, warning="loud")
    evaluator([cube_case("a")], [state, CaseReport(tmp_path / "out", NAMES, picture=False)]).run()
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["warning"] == "loud" and content["weights"] == {"dataset": "kidney", "source": "data"}


def test_nothing_is_scored_where_nothing_can_be_written(tmp_path, cube_case, evaluator):
    (tmp_path / "out").write_text("a file, not a folder")
    engine = evaluator([cube_case("a")], [CaseReport(tmp_path / "out", NAMES, picture=False)])
    with pytest.raises(InputError, match="out/.*can not be written.*choose another folder"):
        engine.run()
    assert engine.state.iteration == 0


def test_a_second_run_starts_anew(tmp_path, cube_case, evaluator):
    engine = evaluator([cube_case("x/a"), cube_case("y/a")], [CaseReport(tmp_path / "out", NAMES, picture=False)])
    engine.run()
    engine.run()
    assert list(rows(tmp_path / "out")) == [(case, name) for case in ("a", "y_a") for name in NAMES]


@pytest.mark.gpu
def test_scores_on_cuda_are_those_on_the_processor(tmp_path, cube_case, evaluator, threshold):
    case = [cube_case("a")]
    for device in ("cpu", "cuda"):
        network = threshold().to(device)
        evaluator(case, [CaseReport(tmp_path / device, NAMES)], network, device=device).run()
    for (name, wanted), found in zip(rows(tmp_path / "cpu").items(), rows(tmp_path / "cuda").values(), strict=True):
        for metric in ("dice", "iou", "nsd", "hd95_mm", "assd_mm"):
            if wanted[metric]:
                assert float(found[metric]) == pytest.approx(float(wanted[metric]), rel=1e-5), (name, metric)


def in_micrometres(case):
    for path in case.values():
        file = nibabel.load(path)
        file.header.set_xyzt_units("micron")
        nibabel.save(nibabel.Nifti1Image(np.asarray(file.dataobj), file.affine, file.header), path)
    return case


def test_a_tolerance_of_the_size_of_voxels_tells_surfaces_under_a_microscope_apart(
    tmp_path, cube_case, evaluator, caplog
):
    caplog.set_level("INFO")
    case = in_micrometres(cube_case("a"))  # cubes 3 micrometres apart, in all directions of their planes less
    found = {}
    for tolerance in (0.001, 0.004, 1.0):
        out = tmp_path / str(tolerance)
        evaluator([case], [CaseReport(out, NAMES, nsd_tolerance=tolerance, picture=False)]).run()
        found[tolerance] = float(rows(out)["a", "cube"]["nsd"])
        assert json.loads((out / "metrics.json").read_text())["nsd_tolerance_mm"] == tolerance
    assert found[0.001] < 0.9 and found[0.004] == found[1.0] == pytest.approx(1.0)
    assert float(rows(out)["a", "cube"]["hd95_mm"]) == pytest.approx(0.003)
    assert "0.003 " in caplog.text


class Failing(CaseEvaluator):
    """One case failed before this run's own."""

    @property
    def failures(self):
        return [{"case": "bad.nii.gz", "error": "no good"}, *super().failures]


def test_failed_cases_are_listed_beside_the_scores(tmp_path, cube_case, evaluator):
    out = tmp_path / "out"
    with pytest.raises(CasesFailed, match="bad.nii.gz: no good"):
        evaluator([cube_case("a")], [CaseReport(out, NAMES, picture=False)], kind=Failing).run()
    assert json.loads((out / "failures.json").read_text()) == [{"case": "bad.nii.gz", "error": "no good"}]
    assert json.loads((out / "metrics.json").read_text())["failed"] == ["bad.nii.gz"]
    assert ("a", "cube") in rows(out)
    evaluator([cube_case("a")], [CaseReport(out, NAMES, picture=False)], kind=CaseEvaluator).run()
    assert not (out / "failures.json").exists()


def test_a_case_whose_picture_fails_has_no_scores(tmp_path, cube_case, evaluator):
    out = tmp_path / "out"
    (out / "a_evaluation.png").mkdir(parents=True)
    with pytest.raises(CasesFailed, match=r"1 of 2 cases failed \(a\.nii\.gz"):
        evaluator([cube_case("a"), cube_case("b")], [CaseReport(out, NAMES)], kind=CaseEvaluator).run()
    assert {case for case, _ in rows(out)} == {"b"}


def test_vessels_are_shown_as_projections(tmp_path, cube_case, evaluator, monkeypatch):
    views = []
    monkeypatch.setattr(
        "common.handlers.case_report.prediction_figure", lambda *args, **more: views.append(more["view"])
    )
    evaluator([cube_case("a")], [CaseReport(tmp_path / "mip", NAMES, view="mip")]).run()
    evaluator([cube_case("a")], [CaseReport(tmp_path / "slices", NAMES)]).run()
    assert views == ["mip", "slices"]
    with pytest.raises(InputError, match="view is 'volume'.*slices, mip"):
        CaseReport(tmp_path, NAMES, view="volume")
