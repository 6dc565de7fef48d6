"""A study of a patient with a name, from DICOM to DICOM SEG, by lines that do run; the bundle is tiny and untrained."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from predicted import SECRETS, leaks, read, segmented, study
from sandbox import Sandbox

from common.dicom.series import find_series
from common.dicom.volume import stage_series

NAME = "ra_unet_liver"
# so that a network which has learnt nothing finds something
WORDS = "--localiser_threshold 0.01 --liver_threshold 0.01 --tumour_threshold 0.5 --device cpu"
_WEIGHTS = """
import torch
from monai.bundle import ConfigParser
from common.weights import save_weights
torch.manual_seed(1)
parser = ConfigParser()
parser.read_config("bundles/ra_unet_liver/configs/inference.json")
save_weights(parser.get_parsed_content("network_def"), "bundles/ra_unet_liver/models/model.pt", {"recipe": "paper"})
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Sandbox:
    """A checkout with weights, and two series of a study: as a folder beside a foreign file, and as a zip."""
    made = Sandbox.make(tmp_path_factory.mktemp("predict") / "checkout")
    made.run(f"python -c {shlex.quote(_WEIGHTS)}")
    rng = np.random.default_rng(0)
    stored = [rng.integers(900, 1200, (40, 36, 9)).astype(np.uint16) for _ in range(2)]
    study(made.folder / "Mustermann" / "a", 1, values=stored[0])
    (made.folder / "Mustermann" / "letter.txt").write_text("Dear Dr Secret")
    second = study(made.folder / "b", 2, values=stored[1])
    with zipfile.ZipFile(made.folder / "b.zip", "w") as archive:
        for file in second.iterdir():
            archive.write(file, f"Mustermann/{file.name}")
    return made


def _names(sandbox: Sandbox) -> list[str]:
    return [find_series(sandbox.folder / folder)[0].name for folder in ("Mustermann", "b")]


@pytest.fixture(scope="module")
def done(sandbox) -> subprocess.CompletedProcess[str]:
    """Both series segmented into ``seg``."""
    return sandbox.run(f"volseg predict {NAME} Mustermann b.zip --out seg {WORDS} --dicom_seg true")


@pytest.mark.slow
def test_from_dicom_to_dicom_seg(sandbox, done, tmp_path):
    names, out = _names(sandbox), sandbox.folder / "seg"
    assert [name for name in names if f"saved seg/{name}_seg.nii.gz" in done.stdout + done.stderr] == names
    told = done.stdout + done.stderr
    assert leaks(out, told) == []
    for name, folder in zip(names, ("Mustermann", "b"), strict=True):
        (series,) = find_series(sandbox.folder / folder)
        label = nibabel.load(out / f"{name}_seg.nii.gz")
        stored = np.asarray(label.dataobj)
        assert stored.shape == series.shape and len(np.unique(stored)) > 1
        assert (segmented(out / f"{name}_seg.dcm", 1, stored.shape) == (stored == 1)).all()
        report = read(out / f"{name}_report.json")
        assert report["input"]["modality"] == "CT" and report["label_file"] == f"{name}_seg.nii.gz"
        assert any("the bundle expects" in warning for warning in report["input"]["warnings"])
        # by the line of MONAI alone, on what is staged
        staged = stage_series(series, tmp_path)
        sandbox.run(f"{_printed(done.stdout, staged)} --output_dir {tmp_path / 'alone'}")
        alone = nibabel.load(tmp_path / "alone" / f"{name}_seg.nii.gz")
        assert (np.asarray(alone.dataobj) == stored).all() and (alone.affine == label.affine).all()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("series_*")}
    again = sandbox.run(f"volseg predict {NAME} Mustermann b.zip --out seg {WORDS} --dicom_seg true").stdout
    assert "2 of 2 cases are done already" in again and "$ python" not in again
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("series_*")} == before
    assert [case["dicom_seg"] for case in read(out / "predictions.json")["cases"]] == [f"{n}_seg.dcm" for n in names]


@pytest.mark.slow
def test_two_workers_make_the_same(sandbox, done):
    pytest.importorskip("distributed")
    line = f"volseg predict {NAME} Mustermann b.zip --out many {WORDS} --dicom_seg true --workers 2"
    told, one, many = sandbox.run(line), sandbox.folder / "seg", sandbox.folder / "many"
    assert told.stdout.count("$ python -m monai.bundle run") == 2
    assert leaks(many, told.stdout + told.stderr) == []
    assert {path.name for path in many.iterdir()} == {path.name for path in one.iterdir()}
    for name in _names(sandbox):
        assert (many / f"{name}_seg.nii.gz").read_bytes() == (one / f"{name}_seg.nii.gz").read_bytes()
        assert (
            segmented(many / f"{name}_seg.dcm", 1, (40, 36, 9)) == segmented(one / f"{name}_seg.dcm", 1, (40, 36, 9))
        ).all()
    requests = [read(folder / "predict.json")["request"] for folder in (one, many)]
    assert requests[0] == requests[1]


def _printed(told: str, staged: Path) -> str:
    """The line that was printed, on another input and without its folder of results."""
    words = shlex.split(next(line.removeprefix("$ ") for line in told.splitlines() if line.startswith("$ ")))
    assert words[words.index("--dataset_dir") + 1] == "seg/.staged"
    words[words.index("--dataset_dir") + 1] = str(staged)
    del words[(place := words.index("--output_dir")) : place + 2]
    return shlex.join(words)


@pytest.mark.slow
def test_a_signal_to_terminate_leaves_nothing_private(sandbox):
    out = sandbox.folder / "ended"
    command = ["bash", "-c", f"exec volseg predict {NAME} Mustermann b.zip --out ended {WORDS}"]
    with subprocess.Popen(
        command, cwd=sandbox.folder, env=sandbox.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        while not list(out.glob(".staged/dataset.json")):
            time.sleep(0.05)
            assert process.poll() is None
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert not (out / ".staged").exists()
    assert not any(secret in json.dumps([path.name for path in out.iterdir()]) for secret in SECRETS)
