"""Packed bundles in a real MONAI Label, in its own environment (made at the first call, minutes; then kept)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from environments import built_python
from packed import make_work, pack_tiny

from common.data.phantoms.registry import phantom_dataset
from common.files import read_json

# untrained networks find something at once
EAGER = {
    "cascaded_multiorgan": {},
    "ra_unet_liver": {"localiser_threshold": 0.4, "liver_threshold": 0.4},
    "random25d_mra": {"threshold": 0.01},
    "ru_net_colorectal": {"locator_threshold": 0.3},
    "unet3d_sparse": {},
}


@pytest.fixture(scope="module")
def python() -> Path:
    return built_python("monai_label")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work(tmp_path_factory.mktemp("label"))


@pytest.fixture(scope="module")
def packed(repository, work) -> dict[str, Path]:
    """All bundles in miniature."""
    made = {}
    for name, eager in EAGER.items():
        tiny = read_json(repository / "tests" / "bundles" / f"{name}.json")["configs"] | eager
        made[name] = pack_tiny(repository / "bundles" / name, work, {"recipe": "small"} | tiny)
    return made


def phantom(repository: Path, name: str, work: Path) -> Path:
    """The folder of a bundle's phantom in miniature: two cases."""
    given = read_json(repository / "tests" / "bundles" / f"{name}.json")["configs"]["dataset_dir"]
    return Path(phantom_dataset(given["name"], cases=2, size=given["size"], cache_dir=work / "made"))


def run(python: Path, work: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Something in the server's environment, where the repository is not."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_", "MONAI_"))}
    inside = kept | {"VOLSEG_CACHE": str(work / "cache"), "HOME": str(work), "OMP_NUM_THREADS": "1"}
    return subprocess.run([str(python), *words], cwd=cwd, env=inside, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EAGER))
def test_a_bundle_is_certified(repository, python, work, packed, tmp_path, name):
    script = str(repository / "serve" / "monai_label" / "certify.py")
    data = str(phantom(repository, name, work))
    words = ("--bundle", str(packed[name]), "--work", str(tmp_path), "--data", data)
    done = run(python, work, packed[name], script, *words)
    told = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert told["passed"] and done.returncode == 0, (told, (done.stdout + done.stderr)[-4000:])
    assert told["figures"]["answers_equal"] >= 10 and told["figures"]["voxels_labelled"] > 0
    assert told["figures"]["bad_requests_refused"] >= 42 and told["figures"]["voxels_that_tell_the_twin"] > 0


@pytest.mark.slow
def test_the_guard_hands_on_what_is_right_and_leaves_nothing(repository, python, work, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = Path(__file__).with_name("guard_script.py")
    done = run(python, work, tmp_path, str(script), str(repository / "serve" / "monai_label"))
    assert done.stdout.endswith("guarded\n"), done.stdout + done.stderr


# starts the server by the module itself, asks every bundle once, and waits for the end of its input
SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
import start
given = start.parser().parse_args(sys.argv[2:])
names = start.prepare_app(given.app, given.bundles, sys.executable)
with start.running(given, names, sys.executable, open("server.log", "wb")):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_all_bundles_in_one_server_answer_as_each_alone(repository, python, work, packed, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in EAGER:
        source = min((phantom(repository, name, work) / "imagesTr").glob("*.nii.gz"))
        (studies / f"{name}.nii.gz").write_bytes(source.read_bytes())
    port = "18391"
    words = [*map(str, packed.values()), "--studies", str(studies), "--app", str(tmp_path / "app"), "--port", port]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_", "MONAI_"))}
    inside = kept | {"VOLSEG_CACHE": str(work / "cache"), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    code = [str(python), "-c", SERVE, str(repository / "serve" / "monai_label"), *words]
    server = subprocess.Popen(code, cwd=tmp_path, env=inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().strip() == "ready", (tmp_path / "server.log").read_text()[-3000:]
        ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        answers = {}
        for name in [*EAGER, *reversed(EAGER)]:  # each again after the others
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/infer/{name}?image={name}&output=image", method="POST"
            )
            path = tmp_path / f"{name}.nii.gz"
            path.write_bytes(ask(request, timeout=600).read())
            answer = np.asarray(nib.load(path).dataobj)
            assert np.array_equal(answers.setdefault(name, answer), answer)
    finally:
        server.stdin.close()
        server.wait(60)
    assert not list(tmp_path.glob("monai_label_*"))  # sessions and temporary files go with the server
    for name, answer in answers.items():
        words = ("-m", "monai.bundle", "run", "--config_file", "configs/inference.json")
        out = tmp_path / f"run_{name}"
        image = ("--dataset_dir", str(studies / f"{name}.nii.gz"), "--output_dir", str(out))
        done = run(python, work, packed[name], *words, *image)
        assert done.returncode == 0, done.stderr[-3000:]
        expected = np.asarray(nib.load(next(out.rglob("*_seg.nii.gz"))).dataobj)
        assert expected.any() and np.array_equal(answer, expected), name


@pytest.mark.slow
def test_the_script_starts_a_server_and_cleans_up_after_a_signal(repository, python, work, packed, tmp_path):
    script = str(repository / "serve" / "monai_label" / "start.py")
    words = [str(packed["random25d_mra"]), "--studies", "studies", "--port", "18392"]
    words += ["--environment", str(python.parents[1])]  # made already, and found to be so
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_", "MONAI_"))}
    server = subprocess.Popen(
        [sys.executable, script, *words],
        cwd=tmp_path,
        env=kept | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        for line in iter(server.stdout.readline, ""):
            lines.append(line)
            if "serves random25d_mra" in line:
                break
        assert "127.0.0.1:18392" in lines[-1], "".join(lines)[-3000:]
        (private,) = temporary.glob("monai_label_*")
        assert private.stat().st_mode & 0o777 == 0o700
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 143 and not private.exists()
