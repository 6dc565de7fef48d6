"""Parts of a study put together: what one process would have left, at whatever moment the work was stopped."""

from __future__ import annotations

import json

import pytest

from common.cli import gathering
from common.cli.gathering import finished_cases, gather


def part(folder, *names, failures=(), ended=True):
    """A folder as a prediction of some cases leaves it."""
    folder.mkdir(parents=True)
    reports = [{"case": name, "found": True} for name in names]
    for report in reports:
        name = report["case"]
        (folder / f"{name}_seg.nii.gz").write_text(f"label of {name} in {folder.name}")
        (folder / f"{name}.png").touch()
        content = {**report, "weights": {"file": "model.pt"}, "versions": {"torch": "2"}}
        (folder / f"{name}_report.json").write_text(json.dumps(content))
    failures = [{"case": case, "error": "no good"} for case in failures]
    if ended:
        content = {"weights": {"file": "model.pt"}, "versions": {"torch": "2"}, "cases": reports, "failures": failures}
        (folder / "predictions.json").write_text(json.dumps(content))
    if failures:
        (folder / "failures.json").write_text(json.dumps(failures))
    return folder


def files(folder):
    """All files below a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_parts_become_what_one_process_leaves(tmp_path):
    whole = part(tmp_path / "part", "a", "b", "c", failures=["d.nii.gz", "e.nii.gz"])
    expected = files(whole)
    parts = [tmp_path / "1" / "part", tmp_path / "2" / "part"]
    part(parts[0], "c", "a", failures=["e.nii.gz"])
    part(parts[1], "b", failures=["d.nii.gz"])
    assert gather(parts, tmp_path / "out") == ["a", "b", "c"]
    found = files(tmp_path / "out")
    lists = ("predictions.json", "failures.json")
    for name in lists:
        assert json.loads(found.pop(name)) == json.loads(expected.pop(name))
    assert found == expected
    assert not any(path.exists() for path in parts)


def test_a_case_that_was_not_done_stays_behind(tmp_path):
    place = part(tmp_path / "part", "a", ended=False)
    for name in ("b_seg.nii.gz", "a_b_seg.nii.gz", ".1234.a_extra.nii.gz"):
        (place / name).touch()
    (place / "a_b_report.json").write_text(json.dumps({"case": "a_b"}))
    assert gather([place], tmp_path / "out") == ["a", "a_b"]
    assert finished_cases(tmp_path / "out") == {"a", "a_b"}
    assert sorted(path.name for path in place.iterdir()) == [".1234.a_extra.nii.gz", "b_seg.nii.gz"]


def test_cases_of_earlier_runs_stay_in_the_lists_and_new_ones_replace_them(tmp_path):
    out = part(tmp_path / "out", "a", "b", failures=["c.nii", "d.nii"])
    gather([part(tmp_path / "part", "b", "c")], out, [{"case": "e.nii", "error": "lost"}])
    told = json.loads((out / "predictions.json").read_text())
    assert [case["case"] for case in told["cases"]] == ["a", "b", "c"]
    assert [failure["case"] for failure in told["failures"]] == ["d.nii", "e.nii"]
    assert json.loads((out / "failures.json").read_text()) == told["failures"]
    assert (out / "b_seg.nii.gz").read_text() == "label of b in part"


def test_a_case_is_in_one_list(tmp_path):
    out = part(tmp_path / "out", "a", "b")
    gather([part(tmp_path / "part", failures=["a.nii.gz"])], out)
    told = json.loads((out / "predictions.json").read_text())
    assert [case["case"] for case in told["cases"]] == ["b"] and told["failures"][0]["case"] == "a.nii.gz"


def test_without_failures_there_is_no_list_of_them(tmp_path):
    out = part(tmp_path / "out", failures=["a.nii"])
    gather([part(tmp_path / "part", "a")], out)
    assert not (out / "failures.json").exists()


def test_what_is_no_folder_is_passed_over(tmp_path):
    (tmp_path / "part_1.log").touch()
    assert gather([tmp_path / "part_1.log", tmp_path / "absent"], tmp_path / "out") == []
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_files_in_folders_of_cases_keep_their_places(tmp_path):
    place = part(tmp_path / "part", "a")
    (place / "maps").mkdir()
    (place / "maps" / "a_uncertainty.nii.gz").write_text("map")
    gather([place], tmp_path / "out")
    assert (tmp_path / "out" / "maps" / "a_uncertainty.nii.gz").read_text() == "map"


@pytest.mark.parametrize("moves", range(9))
def test_gathering_goes_on_where_it_was_stopped(tmp_path, monkeypatch, moves):
    parts = [part(tmp_path / "1", "a", failures=["d.nii"]), part(tmp_path / "2", "b", "c")]
    left, move = [moves], gathering._move

    def stopped(path, target):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        move(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gathering, "_move", stopped)
        gather(parts, tmp_path / "out")
    assert all((tmp_path / "out" / f"{name}.png").exists() for name in finished_cases(tmp_path / "out"))
    gather([folder for folder in parts if folder.exists()], tmp_path / "out")
    told = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [case["case"] for case in told["cases"]] == ["a", "b", "c"]
    assert [failure["case"] for failure in told["failures"]] == ["d.nii"]
    assert finished_cases(tmp_path / "out") == {"a", "b", "c"}
