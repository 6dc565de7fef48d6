"""The losses of `ra_unet_liver`'s recipes, on labels as its stages are given them, against their formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "ra_unet_liver" / "configs"


def dice(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def cross_entropy(p: torch.Tensor, y: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    return -(weight * y * p.log() + (1 - y) * (1 - p).log()).mean()


FORMULAS = [
    ("paper", [], dice),
    ("cross_entropy", ["cross_entropy"], cross_entropy),
    ("weighted", ["weighted_cross_entropy"], lambda p, y: cross_entropy(p, y, 10.0)),
    ("both", ["dice_cross_entropy"], lambda p, y: dice(p, y) + cross_entropy(p, y)),
    ("modern", ["modern"], lambda p, y: dice(p, y) + cross_entropy(p, y)),
]


@pytest.mark.parametrize("shape", [(3, 1, 8, 6), (2, 1, 4, 5, 6), (1, 1, 4, 4, 4)], ids=["2D", "3D", "one"])
@pytest.mark.parametrize("overlays, formula", [case[1:] for case in FORMULAS], ids=[case[0] for case in FORMULAS])
def test_losses_are_their_formulas(overlays, formula, shape):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in ("train", *overlays)])
    parser["device"] = "cpu"
    loss = parser.get_parsed_content("loss")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, requires_grad=True)
    for share in (0.3, 0.0):  # a batch without a single tumour too
        label = (torch.rand(shape, generator=generator) < share).to(torch.uint8)
        wanted = formula(logits.double().sigmoid(), label.double())
        found = loss(logits, label)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
        gradients = [torch.autograd.grad(value, logits)[0] for value in (found, wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
        assert gradients[0].any()
