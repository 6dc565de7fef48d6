"""Random 2.5D U-Net on recorded angiographies: trained on phantoms alone, run on volumes that are nothing like them.

    python benchmarks/recorded_mra.py --data FOLDER --out FOLDER
    python benchmarks/recorded_mra.py --data FOLDER --out FOLDER --overlays small --set epochs=12 --axes aorta=RSA

FOLDER is a Decathlon folder of MR angiographies; its labels, where there are any, may cover a part of the vessels.
Training and prediction are lines of `python -m monai.bundle run`, logged in the output folder; a training that was
killed goes on. Every listed volume, labelled or not, is segmented; the figure of each (maximum projections, with what
was found over them) lies in `prediction/`.

A labelled volume is scored inside the bounding box of its label, since nobody drew what lies outside, against the best
that a threshold could do there, chosen in hindsight. The U-Net has seen neither volume: the figures show that the
bundle runs on recorded data, and how far phantoms carry; they say nothing about accuracy after training on such data.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.cli.launch import bundle_command, shown  # noqa: E402
from common.cli.locate import config_file  # noqa: E402
from common.data.decathlon import read_dataset  # noqa: E402
from common.files import atomic_path, read_json  # noqa: E402
from common.metrics.stages import markdown_grid  # noqa: E402

BUNDLE = ROOT / "bundles" / "random25d_mra"
STEPS = 100  # thresholds tried


def run(name: str, out: Path, command: list[str]) -> None:
    """Run a line, with its log."""
    with open(out / f"{name}.log", "a", encoding="utf-8") as stream:
        stream.write(f"$ {shown(command)}\n")
        stream.flush()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=stream, stderr=stream)


def known(names: list[str], given: dict[str, str]) -> dict[str, str]:
    """Of the settings given, those that one of the bundle's configs has at its top."""
    entries = {entry for name in names for entry in read_json(config_file(BUNDLE, name))}
    return {name: value for name, value in given.items() if name in entries}


def canonical(path: Path) -> np.ndarray:
    """A volume with its axes to the right, front and head, as its header has them."""
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Of two masks."""
    return 2 * float((first & second).sum()) / max(float(first.sum() + second.sum()), 1.0)


def renamed(path: Path, axcodes: str, folder: Path) -> Path:
    """A copy of a volume whose header calls its axes `axcodes`, each of them of the same spacing as before."""
    volume = nibabel.load(path)
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, (world, sign) in enumerate(nibabel.orientations.axcodes2ornt(axcodes)):
        affine[int(world), axis] = sign * volume.header.get_zooms()[axis]
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume.dataobj), affine), folder / path.name)
    return folder / path.name


def scores(image: Path, label: Path, predicted: Path) -> list[str]:
    """What was found inside the box of the label: Dice, recall, precision, and the best threshold's Dice."""
    truth = canonical(label) > 0
    corners = np.argwhere(truth)
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(corners.min(0), corners.max(0), strict=True))
    truth, found, intensity = truth[box], canonical(predicted)[box] > 0, canonical(image)[box]
    levels = np.linspace(float(intensity.min()), float(intensity.max()), STEPS)
    best = max(dice(intensity >= level, truth) for level in levels)
    both = float((found & truth).sum())
    shares = (both / max(float(mask.sum()), 1.0) for mask in (truth, found))
    return [f"{value:.3f}" for value in (dice(found, truth), *shares, best)]


def main() -> int:
    """Train, predict, score, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a Decathlon folder (dataset.json) of angiographies")
    parser.add_argument("--out", required=True, help="where weights, logs and results go")
    parser.add_argument("--overlays", default="", help="configs laid over train.json and inference.json, in order")
    parser.add_argument("--training", default="", help="overlays of the training alone, after these")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="config entries")
    parser.add_argument(
        "--axes",
        nargs="+",
        default=[],
        metavar="PART=AXCODES",
        help="what the axes of volumes with PART in their name really are, where the header calls them otherwise",
    )
    options = parser.parse_args()
    out = Path(options.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    overlays = [name for name in options.overlays.split(",") if name]
    training = [*overlays, *(name for name in options.training.split(",") if name)]
    given, axes = (dict(pair.split("=", 1) for pair in pairs) for pairs in (options.set, options.axes))
    places = {"bundle_root": BUNDLE, "model_path": out / "model.pt"}

    begun = time.perf_counter()
    settings = {**known(["train", *training], given), **places, "output_dir": out / "training", "resume": True}
    run("train", out, bundle_command([config_file(BUNDLE, name) for name in ("train", *training)], settings))
    minutes = (time.perf_counter() - begun) / 60

    folder, content = read_dataset(options.data)
    cases = [(folder / entry["image"], folder / entry["label"]) for entry in content["training"]]
    cases += [(folder / entry, None) for entry in content.get("test", [])]
    lines = [["volume", "seconds", "voxels found", "Dice", "recall", "precision", "best threshold's Dice"]]
    for image, label in cases:
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        if codes := next((codes for part, codes in axes.items() if part in name), None):
            image, label = (
                path and renamed(path, codes, out / "renamed" / path.parent.name) for path in (image, label)
            )
        settings = {**known(["inference", *overlays], given), **places, "output_dir": out / "prediction"}
        settings |= {"dataset_dir": image}
        run("predict", out, bundle_command([config_file(BUNDLE, one) for one in ("inference", *overlays)], settings))
        predicted = out / "prediction" / f"{name}_seg.nii.gz"
        report = read_json(out / "prediction" / f"{name}_report.json")
        scored = scores(image, label, predicted) if label else ["-"] * 4
        lines.append([name, f"{report['seconds']:.1f}", str(int((canonical(predicted) > 0).sum())), *scored])
    parts = [
        "# Random 2.5D U-Net, trained on phantoms, on recorded angiographies",
        f"Settings: {' '.join(options.set) or 'none'}; overlays: {', '.join(training) or 'none'}; this run's training "
        f"took {minutes:.1f} minutes. Scores inside the box of the label; figures in `prediction/`.",
        markdown_grid(lines, 1),
    ]
    text = "\n\n".join(parts)
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
