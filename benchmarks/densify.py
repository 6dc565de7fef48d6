"""A few slices to a dense volume: `volseg densify` against what fills volumes up without learning, on dense labels.

    python benchmarks/densify.py --out FOLDER 1135_mini.h5 1136_mini.h5
    python benchmarks/densify.py --out FOLDER --slices 3,3,4 --classes boundary sample_ovule.h5

Of each HDF5 volume with dense instances so many evenly spread slices per axis are kept, as if they had been drawn.
`volseg densify` gets these and nothing else, in a process of its own, and keeps a part of them out of its training by
itself; shape-based interpolation and the random walker get all of them. All are scored on every voxel that was not
drawn, against the dense label. The table tells what each took and, for densify, the IoU that it told its user itself,
on the slices that it held out: so one sees how far that can be trusted. A volume that is done is not done again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.data.convert.hdf5 import CLASSES, convert_hdf5  # noqa: E402
from common.data.phantoms.kidney import annotate_slices  # noqa: E402
from common.files import atomic_path, read_json, write_json  # noqa: E402
from common.inferers.seeded import RandomWalkerInferer, ShapeInterpolationInferer  # noqa: E402
from common.metrics.stages import markdown_grid  # noqa: E402

RIVALS = {"shape-based interpolation": ShapeInterpolationInferer, "random walker": RandomWalkerInferer}


def ious(found: np.ndarray, truth: np.ndarray, scored: np.ndarray, number: int) -> list[float]:
    """IoU of every class on the voxels that are scored; NaN for a class that is in neither."""
    told = []
    for k in range(number):
        one, other = (found == k) & scored, (truth == k) & scored
        either = int((one | other).sum())
        told.append(int((one & other).sum()) / either if either else float("nan"))
    return told


def densify(image: Path, slices: Path, out: Path, unlabelled: int, more: Sequence[str]) -> tuple[np.ndarray, dict]:
    """The label that the command writes, and its report."""
    command = [sys.executable, "-m", "common", "densify", str(image), str(slices), "--out", str(out)]
    command += ["--unlabelled", str(unlabelled), *more]
    out.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(out.with_suffix(".log"), "a", encoding="utf-8") as stream:
        subprocess.run(command, check=True, env=environment, stdout=stream, stderr=stream)
    return np.asarray(nibabel.load(out / "dense.nii.gz").dataobj), read_json(out / "report.json")


def fill(name: str, image: Path, slices: Path, number: int) -> np.ndarray:
    """The label of a rival that learns nothing."""
    volume, drawn = nibabel.load(image), nibabel.load(slices)
    scale = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True, channel_wise=True)
    grey = torch.as_tensor(np.asarray(scale(np.asarray(volume.dataobj, np.float32)[None])))[None]
    seeds = torch.as_tensor(np.asarray(drawn.dataobj))[None, None]
    inferer = RIVALS[name](num_classes=number, ignore_index=number)
    affine = torch.as_tensor(volume.affine)
    found = inferer(MetaTensor(grey, affine=affine), None, seeds=MetaTensor(seeds, affine=affine))
    return np.asarray(found)[0, 0]


def rows_of(source: Path, folder: Path, counts: Sequence[int], classes: str, more: Sequence[str]) -> list[dict]:
    """Every method on one volume: who, IoU of the classes, minutes, and what densify told itself."""
    data = folder / "data"
    if not data.is_dir():
        convert_hdf5([source], data, classes=classes)
    image = data / "imagesTr" / f"{source.stem}.nii.gz"
    label = nibabel.load(data / "labelsTr" / image.name)
    truth, number = np.asarray(label.dataobj), len(CLASSES[classes])
    drawn = annotate_slices(truth, counts, number)
    slices = folder / "slices.nii.gz"
    nibabel.save(nibabel.Nifti1Image(drawn, label.affine, label.header), slices)
    shared = {"volume": source.stem, "labelled": float((drawn != number).mean())}
    rows = []
    found, report = densify(image, slices, folder / "densify", number, more)
    told = [one["iou_held_out"] for one in report["classes"]]
    minutes = sum(report["seconds"].values()) / 60
    scores = ious(found, truth, drawn == number, number)
    rows.append({**shared, "method": "`volseg densify`", "iou": scores, "told": told, "minutes": minutes})
    for name in RIVALS:
        begun = time.perf_counter()
        scores = ious(fill(name, image, slices, number), truth, drawn == number, number)
        rows.append({**shared, "method": name, "iou": scores, "minutes": (time.perf_counter() - begun) / 60})
    return rows


def table(rows: Sequence[dict], names: Sequence[str]) -> str:
    """All rows as Markdown."""
    lines = [["volume", "voxels drawn", "method", *(f"IoU {name}" for name in names), "mean IoU", "told", "minutes"]]
    for row in rows:
        told = [score for score in row.get("told", ()) if score is not None]
        lines.append(
            [
                row["volume"],
                f"{100 * row['labelled']:.1f} %",
                row["method"],
                *(f"{score:.3f}" for score in row["iou"]),
                f"{np.nanmean(row['iou']):.3f}",
                f"{np.mean(told):.3f}" if told else "",
                f"{row['minutes']:.1f}",
            ]
        )
    return markdown_grid(lines, 3)


def main() -> None:
    """Run all volumes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", type=Path, help="HDF5 files with raw and label")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is written")
    parser.add_argument("--slices", default="3,3,4", help="slices kept across x, y and z")
    parser.add_argument("--classes", default="binary", choices=sorted(CLASSES), help="what the instances become")
    arguments, more = parser.parse_known_args()  # what is left goes to densify
    counts, rows = [int(count) for count in arguments.slices.split(",")], []
    for source in arguments.volumes:
        folder = arguments.out / source.stem
        folder.mkdir(parents=True, exist_ok=True)
        done = folder / "rows.json"
        if not done.is_file():
            write_json(done, rows_of(source, folder, counts, arguments.classes, more))
        rows += read_json(done)
        text = table(rows, list(CLASSES[arguments.classes].values()))
        with atomic_path(arguments.out / "table.md") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(text, flush=True)


if __name__ == "__main__":
    main()
