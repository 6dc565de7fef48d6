"""The frame: a copy for each step, weights from the training, what passed is not repeated, a failure ends nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretended_checkout import TRAIN, Checkout, pretended_pack

from common.certify import certification


@pytest.fixture(autouse=True)
def pretended(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(certification, "pack", pretended_pack)
    monkeypatch.setattr(certification, "_DATA", f"print('some words'); print({str(tmp_path / 'data')!r})")


def outcomes(steps: dict) -> dict:
    return {name: (one["passed"], one["told"]) for name, one in steps.items()}


def test_every_step_has_its_outcome_and_a_failing_one_ends_nothing(tmp_path):
    place = Checkout(tmp_path)
    steps = place.certify()
    assert outcomes(steps) == {
        "train": (True, "loss 0.5"),
        "infer": (True, "3 voxels"),
        "export": (None, "the tool says: no GPU"),
        "server": (False, "no line RESULT, status 3: a traceback"),
    }
    assert steps["infer"]["figures"] == {"voxels": 3}
    assert place.ran() == ["train", "infer", "export", "certify"]
    assert "a traceback" in (place.out / "toy" / "server.log").read_text()


def test_what_takes_minutes_is_told_before_it_begins(tmp_path, capfd):
    place = Checkout(tmp_path)
    place.certify("infer")
    place.certify("server")
    told = [line for line in capfd.readouterr().out.splitlines() if "environment" in line]
    names = [folder.name for folder in sorted((place.out / "environments").iterdir()) if folder.is_dir()]
    expected = [f"building the environment {name}, some minutes, once" for name in names]
    assert len(names) == 2 and [line.split(" (")[0] for line in told] == expected  # one line for each, and once
    place.certify("infer", "server")  # nothing is built any more
    assert "environment" not in capfd.readouterr().out


def test_a_script_runs_in_a_copy_of_its_own_and_away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("MONAI_X", "1")
    script = """
    assert (bundle / "models" / "model.pt").read_text() == "weights" and not list(work.iterdir())
    assert not (bundle / "litter").exists() and not (bundle / "models" / "resume.pt").exists()
    (bundle / "litter").write_text("of this step")
    assert os.environ["HOME"] in os.environ["VOLSEG_CACHE"]
    result(True, "")
    """
    place = Checkout(tmp_path, {"core/infer": script, "core/export": script})
    steps = place.certify("infer", "export")
    assert steps["infer"]["passed"] and steps["export"]["passed"], steps
    for name, words, cwd, variables in place.lines():
        assert cwd == words[1] == str(place.out / "toy" / "work" / name / "toy")
        assert words[2:4] == ["--work", str(place.out / "toy" / "work" / name / "work")]
        data = ["--data", str(tmp_path / "data")] if name != "train" else []
        assert words[4:] == data + (["--form", "x"] if name == "export" else [])
        assert not {"PYTHONPATH", "MONAI_X"} & set(variables)
        assert not Path(cwd).exists()  # what passed leaves nothing behind
    assert not (place.out / "toy" / "packed" / "toy" / "litter").exists()


def test_what_passed_is_not_repeated(tmp_path):
    place = Checkout(tmp_path)
    first = place.certify()
    place.ran()
    second = place.certify()
    assert outcomes(second) == outcomes(first) and second["infer"] == first["infer"]
    assert place.ran() == ["export", "certify"]  # what failed or is impossible here is tried again


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda place: place.write("core/infer", "result(True, 'other')"), ["infer"]),
        (lambda place: (place.root / "serve/core/helper.py").write_text("x = 1"), ["train", "infer"]),
        (lambda place: (place.root / "serve/core/requirements.txt").write_text("newer"), ["train", "infer"]),
        (lambda place: (place.root / "serve/server/requirements.txt").write_text("newer"), []),
        (lambda place: (place.bundle / "configs" / "more.json").write_text("{}"), ["train", "infer"]),
        (lambda place: (place.bundle / "models" / "model.pt").write_text("others"), []),
        (lambda place: (place.out / "toy" / "weights" / "model.pt").unlink(), ["train"]),
    ],
    ids=["script", "helper", "environment", "other environment", "bundle", "weights of the user", "weights lost"],
)
def test_a_step_is_repeated_when_what_it_rests_on_changed(tmp_path, change, again):
    place = Checkout(tmp_path)
    place.certify("infer")
    place.ran()
    change(place)
    place.certify("infer")
    assert place.ran() == again


def test_other_weights_of_the_training_repeat_what_rests_on_them(tmp_path):
    place = Checkout(tmp_path)
    place.certify("infer")
    place.write("core/train", TRAIN.replace('"weights"', '"newer"'))
    place.certify("infer")
    assert place.ran() == ["train", "infer"] * 2


def test_results_hold_what_is_true_of_the_bundle_now(tmp_path):
    place = Checkout(tmp_path)
    place.certify()
    assert list(place.certify("infer")) == ["train", "infer", "export", "server"]  # earlier outcomes count
    (place.bundle / "configs" / "more.json").write_text("{}")
    assert list(place.certify("infer")) == ["train", "infer"]  # those of another bundle do not


def test_an_environment_is_made_for_what_is_wanted_only(tmp_path):
    place = Checkout(tmp_path)
    place.certify("infer")
    assert "server" not in (place.out / "environments" / "builds.txt").read_text()
    place.certify("server")
    assert "server" in (place.out / "environments" / "builds.txt").read_text()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("result(False, 'loss is nan')", "loss is nan"),
        ("result(True, 'loss 0.5')", "the training left no models/model.pt"),
        (
            "(bundle / 'models').mkdir(); (bundle / 'models' / 'model.pt').touch(); result(True, '')",
            "models/model.json",
        ),
    ],
)
def test_without_weights_no_later_step_runs_and_all_have_failed(tmp_path, script, told):
    place = Checkout(tmp_path, {"core/train": script})
    steps = place.certify()
    assert told in steps["train"]["told"] and steps["train"]["passed"] is False
    for name in ("infer", "export", "server"):
        assert (steps[name]["passed"], steps[name]["told"]) == (False, "not run, since the training failed")
    assert place.ran() == ["train"]


def test_an_environment_that_can_not_be_made_fails_its_steps_alone(tmp_path):
    place = Checkout(tmp_path)
    (place.root / "serve/server/requirements.txt").write_text("broken")
    steps = place.certify()
    assert steps["server"]["told"] == "its environment could not be made: no such package: broken"
    assert steps["infer"]["passed"]


def test_an_environment_that_has_the_repository_on_its_path_is_refused(tmp_path, repository):
    import sys

    place = Checkout(tmp_path, wrapped=f'env PYTHONPATH={repository} {sys.executable} -S "$@"')
    told = place.certify("infer")["train"]["told"]
    assert "its environment is not clean: 'common' can be imported" in told


def test_a_script_that_is_not_there_has_failed(tmp_path):
    place = Checkout(tmp_path)
    (place.root / "serve/core/infer.py").unlink()
    assert outcomes(place.certify("infer"))["infer"] == (False, "there is no serve/core/infer.py")


def test_a_bundle_that_can_not_be_packed_fails_with_the_reason(tmp_path):
    place = Checkout(tmp_path)
    (place.bundle / "configs" / "unfit.json").write_text("{}")
    assert outcomes(place.certify("infer"))["infer"] == (False, "not run: the lint has 1 findings")


def test_a_bundle_without_data_of_its_own_fails_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(certification, "_DATA", "raise SystemExit('dataset_dir is null')")
    told = Checkout(tmp_path).certify("infer")["infer"]["told"]
    assert told == "not run: train.json gives no data set by itself (dataset_dir is null)"


def test_an_interrupted_certification_goes_on(tmp_path, monkeypatch):
    place = Checkout(tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    real = certification.run_logged
    monkeypatch.setattr(certification, "run_logged", lambda *a: interrupted() if "infer" in a[0][1] else real(*a))
    with pytest.raises(KeyboardInterrupt):
        place.certify()
    monkeypatch.setattr(certification, "run_logged", real)
    place.certify("infer")
    assert place.ran() == ["train", "infer"]
    assert set(json.loads((place.out / "toy" / "results.json").read_text())["steps"]) == {"train", "infer"}
