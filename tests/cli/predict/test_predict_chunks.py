"""Predictions spread over processes: their results are put together, whatever ends the run; workers are pretended."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from predicted import Line, read, study, volume

from common.checks import InputError
from common.cli.cluster.chunks import ChunkResult
from common.cli.commands import main
from common.cli.predict import command
from common.dicom.series import find_series

NAME = "ra_unet_liver"


class Workers:
    """Stands in for `run_chunks`: runs the pretended line in this process, and stops where it is told to.

    Attributes:
        end_after: number of chunks after which `error` is raised.
        options: that it was called with.
    """

    def __init__(self, line: Line) -> None:
        self.line, self.end_after, self.error, self.options = line, None, KeyboardInterrupt(), {}

    def __call__(
        self, chunks: Sequence[Sequence[Path]], made: Callable, place: Path, *cluster: object, **options: object
    ) -> list[ChunkResult]:
        self.options = {"cluster": cluster, **options}
        results = []
        for number, chunk in enumerate(chunks, 1):
            if number - 1 == self.end_after:
                raise self.error
            part = place / f"part_{number}.1"
            part.mkdir(parents=True)
            self.line(made(chunk, part))
            failed = read(part / "failures.json") if (part / "failures.json").is_file() else []
            results.append(ChunkResult(tuple(chunk), (part,), tuple(failed)))
        return results


@pytest.fixture
def workers(repository, monkeypatch) -> Workers:
    monkeypatch.chdir(repository)
    made = Workers(Line())
    monkeypatch.setattr(command, "launch", made.line)
    monkeypatch.setattr(command, "run_chunks", made)
    monkeypatch.setattr(command, "check_weights", lambda *_: None)  # a pretended line needs none
    return made


@pytest.fixture
def inputs(tmp_path) -> list[str]:
    """Two files of one name, one that fails, and a series."""
    files = [volume(tmp_path / name, seed) for seed, name in enumerate(("p/a.nii.gz", "q/a.nii.gz", "p/broken.nii.gz"))]
    return [*map(str, files), str(study(tmp_path / "ct"))]


def _labels(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*_seg.nii.gz")}


def test_results_are_those_of_a_single_line(workers, inputs, tmp_path):
    words = ["predict", NAME, *inputs]
    assert main([*words, "--out", str(tmp_path / "one")]) == 2
    assert main([*words, "--out", str(tmp_path / "many"), "--workers", "2", "--device", "cpu"]) == 2
    assert workers.options == {"cluster": (2, None, None), "device": "cpu"}
    assert len(workers.line.commands) == 5  # one for all, then one for each
    assert all(Path(name).is_absolute() for name in ast.literal_eval(workers.line.last["dataset_dir"]))
    assert _labels(tmp_path / "many") == _labels(tmp_path / "one") and len(_labels(tmp_path / "one")) == 3
    lists = [read(tmp_path / folder / "predictions.json") for folder in ("one", "many")]
    for content in lists:
        for case in content["cases"]:
            del case["run"]
    assert lists[0] == lists[1] and [case["case"] for case in lists[0]["cases"]][:2] == ["a", "q_a"]
    assert read(tmp_path / "many" / "failures.json") == [
        {"case": "broken.nii.gz", "error": "'broken.nii.gz' is broken"}
    ]
    kept = {path.name for path in (tmp_path / "many").iterdir()}
    assert kept == {path.name for path in (tmp_path / "one").iterdir()}


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (InputError("there was no worker for 120 s"), 2)]
)
def test_what_is_done_is_in_place_when_the_run_ends_early(workers, inputs, tmp_path, capsys, error, status):
    out = tmp_path / "seg"
    words = ["predict", NAME, *inputs, "--out", str(out), "--workers", "2", "--device", "cpu"]
    workers.end_after, workers.error = 2, error
    assert main(words) == status
    told = capsys.readouterr().err
    assert ("the same line goes on" if status == 130 else "there was no worker") in told
    assert [case["case"] for case in read(out / "predictions.json")["cases"]] == ["a", "q_a"]
    assert not (out / ".staged").exists()
    workers.end_after = None
    assert main(words) == 2
    (series,) = find_series(Path(inputs[-1]))
    assert workers.line.names == [series.name] and len(workers.line.commands) == 4
    assert len(read(out / "predictions.json")["cases"]) == 3


def test_keys_of_a_scheduler_are_handed_on(workers, inputs, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(command, "check_cluster", lambda *cluster: asked.append(cluster))
    words = ["--scheduler", "tls://host:8786", "--tls", str(tmp_path / "keys")]
    assert main(["predict", NAME, inputs[0], "--out", str(tmp_path / "seg"), *words]) == 0
    assert workers.options == {"cluster": (None, "tls://host:8786", tmp_path / "keys"), "device": None}
    assert asked == [(None, "tls://host:8786", tmp_path / "keys", None)]
