"""A bundle's own configs with a tiny network, volumes spoiled in ways that users' volumes are, and how its run ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.checks import InputError, WeightsError
from common.data import phantom_dataset
from common.engines.case_evaluator import CasesFailed

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


class Tiny:
    """The configs of a bundle with a tiny network, and phantoms for it.

    Args:
        name: of the bundle.
        phantom: of its data set.
        cases: how many phantoms.
        size: of each, in voxels.
        flags: what makes the network tiny.
    """

    def __init__(self, name: str, phantom: str, cases: int, size: Sequence[int], **flags: Any) -> None:
        self.configs, self.flags = BUNDLES / name / "configs", {"device": "cpu", **flags}
        self.phantoms = {"name": phantom, "cases": cases, "size": list(size)}
        self.case = f"{phantom}_01"

    def make(self, folder: Path) -> Path:
        """The phantoms, in a data folder below `folder`."""
        return Path(phantom_dataset(**self.phantoms, cache_dir=folder))

    def parsed(self, *names: str, **flags: Any) -> ConfigParser:
        """Configs, laid over one another."""
        torch.manual_seed(0)
        parser = ConfigParser()
        parser.read_config([str(self.configs / f"{name}.json") for name in names])
        parser.update({**self.flags, **flags})
        return parser

    def predict(self, source: Path, out: Path, weights: str, *overlays: str, **flags: Any) -> ConfigParser:
        """The configs of a prediction, not run yet."""
        files = {"dataset_dir": str(source), "output_dir": str(out), "model_path": weights}
        return self.parsed("inference", *overlays, **files, **flags)

    def first_image(self, folder: Path) -> Path:
        """The file of the first phantom in a data folder."""
        return folder / "imagesTr" / f"{self.case}.nii.gz"


def labels(folder: Path, case: str) -> np.ndarray:
    """What was predicted for a case."""
    return np.asarray(nibabel.load(folder / f"{case}_seg.nii.gz").dataobj)


def report(folder: Path, case: str) -> dict[str, Any]:
    """What was told of a case."""
    return json.loads((folder / f"{case}_report.json").read_text())


# a name, how a volume's values are changed, what is put before its affine, and what is said of it
Refused = tuple[str, Callable[[np.ndarray], np.ndarray], "np.ndarray | None", str]


def check_refused(tiny: Tiny, image: Path, rows: Sequence[Refused], weights: str, folder: Path) -> Path:
    """Predict bad volumes, one whose file ends early, and a good one: each bad one is told, the good one answered.

    Args:
        tiny: the bundle.
        image: the good one.
        rows: the bad ones.
        weights: file.
        folder: an empty one.

    Returns:
        the folder of results, where the good case is called "z_good".
    """
    source, out = folder / "in", folder / "out"
    good = nibabel.load(image)
    values = np.asarray(good.dataobj)
    for number, (name, change, affine, _) in enumerate(rows):
        place = good.affine if affine is None else affine @ good.affine
        write(source / f"{number:02d}_{name}.nii.gz", change(values.copy()), place)
    write(source / "z_good.nii.gz", values, good.affine)
    (source / "y_truncated.nii.gz").write_bytes((source / "z_good.nii.gz").read_bytes()[:2000])
    error = cause(tiny.predict(source, out, weights))
    assert isinstance(error, CasesFailed) and f"{len(rows) + 1} of {len(rows) + 2} cases failed" in str(error)
    failures = json.loads((out / "failures.json").read_text())
    failures.sort(key=lambda failure: failure["case"])  # those that can not be loaded come before those of the network
    assert [failure["case"] for failure in failures] == sorted(path.name for path in source.iterdir())[:-1]
    expected = [*(said for *_, said in rows), "truncated or damaged"]
    assert [one for one, said in zip(failures, expected, strict=True) if not re.search(said, one["error"])] == []
    assert [path.name for path in out.glob("*_seg.nii.gz")] == ["z_good_seg.nii.gz"]
    return out


def cause(parser: ConfigParser, run: str = "run") -> BaseException:
    """The package's own error that ends a run; MONAI wraps each in others."""
    with pytest.raises(Exception) as told:
        parser.get_parsed_content(run)
    error: BaseException | None = told.value
    while error is not None and not isinstance(error, (InputError, WeightsError, CasesFailed)):
        error = error.__cause__
    assert error is not None, told.value
    return error


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Save a volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def spoil(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    """Change a saved volume in place; `affine` is put before its own."""
    image = nibabel.load(path)
    write(path, change(np.asarray(image.dataobj).copy()), image.affine if affine is None else affine @ image.affine)


def with_nan(values: np.ndarray) -> np.ndarray:
    """Its highest values are none."""
    return np.where(values == values.max(), np.nan, values).astype(np.float32)


def same(values: np.ndarray) -> np.ndarray:
    """As they are."""
    return values


def constant(values: np.ndarray) -> np.ndarray:
    """40 everywhere."""
    return np.full_like(values, 40)


def infinite(values: np.ndarray) -> np.ndarray:
    """Its highest values are infinite."""
    return np.where(values == values.max(), np.inf, values).astype(np.float32)


def series(values: np.ndarray) -> np.ndarray:
    """Twice, as two points in time."""
    return np.stack([values, values], -1)


def colours(values: np.ndarray) -> np.ndarray:
    """Red, green and blue in each voxel."""
    parts = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return np.repeat((values % 256).astype(np.uint8)[..., None], 3, -1).copy().view(parts)[..., 0]


def grey(values: np.ndarray) -> np.ndarray:
    """Hounsfield units as the grey of a screen."""
    return np.clip((values + 160.0) / 400 * 255, 0, 255).astype(np.uint8)


def unscaled(values: np.ndarray) -> np.ndarray:
    """Hounsfield units as a scanner stores them, without slope and intercept."""
    return (values + 1024).astype(np.int16)


def air(values: np.ndarray) -> np.ndarray:
    """Nothing but air, in Hounsfield units."""
    return np.random.default_rng(0).integers(-1010, -980, values.shape).astype(np.int16)
