"""RA-UNet at full clinical size: trained on phantoms and part of a recorded CT, run on the whole of it.

    python benchmarks/recorded_liver.py --data FOLDER --out FOLDER
    python benchmarks/recorded_liver.py --data FOLDER --out FOLDER --overlays demo --set width=4 liver_size=[128,128]

FOLDER is a Decathlon folder whose first case is a CT with a labelled liver. The upper part of it, cut at `--cut` of its
height, and phantoms are the training set; one phantom is held out. Training and prediction are lines of
`python -m monai.bundle run`, logged in the output folder; a training that was killed goes on. Then, in fresh processes,
the pipeline is run up to each stage on the recorded volume, for its seconds and peak memory.

`table.md` tells: Dice of the liver in the whole volume and in the slices that were not trained on, how much of the
liver lies in the localiser's box, what was taken for tumour, and the cost of each stage. One volume shows that the
pipeline runs at this size and learns; it says nothing about accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from measure import peak_of, times
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.cli.launch import bundle_command, shown  # noqa: E402
from common.cli.locate import config_file  # noqa: E402
from common.data.cases import training_cases  # noqa: E402
from common.data.decathlon import atomic_folder, read_dataset, write_dataset  # noqa: E402
from common.data.phantoms.registry import phantom_dataset  # noqa: E402
from common.files import atomic_path, read_json  # noqa: E402
from common.metrics.stages import markdown_grid  # noqa: E402

BUNDLE = ROOT / "bundles" / "ra_unet_liver"
STAGES = ("localiser", "liver", "tumour")
MIB = 2**20


class Run:
    """Where things lie and what was asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out, self.cut = Path(options.out).resolve(), options.cut
        self.recorded = training_cases(options.data, "all")[0]
        self.overlays = [name for name in options.overlays.split(",") if name]
        self.given = {name: plain(text) for name, text in (pair.split("=", 1) for pair in options.set)}
        self.model = self.out / "model.pt"

    def configs(self, *base: str) -> list[Path]:
        """Files of a line: the configs `base`, and the overlays, of which prediction takes those that fit it."""
        files = [config_file(BUNDLE, name) for name in base]
        known = ConfigParser.load_config_files([str(path) for path in files])
        overlays = [config_file(BUNDLE, name) for name in self.overlays]
        return [*files, *(one for one in overlays if "train" in known or read_json(one).keys() <= known.keys())]

    def command(self, *base: str, **places: object) -> list[str]:
        """A line of MONAI over the configs `base` and the overlays."""
        configs = self.configs(*base)
        known = ConfigParser.load_config_files([str(path) for path in configs])
        chosen = {name: value for name, value in self.given.items() if name in known}
        return bundle_command(configs, {**chosen, "bundle_root": BUNDLE, "model_path": self.model, **places})

    def run(self, name: str, command: list[str]) -> None:
        """Run a line, with its log."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(self.out / f"{name}.log", "a", encoding="utf-8") as stream:
            stream.write(f"$ {shown(command)}\n")
            stream.flush()
            subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=stream, stderr=stream)


def plain(text: str) -> object:
    """A value of the command line as JSON has it; what is no JSON is text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def first_slice(label: nibabel.Nifti1Image, cut: float) -> int:
    """The slice at which the part that is trained on begins."""
    return int(cut * label.shape[2])


def make_dataset(run: Run, phantoms: int, size: list[int]) -> Path:
    """Phantoms and the upper part of the recorded volume, as one Decathlon folder."""
    folder = run.out / "dataset"
    if (folder / "dataset.json").is_file():
        return folder
    source = Path(phantom_dataset("liver_ct", cases=phantoms, size=size))
    _, content = read_dataset(source)
    with atomic_folder(folder) as temporary:
        names = []
        for case in training_cases(source, "all"):
            names.append(Path(case["image"]).name.removesuffix(".nii.gz"))
            for key, part in (("image", "imagesTr"), ("label", "labelsTr")):
                (temporary / part).mkdir(exist_ok=True)
                shutil.copy(case[key], temporary / part)
        for key, part in (("image", "imagesTr"), ("label", "labelsTr")):
            volume = nibabel.as_closest_canonical(nibabel.load(run.recorded[key]))
            upper = volume.slicer[:, :, first_slice(volume, run.cut) :]
            nibabel.save(upper, temporary / part / "recorded_upper.nii.gz")
        kept = {key: content[key] for key in ("modality", "labels")}
        described = {"name": "phantoms_and_part_of_a_recorded_liver", "licence": "that of the recorded case", **kept}
        write_dataset(temporary, described, [*names, "recorded_upper"])
    return folder


