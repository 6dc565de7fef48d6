"""Packed bundles in the real MONAI Deploy SDK, in its own environment (made at the first call, minutes; then kept)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
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
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> Path:
    return built_python("monai_deploy")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work(tmp_path_factory.mktemp("deploy"))


@pytest.fixture(scope="module")
def packed(repository, work):
    """A bundle in miniature, packed at its first call."""
    made: dict[str, Path] = {}

    def packed(name: str) -> Path:
        if name not in made:
            tiny = read_json(repository / "tests" / "bundles" / f"{name}.json")["configs"] | EAGER[name]
            made[name] = pack_tiny(repository / "bundles" / name, work, {"recipe": "small"} | tiny)
        return made[name]

    return packed


@pytest.fixture(scope="module")
def made_series(repository):
    """The module that writes series."""
    path = repository / "serve" / "monai_deploy" / "made_series.py"
    spec = importlib.util.spec_from_file_location("made_series_of_deploy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def phantom(repository: Path, name: str, work: Path) -> Path:
    """The folder of a bundle's phantom in miniature: two cases."""
    given = read_json(repository / "tests" / "bundles" / f"{name}.json")["configs"]["dataset_dir"]
    return Path(phantom_dataset(given["name"], cases=2, size=given["size"], cache_dir=work / "made"))


def run(python: Path, work: Path, script: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the SDK's environment, where the repository is not; both streams are one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_", "MONAI_"))}
    inside = kept | {"VOLSEG_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [str(python), str(script), *words],
        cwd=work,
        env=inside,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(EAGER))
def test_a_bundle_is_certified(repository, python, work, packed, tmp_path, name):
    """From an oblique series with reversed slices to DICOM SEG, equal to what the bundle says by itself."""
    script = repository / "serve" / "monai_deploy" / "certify.py"
    data = phantom(repository, name, work)
    done = run(python, work, script, "--bundle", str(packed(name)), "--work", str(tmp_path), "--data", str(data))
    told = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert told["passed"] and done.returncode == 0, done.stdout[-4000:]
    assert told["figures"]["different"] == 0 and told["figures"]["labelled"] > 0
    assert ("DICOM SEG" in told["told"]) == (name != "unet3d_sparse")


@pytest.fixture
def asked(repository, python, work, made_series, tmp_path):
    """Run the application by the variables of its package; what it says names nobody, and no answer is left behind."""
    (tmp_path / "Mustermann").mkdir()

    def asked(bundle: Path, status: int) -> str:
        places = {"INPUT": tmp_path / "Mustermann", "OUTPUT": tmp_path / "out", "MODEL": bundle}
        variables = {f"HOLOSCAN_{name}_PATH": str(place) for name, place in places.items()}
        done = run(python, work, repository / "serve" / "monai_deploy" / "app.py", **variables)
        assert done.returncode == status, done.stdout[-4000:]
        names = [part for value in made_series.PATIENT.values() for part in value.split("^") if len(part) > 3]
        assert not any(name in done.stdout for name in names), done.stdout
        assert not list((tmp_path / "out").glob("**/*"))
        return done.stdout

    return asked


def write(made_series, folder: Path, modality: str = "CT", change=None, values=None) -> None:
    values = np.random.default_rng(0).integers(-900, 900, (24, 20, 16)).astype(float) if values is None else values
    made_series.write_series(values, np.diag([-3.0, -3.0, 4.0, 1.0]), folder, modality, change=change)


def _without_pixels(one: pydicom.Dataset, number: int) -> None:
    if number == 7:
        del one.PixelData


def _unreadable(one: pydicom.Dataset, number: int) -> None:
    one.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    one.PixelData = pydicom.encaps.encapsulate([b"no picture at all"])
    one["PixelData"].is_undefined_length = True


BAD = {
    "nothing": (None, "no DICOM image series was found"),
    "no pixels": ({"change": _without_pixels}, "has no pixels"),
    "unreadable": ({"change": _unreadable}, "JPEG 2000"),
    "wrong modality": ({"modality": "MR"}, "it expects CT"),
    "not in Hounsfield units": ({"values": np.random.default_rng(0).random((24, 20, 16))}, "before it was normalised"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_input_is_refused(asked, packed, made_series, tmp_path, kind):
    given, match = BAD[kind]
    if given is None:
        (tmp_path / "Mustermann" / "Mustermann.dcm").write_text("of Mustermann")
    else:
        write(made_series, tmp_path / "Mustermann", **given)
    told = asked(packed("ra_unet_liver"), 2)
    assert told.startswith("Refused: ") or "\nRefused: " in told, told
    assert match in told and "Traceback" not in told


def test_a_series_for_a_bundle_without_codes_is_refused(asked, packed, made_series, tmp_path):
    write(made_series, tmp_path / "Mustermann")
    assert "the bundle names no codes for its classes" in asked(packed("unet3d_sparse"), 2)


def test_a_model_folder_without_a_bundle_is_refused(asked, made_series, tmp_path):
    write(made_series, tmp_path / "Mustermann")
    assert "the model folder holds 0 bundles" in asked(tmp_path, 2)


def test_an_error_that_nobody_foresaw_is_told_without_its_text(asked, packed, made_series, tmp_path):
    """Weights that are none: another status; the texts of libraries, which may quote anything, are kept back."""
    write(made_series, tmp_path / "Mustermann")
    bundle = tmp_path / "bundle"
    shutil.copytree(packed("ra_unet_liver"), bundle)
    (bundle / "models" / "model.pt").write_bytes(b"of Mustermann")
    told = asked(bundle, 1)
    assert "--verbose shows its text" in told


def test_a_nifti_volume_is_answered_in_nifti(repository, python, work, packed, tmp_path):
    """By the words of the command line; the answer lies on the volume's own grid."""
    given = next((phantom(repository, "unet3d_sparse", work) / "imagesTr").glob("*.nii.gz"))
    (tmp_path / "in").mkdir()
    shutil.copy(given, tmp_path / "in")
    words = ["-i", str(tmp_path / "in"), "-o", str(tmp_path), "-m", str(packed("unet3d_sparse"))]
    done = run(python, work, repository / "serve" / "monai_deploy" / "app.py", *words)
    assert done.returncode == 0, done.stdout[-4000:]
    answer, image = nib.load(tmp_path / "volume_seg.nii.gz"), nib.load(given)
    assert answer.shape == image.shape[:3] and np.allclose(answer.affine, image.affine, atol=1e-4)
