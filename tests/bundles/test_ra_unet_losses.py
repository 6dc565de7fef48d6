"""The losses of `ra_unet_liver` on what its own training data are, stage by stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader

from common.data import phantom_dataset

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "ra_unet_liver" / "configs"
STAGES = ["localiser", "liver", "train"]


def dice(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    p = logits.sigmoid()
    return 1 - (2 * (p * label).sum() + 1) / (p.sum() + label.sum() + 1)


def entropy(logits: torch.Tensor, label: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    p = logits.sigmoid()
    return -(weight * label * p.log() + (1 - label) * (1 - p).log()).mean()


LOSSES = {
    "train": dice,
    "cross_entropy": entropy,
    "weighted_cross_entropy": lambda logits, label: entropy(logits, label, 10.0),
    "dice_cross_entropy": lambda logits, label: dice(logits, label) + entropy(logits, label),
    "modern": lambda logits, label: dice(logits, label) + entropy(logits, label),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    cache = tmp_path_factory.mktemp("data")
    return phantom_dataset("liver_ct", cases=2, size=[64, 56, 40], cache_dir=cache)


@pytest.mark.parametrize("overlay", list(LOSSES))
@pytest.mark.parametrize("stage", STAGES)
def test_every_loss_takes_the_labels_of_every_stage(made, overlay, stage):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in dict.fromkeys(["train", overlay])])
    parser.update({"dataset_dir": made, "folds": None, "localiser_size": [32, 64], "liver_size": [32, 64]})
    parser.update({"device": "cpu", "save_memory": False})
    if overlay == "modern":
        parser["spacing"] = [5.0, 5.0, 6.0]
    dataset = parser.get_parsed_content(f"{stage}::dataset")
    torch.manual_seed(0)  # by which the loader seeds the transforms
    # many, since slices may hold no liver and patches no tumour
    batch = next(iter(DataLoader(dataset, batch_size=12, sampler=[0, 1] * 6)))
    label = batch["label"].as_tensor().double()
    assert set(label.unique().tolist()) == {0.0, 1.0}
    logits = torch.randn(label.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = parser.get_parsed_content("loss")(logits, batch["label"])
    loss.backward()
    assert logits.grad.isfinite().all()
    assert float(loss.detach()) == pytest.approx(float(LOSSES[overlay](logits.detach().double(), label)), rel=1e-4)
