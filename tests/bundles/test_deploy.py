"""Bundles in MONAI Deploy: it reads and writes itself, and leaves out steps by what is in their names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, SaveImaged

from common.data import inference_cases
from common.files import read_json

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.name for path in BUNDLES.iterdir() if path.is_dir())
LEFT_OUT = ("LoadImage", "SaveImage")


def kept(steps):
    return [step for step in steps if not any(name in type(step).__name__ for name in LEFT_OUT)]


@pytest.fixture
def parse(tmp_path):
    def parse(name, *overlays):
        configs = BUNDLES / name / "configs"
        parser = ConfigParser()
        parser.read_config([str(configs / f"{file}.json") for file in ("inference", *overlays)])
        tiny = read_json(Path(__file__).with_name(f"{name}.json"))["configs"]["dataset_dir"]
        parser.update({"dataset_dir": tiny, "output_dir": str(tmp_path)})
        return parser

    return parse


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_from_memory_becomes_what_the_file_becomes(name, parse):
    parser = parse(name)
    path = inference_cases(parser.get_parsed_content("dataset_dir"))[0]["image"]
    steps = parser.get_parsed_content("preprocessing").transforms
    expected = Compose(steps)({"image": path})["image"]

    loaded = LoadImage(image_only=True)(path)  # channels, if there are several, lie last
    meta = {"original_channel_dim": "no_channel" if loaded.ndim == 3 else -1}
    given = MetaTensor(loaded.as_tensor(), affine=loaded.affine, meta=meta)
    found = Compose(kept(steps))({"image": given})["image"]
    assert len(kept(steps)) == len(steps) - 1
    assert torch.equal(found.as_tensor(), expected.as_tensor()) and torch.equal(found.affine, expected.affine)


@pytest.mark.parametrize(("name", "overlays"), [*((name, ()) for name in NAMES), ("ra_unet_liver", ("submission",))])
def test_no_saver_is_left(name, overlays, parse):
    steps = parse(name, *overlays).get_parsed_content("postprocessing").transforms
    assert any(isinstance(step, SaveImaged) for step in steps)
    assert not any(isinstance(step, SaveImaged) for step in kept(steps))
