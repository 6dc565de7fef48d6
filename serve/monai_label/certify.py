"""Prove a packed bundle in a real MONAI Label over HTTP: what comes back equals ``python -m monai.bundle run``.

``python certify.py --bundle PACKED --work EMPTY --data DECATHLON``, in the server's environment. The last line is
RESULT with what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import proofs
import start
import twin
from client import Label

STEPS: tuple[Callable, ...] = (
    proofs.info,
    proofs.studies,
    proofs.upload,
    proofs.two_bundles,
    proofs.dicom,
    proofs.viewer,
    proofs.batch,
    proofs.bad_input,
    proofs.training,
    proofs.nothing_told,
)


def bundle_run(bundle: Path, dataset: Path, out: Path) -> dict[str, Path]:
    """Predict volumes as ``python -m monai.bundle run`` does.

    Args:
        bundle: the packed bundle.
        dataset: a volume, or a folder of them.
        out: an empty folder, or none yet.

    Returns:
        the labels' files, by the volumes' names without their ending.
    """
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    line += ["--dataset_dir", str(dataset), "--output_dir", str(out)]
    inside = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    ran = subprocess.run(line, cwd=bundle, env=inside, capture_output=True, text=True, check=False)
    found = {path.name.removesuffix("_seg.nii.gz"): path for path in out.rglob("*_seg.nii.gz")}
    if ran.returncode or not found:
        raise RuntimeError(f"monai.bundle run ended with {ran.returncode}: {(ran.stdout + ran.stderr)[-1500:]}")
    return found


def training_cases(data: Path, count: int) -> list[tuple[Path, Path]]:
    """The first images of a Decathlon folder, with their labels."""
    listed = json.loads((data / "dataset.json").read_text(encoding="utf-8"))["training"][:count]
    return [(data / case["image"], data / case["label"]) for case in listed]


FRESH = """
import sys, torch
from monai.bundle import ConfigParser
sys.path.insert(0, ".")
parser = ConfigParser()
parser.read_config("configs/inference.json")
torch.manual_seed(int(sys.argv[1]))
torch.save(parser.get_parsed_content("network_def").state_dict(), "models/model.pt")
"""


def telling_weights(bundle: Path, dataset: Path, work: Path) -> tuple[str, dict[str, Path]]:
    """Give a bundle weights whose answer has more than one value, so that an equal answer proves something.

    Args:
        bundle: a copy that is written into.
        dataset: what is answered.
        work: an empty folder.

    Returns:
        which weights these are: the bundle's own, or fresh ones where what was learnt in a moment finds nothing; and
        the answers.
    """
    told = "its own weights"
    for number in range(1, 5):
        answers = bundle_run(bundle, dataset, work / f"tried_{number}")
        if any(len(np.unique(np.asarray(nib.load(path).dataobj))) > 1 for path in answers.values()):
            return told, answers
        subprocess.run(
            [sys.executable, "-c", FRESH, str(number)], cwd=bundle, check=True, capture_output=True, text=True
        )
        told = f"fresh weights of seed {number}"
    return "weights that find nothing", bundle_run(bundle, dataset, work / "tried")


class Proof:
    """A running server, and what its answers are compared with.

    Args:
        bundle: the packed bundle.
        work: an empty folder.
        data: a Decathlon folder.
    """

    def __init__(self, bundle: Path, work: Path, data: Path) -> None:
        self.name, self.work = bundle.name, work
        self.figures: dict[str, float] = {}
        self.packed = Path(shutil.copytree(bundle, work / "packed" / bundle.name))
        self.studies = work / "studies"
        (self.studies / "labels" / "final").mkdir(parents=True)
        inputs = work / "inputs"  # the studies alone, without what the server keeps beside them
        inputs.mkdir()
        for number, (image, label) in enumerate(training_cases(data, 2)):
            shutil.copyfile(image, self.studies / f"study_{number}.nii.gz")
            shutil.copyfile(image, inputs / f"study_{number}.nii.gz")
            shutil.copyfile(label, self.studies / "labels" / "final" / f"study_{number}.nii.gz")
        self.images = sorted(self.studies.glob("*.nii.gz"))
        self.weights, answers = telling_weights(self.packed, inputs, work)
        self.twin = twin.make(self.packed, work / "packed" / f"{bundle.name}_twin")
        self.metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        self.private = work / "private"
        self.private.mkdir()
        names = {image: image.name.removesuffix(".nii.gz") for image in self.images}
        self._expected = {self._key(self.packed, image): answers[name] for image, name in names.items()}

    def expected(self, bundle: Path, image: Path) -> Path:
        """What `monai.bundle run` answers, run once for the same weights."""
        key = self._key(bundle, image)
        if key not in self._expected:
            (answer,) = bundle_run(bundle, image, self.work / f"run_{len(self._expected)}").values()
            self._expected[key] = answer
        return self._expected[key]

    @staticmethod
    def _key(bundle: Path, image: Path) -> tuple:
        return bundle, image, (bundle / "models" / "model.pt").stat().st_mtime_ns

    def serve(self) -> list[str]:
        """Start the server and take the steps; returns what each told."""
        tempfile.tempdir = str(self.private)  # where the server's private folder is made, to be looked at
        words = [str(self.packed), str(self.twin), "--studies", str(self.studies), "--app", str(self.work / "app")]
        given = start.parser().parse_args([*words, "--port", str(free_port())])
        names = start.prepare_app(given.app, given.bundles, sys.executable)
        told = []
        with open(self.work / "server.log", "wb") as log, start.running(given, names, sys.executable, log):
            self.label = Label(f"http://127.0.0.1:{given.port}")
            self.served = given.app / "model" / self.name
            for step in STEPS:
                began = time.perf_counter()
                told.append(step(self))
                print(f"{step.__name__}: {told[-1]} ({time.perf_counter() - began:.1f} s)", flush=True)
        if left := list(self.private.iterdir()):
            raise AssertionError(f"{len(left)} private folders were left behind")
        return told


def free_port() -> int:
    """A port above 18000 that nobody listens on."""
    for port in range(18200, 19000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no port is free")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name in ("bundle", "work", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    proof = None
    try:
        proof = Proof(given.bundle.resolve(), given.work.resolve(), given.data.resolve())
        proof.serve()
        equal = int(proof.figures["answers_equal"])
        result = {
            "passed": True,
            "told": f"{equal} answers over HTTP equal `monai.bundle run` voxel for voxel ({proof.weights})",
            "figures": proof.figures,
        }
    except Exception as error:
        log = given.work / "server.log"
        if log.is_file():
            print(log.read_text(errors="replace")[-6000:])
        result = {
            "passed": False,
            "told": f"{type(error).__name__}: {error}",
            "figures": proof.figures if proof else {},
        }
    print("RESULT " + json.dumps(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
