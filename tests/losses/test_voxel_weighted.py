"""Cross-entropy of weighted voxels, against sums over the voxels one by one."""

from __future__ import annotations

import math

import pytest
import torch
from contracts import LabelledLossContract, LossCase

from common.checks import InputError
from common.losses import LabelledCrossEntropyLoss, VoxelWeightedCELoss


class WithWeights(torch.nn.Module):
    """The loss as one of labels alone: whole weights 0, 1, 2 (so that any dtype holds them) by the voxel's place."""

    def __init__(self, **arguments) -> None:
        super().__init__()
        self.loss = VoxelWeightedCELoss(**arguments)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        weights = (torch.arange(label.numel(), device=label.device) % 3).reshape(label.shape)
        return self.loss(logits, torch.cat([label, weights.to(label.dtype)], dim=1))


class TestVoxelWeightedContract(LabelledLossContract):
    loss_class = WithWeights
    cases = [
        LossCase({}, 8, 255),
        LossCase({"normalise": "voxels"}, 3, 255),
        LossCase({"ignore_index": 1}, 4, 1),
        LossCase({"ignore_index": -1, "normalise": "voxels"}, 2, -1),
    ]

    def test_wrong_shapes_are_named(self, case):
        loss, logits, label = self.build(case)
        target = label.repeat(1, 2, 1, 1, 1)
        with pytest.raises(InputError, match=r"the target \(2, 2, 5, 4, 2\).*crop it to the network's output_size"):
            loss.loss(logits, target[..., :2])
        for wrong in (label, label[:, 0], label.repeat(1, 3, 1, 1, 1)):
            with pytest.raises(InputError, match=r"\(batch, 2, ...\) with the same spatial size.*VoxelWeightsd"):
                loss.loss(logits, wrong)
        with pytest.raises(InputError, match=r"logits have shape \(2, 1, 5, 4, 3\).*classes >= 2"):
            loss.loss(logits[:, :1], target)


def example(num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(2, num_classes, 4, 3, 2, generator=draw, dtype=torch.float64)
    label = torch.randint(num_classes, (2, 1, 4, 3, 2), generator=draw).double()
    weights = torch.rand(label.shape, generator=draw, dtype=torch.float64)
    label[torch.rand(label.shape, generator=draw) < 0.3] = 255
    weights[torch.rand(label.shape, generator=draw) < 0.3] = 0
    return logits, torch.cat([label, weights], dim=1)


@pytest.mark.parametrize("normalise", ["weights", "voxels"])
def test_voxel_by_voxel(normalise):
    logits, target = example()
    summed = total = 0.0
    for b, d, h, w in torch.cartesian_prod(*[torch.arange(n) for n in (2, 4, 3, 2)]).tolist():
        truth, weight = target[b, :, d, h, w].tolist()
        if truth == 255 or weight == 0:
            continue
        scores = logits[b, :, d, h, w].tolist()
        summed -= weight * math.log(math.exp(scores[int(truth)]) / sum(math.exp(s) for s in scores))
        total += weight if normalise == "weights" else 1
    assert total > 0
    assert VoxelWeightedCELoss(255, normalise)(logits, target).item() == pytest.approx(summed / total, rel=1e-12)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_weights_per_class_give_torchs_weighted_cross_entropy(num_classes):
    logits, target = example(num_classes)
    of_class = torch.linspace(0.2, 1.0, num_classes, dtype=torch.float64)
    label = target[:, :1].long()
    weights = of_class[torch.where(label == 255, 0, label)]
    found = VoxelWeightedCELoss()(logits, torch.cat([label, weights], dim=1))
    expected = torch.nn.functional.cross_entropy(logits, label[:, 0], of_class, ignore_index=255)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_equal_weights_of_any_size_give_the_plain_mean():
    logits, target = example()
    label, plain = target[:, :1], LabelledCrossEntropyLoss(ignore_index=255)(logits, target[:, :1])
    for size in (0.01, 1.0, 30.0):
        found = VoxelWeightedCELoss()(logits, torch.cat([label, torch.full_like(label, size)], dim=1))
        torch.testing.assert_close(found, plain)
        found = VoxelWeightedCELoss(normalise="voxels")(logits, torch.cat([label, torch.full_like(label, size)], dim=1))
        torch.testing.assert_close(found, size * plain)


@pytest.mark.parametrize("normalise", ["weights", "voxels"])
@pytest.mark.parametrize("label", [0.0, 2.0, 255.0])
def test_all_weights_zero(label, normalise):
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    target = torch.zeros(1, 2, 2, 2, 2)
    target[:, 0] = label
    value = VoxelWeightedCELoss(normalise=normalise)(logits, target)
    value.backward()
    assert value.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_no_gradient_where_the_weight_is_zero_or_the_label_ignored():
    logits, target = example()
    logits.requires_grad_()
    VoxelWeightedCELoss()(logits, target).backward()
    counted = (target[:, 0] != 255) & (target[:, 1] > 0)
    assert counted.any() and (~counted).any()
    assert torch.equal(logits.grad.abs().sum(1) > 0, counted)


def test_small_numbers_stay_exact_under_autocast():
    logits, target = example()
    half, target = logits.bfloat16(), target.float()
    target[:, 1] *= 1e-6  # as of a rare class in a large region: would vanish among halves
    with torch.autocast("cpu", torch.bfloat16):
        found = VoxelWeightedCELoss(normalise="voxels")(half, target)
    assert found.dtype == torch.float32
    expected = VoxelWeightedCELoss(normalise="voxels")(half.double(), target.double()).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_two_dimensional_images_too():
    logits, target = example()
    torch.testing.assert_close(
        VoxelWeightedCELoss()(logits.flatten(3), target.flatten(3)), VoxelWeightedCELoss()(logits, target)
    )


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_useless_weights_are_refused(weight):
    logits, target = example()
    target[0, 1, 1, 1, 1] = weight
    with pytest.raises(InputError, match=rf"second channel holds {weight:g}: .* finite and not below 0"):
        VoxelWeightedCELoss()(logits, target)


def test_another_divisor_is_refused():
    with pytest.raises(InputError, match="normalise is 'mean': it must be one of weights, voxels"):
        VoxelWeightedCELoss(normalise="mean")