def held_out_phantom(folder: Path, cases: int) -> int:
    """A fold, of as many as there are cases, that holds out a phantom and not the recorded part."""
    for fold in range(cases):
        (case,) = training_cases(folder, "validation", fold, cases)
        if "recorded" not in Path(case["image"]).name:
            return fold
    raise ValueError("every fold holds out the recorded part")


def costs(run: Run) -> list[list[str]]:
    """Seconds and peak memory of the pipeline up to each stage, each in a fresh process."""
    lines = [["up to", "seconds", "peak MiB above the volume"]]
    for stage in STAGES:
        command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage]
        # freed memory is given back at once, so that a peak is of this stage
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.split()
        lines.append([stage, f"{float(told[-2]):.1f}", f"{float(told[-1]) / MIB:.0f}"])
    return lines


def measure(run: Run, stage: str) -> None:
    """Print seconds and bytes of one run of the pipeline up to a stage."""
    parser = ConfigParser(ConfigParser.load_config_files([str(path) for path in run.configs("inference")]))
    parser.update({name: value for name, value in run.given.items() if name in parser.config})
    parser.update({"bundle_root": str(BUNDLE), "model_path": str(run.model)})
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(run.model, weights_only=True))
    item = parser.get_parsed_content("preprocessing")({"image": run.recorded["image"]})
    image = item["image"][None].to(parser.get_parsed_content("device"))
    inferer = parser.get_parsed_content("inferer").until(stage)
    begun = time.perf_counter()
    peak = peak_of(lambda: inferer(image, network), image.device.type)
    print(time.perf_counter() - begun, peak)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Of two masks."""
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def scores(run: Run) -> list[str]:
    """What came out, in sentences."""
    (predicted,) = (run.out / "prediction").glob("*_seg.nii.gz")
    found, truth = (nibabel.as_closest_canonical(nibabel.load(path)) for path in (predicted, run.recorded["label"]))
    labels, liver = np.asarray(found.dataobj), np.asarray(truth.dataobj) > 0
    ml = float(np.prod(truth.header.get_zooms()[:3])) / 1000
    cut = first_slice(truth, run.cut)
    whole, unseen = dice(labels > 0, liver), dice(labels[..., :cut] > 0, liver[..., :cut])
    (case,) = read_json(run.out / "evaluation" / "lits.json")["cases"]
    return [
        f"Liver Dice {whole:.3f}; {unseen:.3f} in the {cut} of {liver.shape[2]} slices that were not trained on.",
        f"Box recall {case['box_recall']:.3f}.",
        f"Taken for tumour: {(labels == 2).sum() * ml:.1f} of {(labels > 0).sum() * ml:.0f} ml.",
    ]


def main() -> int:
    """Train, predict, evaluate, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a Decathlon folder (dataset.json) with a labelled liver")
    parser.add_argument("--out", required=True, help="where data, weights, logs and results go")
    parser.add_argument("--phantoms", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=3, default=[192, 160, 128], help="of the phantoms, voxels")
    parser.add_argument("--cut", type=float, default=0.5, help="part of the height that is not trained on, from below")
    parser.add_argument("--overlays", default="", help="configs laid over train.json, in order")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="config entries")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = Run(options)
    if options.stage:
        measure(run, options.stage)
        return 0
    run.out.mkdir(parents=True, exist_ok=True)
    folder, folds = make_dataset(run, options.phantoms, options.size), options.phantoms + 1
    split = {"fold": held_out_phantom(folder, folds), "folds": folds}
    begun = time.perf_counter()
    run.run("train", run.command("train", dataset_dir=folder, output_dir=run.out / "training", resume=True, **split))
    trained = time.perf_counter() - begun
    recorded = Path(options.data).resolve()
    run.run("predict", run.command("inference", dataset_dir=run.recorded["image"], output_dir=run.out / "prediction"))
    evaluation = run.command(
        "train", "evaluate", dataset_dir=recorded, output_dir=run.out / "evaluation", fold=0, folds="$None"
    )
    run.run("evaluate", evaluation)
    size = times(nibabel.load(run.recorded["image"]).shape)
    text = "\n\n".join(
        [
            f"# RA-UNet on a recorded CT of {size} voxels",
            f"Settings: {' '.join(f'{name}={value}' for name, value in run.given.items()) or 'none'}; "
            f"overlays: {', '.join(run.overlays) or 'none'}; {options.phantoms - 1} phantoms and the upper part of the "
            f"volume trained on; this run's training took {trained / 60:.1f} minutes.",
            *scores(run),
            markdown_grid(costs(run), 1),
        ]
    )
    with atomic_path(run.out / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
