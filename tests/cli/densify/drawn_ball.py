"""A ball in a volume, slices drawn through it, and lines of MONAI that pretend to fill it up."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np

from common.cli.densify.steps import LineError
from common.files import case_name

SIZE = (24, 20, 16)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 1, 0, 2], [0, 0, 2, -7], [0, 0, 0, 1]])
UNDRAWN = 255
_AT = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"))
BALL = ((_AT - np.array(SIZE).reshape(3, 1, 1, 1) / 2) ** 2).sum(0) < 36
PLANES = [(0, 5), (0, 12), (1, 10), (2, 4), (2, 8), (2, 12)]


def slices(planes, values=(0, 100)) -> np.ndarray:
    label = np.full(SIZE, UNDRAWN, np.uint8)
    for axis, index in planes:
        at = tuple(index if a == axis else slice(None) for a in range(3))
        label[at] = np.where(BALL[at], values[1], values[0])
    return label


def save(array, path: Path) -> str:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return str(path)


class Lines(list):
    """The lines that were run, as configs and overrides; each leaves what such a line leaves."""

    fails: str = ""  # name of a config whose line fails
    status = 1

    def __call__(self, line, log=None, verbose=False):
        self.append((line.configs, line.overrides()))
        line.command()
        if self.fails in line.configs:
            raise LineError(self.status)
        entries = line.overrides()
        place, model = Path(entries["output_dir"]), Path(entries["model_path"])
        place.mkdir(parents=True, exist_ok=True)
        if line.configs[0] == "inference":
            assert model.is_file()
            self._label(Path(entries["dataset_dir"]), place)
        elif "evaluate" in line.configs:
            classes = {name: {"iou": {"mean": 0.5 + 0.2 * k}} for k, name in enumerate(entries["class_names"])}
            content = {"summary": {**classes, "all classes": {"iou": {"mean": 0.6}}}, "failed": []}
            (place / "metrics.json").write_text(json.dumps(content))
            if "score" in line.configs:
                (image,) = Path(entries["dataset_dir"]).glob("imagesTr/*")
                self._label(image, place)
        else:
            for name in ("model.pt", "model.json"):
                (model.parent / name).parent.mkdir(parents=True, exist_ok=True)
                model.with_name(name).write_text(f"{len(self)}")
            (place / "resume_model.pt").write_text("")
            cost = {"seconds": 60, "peak_memory_mib": 1, "memory": "resident", "device": "cpu"}
            (place / "training.json").write_text(json.dumps(cost))

    @staticmethod
    def _label(image: Path, place: Path) -> None:
        """Bright voxels, and a corner that is wrong; uncertain where grey values are in between."""
        grey = nibabel.load(image)
        values = grey.get_fdata()
        found = (values > 50).astype(np.uint8)
        found[:3, :3] = 1
        unsure = np.full(values.shape, 0.1, np.float32)
        unsure[:4, :4] = 0.9
        for name, array in (("seg", found), ("uncertainty", unsure)):
            nibabel.save(nibabel.Nifti1Image(array, grey.affine), place / f"{case_name(image)}_{name}.nii.gz")

    def names(self) -> list[str]:
        """What the lines do, by their last config."""
        return ["+".join(name for name in configs if name != "densify") for configs, _ in self]


def volume(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)
