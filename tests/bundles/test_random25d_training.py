"""How `random25d_mra` trains, by its own configs in miniature: rates, patience, best weights, kills, two processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from spoiled import spoil

from common.data import phantom_dataset
from common.engines import StageTrainer
from common.geometry.projection import direction_angles, project, sector_angles
from common.losses import joint_weight

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "bundles" / "random25d_mra" / "configs"
TINY = {"widths": [2, 4], "sectors": 3, "directions": 6, "device": "cpu", "folds": 2, "iterations_per_epoch": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data")
    return str(phantom_dataset("head_neck_mra", cases=4, size=[12, 20, 16], cache_dir=folder))


def parsed(data: str, folder: Path, *overlays: str, **flags: Any) -> ConfigParser:
    """The merged configs of a training into `folder`, seeds set."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in ("train", *overlays)])
    places = {"dataset_dir": data, "output_dir": str(folder), "model_path": str(folder / "model.pt")}
    parser.update({**TINY, **places, **flags})
    parser.get_parsed_content("initialize")
    return parser


def train(data: str, folder: Path, *overlays: str, **flags: Any) -> dict[str, torch.Tensor]:
    parsed(data, folder, *overlays, **flags).get_parsed_content("run")
    return weights(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# Best in epoch 3; epochs 4 to 6 bring nothing, so that epoch 7 has half the rate; epoch 8 is the fifth without gain.
SCORES = [0.1, 0.2, 0.4, 0.3, 0.4, 0.1, 0.2, 0.3, 0.9]


def test_halved_after_three_epochs_without_gain_ended_after_five_and_the_best_kept(data, tmp_path):
    parser = parsed(data, tmp_path, iterations_per_epoch=1)
    trainer, evaluator = (parser.get_parsed_content(name) for name in ("train::trainer", "validate::evaluator"))
    rates, kept = [], {}

    def scripted(epoch: int) -> None:
        evaluator.state.epoch = epoch
        evaluator.state.metrics[evaluator.state.key_metric_name] = SCORES[epoch - 1]
        kept[epoch] = {key: value.clone() for key, value in trainer.composite.state_dict().items()}

    evaluator.run = scripted
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    trainer.run()
    assert rates == pytest.approx([1e-3] * 6 + [5e-4] * 2)
    assert same(weights(tmp_path), kept[3]) and same(trainer.composite.state_dict(), kept[3])
    assert not same(kept[3], kept[8])
    entry = json.loads((tmp_path / "model.json").read_text())["stages"]["model"]
    assert (entry["epoch"], entry["score"]) == (3, 0.4)


def test_directions_and_weight_of_every_epoch(data, tmp_path):
    parser = parsed(data, tmp_path, epochs=3, seed=4)
    trainer, loss = parser.get_parsed_content("train::trainer"), parser.get_parsed_content("loss")
    seen, forward = [], trainer.network.forward

    def watched(image, projections=None, angles=None):
        if angles is not None:
            assert projections.shape == (1, 6, 1, 20, 16) and type(projections) is torch.Tensor
            seen.append((angles, loss.weight))
        return forward(image, projections, angles)

    trainer.network.forward = watched
    parser.get_parsed_content("run")
    assert seen == [(sector_angles(3, 4, n), joint_weight(n)) for n in (1, 1, 2, 2, 3, 3)]


def test_projections_are_those_of_the_augmented_volume(data, tmp_path):
    mirror = {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 0}
    parser = parsed(data, tmp_path, augmentation=mirror, projection="sum")
    dataset = parser.get_parsed_content("train::dataset")
    first = [dataset[0] for _ in range(12)]
    for item in first:
        projections = project(item["image"][None].as_tensor(), direction_angles(6), "sum")[0]
        torch.testing.assert_close(item["image_projections"], projections)
    # some were mirrored and some were not
    assert len({float(item["image"][0, 0].sum()) for item in first}) == 2


@pytest.fixture
def two_channels(data, tmp_path) -> str:
    """The data with a second channel, and with a second class in the upper half of the vessels."""
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    for path in (folder / "imagesTr").iterdir():
        spoil(path, lambda values: np.stack([values, values.max() - values], -1))
    for path in (folder / "labelsTr").iterdir():
        spoil(path, lambda values: np.where(np.arange(values.shape[1])[:, None] < 10, values, 2 * values))
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "lower", "2": "upper"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize("overlay", ["train", "fixed_directions", "slice2d", "patch3d", "threshold"])
def test_several_channels_and_classes(two_channels, tmp_path, overlay):
    flags = {"in_channels": 2, "num_classes": 3, "class_names": ["background", "lower", "upper"], "epochs": 1}
    flags |= {"inferer::roi_size": [8, 12, 12], "network_def::widths": [2, 4]} if overlay == "patch3d" else {}
    train(two_channels, tmp_path, overlay, **flags)
    parsed(two_channels, tmp_path, overlay, "evaluate", **flags).get_parsed_content("run")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {case["class"] for case in metrics["cases"]} == {"lower", "upper"}


def test_patches_meet_vessels_of_every_class(two_channels, tmp_path):
    flags = {"num_classes": 3, "class_names": ["background", "lower", "upper"], "inferer::roi_size": [3, 3, 3]}
    sample = parsed(two_channels, tmp_path, "patch3d", **flags).get_parsed_content("sample")
    sample.set_random_state(0)
    label = torch.zeros(2, 12, 20, 16)
    label[0, 6, 10, 8] = 1  # of the first class alone
    patches = [sample({"image": label[:1], "label": label})[0] for _ in range(40)]
    assert 10 < sum(float(patch["label"].any()) for patch in patches) < 30
    assert all(set(patch) == {"image", "label"} and patch["label"].shape == (2, 3, 3, 3) for patch in patches)


class Killed(BaseException):
    """Stands for a kill: nothing in between may catch it."""


@pytest.mark.parametrize("overlay", ["train", "modern"])
@pytest.mark.parametrize("moment", ["_save_best", "_save_resume"])
def test_resumed_after_a_kill_equals_unbroken(data, tmp_path, monkeypatch, overlay, moment):
    flags = {"epochs": 3, "val_interval": 1}
    expected = train(data, tmp_path / "unbroken", overlay, **flags)
    original = getattr(StageTrainer, moment)

    def killing(trainer, *arguments):
        if moment == "_save_resume":
            original(trainer, *arguments)
        if trainer.state.epoch == 2:
            raise Killed
        if moment == "_save_best":
            original(trainer, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StageTrainer, moment, killing)
        # every epoch is the best so far, so that saving the best is met whichever epoch it is
        patch.setattr(StageTrainer, "_is_best", lambda *_: True) if moment == "_save_best" else None
        train(data, tmp_path / "killed", overlay, **flags)
    assert same(train(data, tmp_path / "killed", overlay, resume=True, **flags), expected)


# Run by torchrun: trains by the bundle's own configs; each rank leaves its weights, gradients, directions and images.
WORKER = """
import json, sys
from pathlib import Path
import torch
from monai.bundle import ConfigParser

configs, folder, flags = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
parser = ConfigParser()
parser.read_config([f"{configs}/{name}.json" for name in ("train", "multi_gpu_train")])
parser.update(flags)
parser.get_parsed_content("initialize")
seen, images = [], []
forward = parser.get_parsed_content("network").forward

def watched(image, projections=None, angles=None):
    if angles is not None:
        seen.append(angles)
        images.append(float(image.double().sum()))
    return forward(image, projections, angles)

parser.get_parsed_content("network").forward = watched
parser.get_parsed_content("run")
network, rank = parser.get_parsed_content("network"), torch.distributed.get_rank()
gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
weight = parser.get_parsed_content("loss").weight
content = {"network": network.state_dict(), "gradients": gradients, "angles": seen, "images": images, "weight": weight}
torch.save(content, folder / f"rank{rank}.pt")
parser.get_parsed_content("finalize")
"""


@pytest.mark.slow
def test_two_processes_train_on_the_same_directions(data, tmp_path):
    places = {"dataset_dir": data, "output_dir": str(tmp_path), "model_path": str(tmp_path / "model.pt")}
    flags = {**TINY, **places, "epochs": 2, "iterations_per_epoch": 3, "redraw": "iteration"}
    (tmp_path / "worker.py").write_text(WORKER)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "worker.py"), str(CONFIGS), str(tmp_path), json.dumps(flags)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["angles"] == second["angles"] and len(first["angles"]) == 6
    assert len({tuple(angles) for angles in first["angles"]}) == 6
    assert first["weight"] == second["weight"] == joint_weight(2)
    # each rank drew other cases, so equal gradients mean that they were exchanged
    assert first["images"] != second["images"]
    assert same(first["gradients"], second["gradients"]) and same(first["network"], second["network"])
    assert all(gradient.any() for gradient in first["gradients"].values())
    assert same(weights(tmp_path), first["network"])


def test_slices_of_volumes_that_differ_in_size_make_a_batch(data, tmp_path):
    other = Path(shutil.copytree(data, tmp_path / "data"))
    for part in ("imagesTr", "labelsTr"):
        path = sorted((other / part).iterdir())[0]
        volume = nibabel.load(path)
        nibabel.save(volume.slicer[:, 3:, 1:], path)
    loader = parsed(str(other), tmp_path, "slice2d", folds=4, fold=1).get_parsed_content("train::dataloader")
    sizes = {tuple(batch["image"].shape) for batch in loader} | {tuple(batch["label"].shape) for batch in loader}
    assert sizes <= {(8, 1, 1, 20, 16), (8, 1, 1, 17, 15)} and (8, 1, 1, 20, 16) in sizes
