"""One loss of two paths, against the papers' formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceLoss

from common.checks import InputError
from common.losses import TwoPathLoss, joint_weight

DICE = {"sigmoid": True, "smooth_nr": 0.0, "smooth_dr": 1e-5}


def example(classes: int = 2, empty: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 2 * classes, 4, 3, 5, generator=draw, dtype=torch.float64).requires_grad_()
    truth = (torch.rand(2, classes, 4, 3, 5, generator=draw) < 0.3) & (not empty)
    return logits, truth.to(torch.uint8)


def dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over volumes and classes of 1 - 2 sum(y p) / (sum p + sum y), voxel by voxel."""
    losses = []
    for planes, labels in zip(logits.flatten(0, 1), truth.flatten(0, 1), strict=True):
        pairs = [(1 / (1 + math.exp(-x)), y) for x, y in zip(planes.flatten().tolist(), labels.flatten().tolist())]
        losses.append(1 - 2 * sum(p * y for p, y in pairs) / sum(p + y for p, y in pairs))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("start", [0.99, 0.9, 0.5, 1.0, 0.0])
def test_the_weight_follows_its_recurrence(start):
    weight = start
    for epoch in range(1, 40):
        assert joint_weight(epoch, start) == pytest.approx(weight, rel=1e-12, abs=1e-300)
        weight *= start**epoch


def test_the_paper_s_weights():
    assert [round(joint_weight(n), 4) for n in (1, 2, 10, 20, 30)] == [0.99, 0.9801, 0.6298, 0.1467, 0.0125]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("weight", [0.99, 0.3, 1, 0])
def test_against_the_formula(classes, weight):
    logits, truth = example(classes)
    full, auxiliary = logits[:, :classes], logits[:, classes:]
    expected = weight * dice_loss(auxiliary, truth) + (1 - weight) * dice_loss(full, truth)
    assert TwoPathLoss(DiceLoss(**DICE), weight)(logits, truth).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [0.99, 0.4])
def test_each_path_has_its_share_of_the_gradient(weight):
    logits, truth = example()
    TwoPathLoss(DiceLoss(**DICE), weight)(logits, truth).backward()
    for channels, share in ((slice(0, 2), 1 - weight), (slice(2, 4), weight)):
        path = logits.detach()[:, channels].requires_grad_()
        DiceLoss(**DICE)(path, truth).backward()
        torch.testing.assert_close(logits.grad[:, channels], share * path.grad, rtol=1e-9, atol=1e-15)


def test_the_weight_can_be_moved():
    logits, truth = example()
    loss = TwoPathLoss(DiceLoss(**DICE))
    assert loss.weight == 0.99
    loss.weight = 0.0
    torch.testing.assert_close(loss(logits, truth), DiceLoss(**DICE)(logits[:, :2], truth))


@pytest.mark.parametrize("bias", [0.0, -1000.0, 1000.0])
@pytest.mark.parametrize("empty", [True, False])
def test_extreme_logits_and_nothing_to_find_stay_finite(bias, empty):
    logits, truth = example(empty=empty)
    logits = (logits.detach().float() + bias).requires_grad_()
    value = TwoPathLoss(DiceLoss(**DICE))(logits, truth)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()
    if empty:
        assert value.item() == 1.0


def test_gradcheck():
    logits, truth = example()
    loss = TwoPathLoss(DiceLoss(**DICE), 0.7)
    assert torch.autograd.gradcheck(lambda x: loss(x, truth), logits)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_metatensors_and_label_types(dtype):
    logits, truth = example()
    value = TwoPathLoss(DiceLoss(**DICE))(MetaTensor(logits), MetaTensor(truth.to(dtype)))
    assert type(value) is torch.Tensor
    torch.testing.assert_close(value, TwoPathLoss(DiceLoss(**DICE))(logits, truth))


def test_half_precision_logits_are_widened():
    logits, truth = example()
    half = logits.detach().bfloat16()
    value = TwoPathLoss(DiceLoss(**DICE))(half, truth)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, TwoPathLoss(DiceLoss(**DICE))(half.float(), truth), rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", [-0.01, 1.01, math.nan])
def test_weights_that_are_no_share_are_refused(weight):
    with pytest.raises(InputError, match=f"weight is {weight}: the share of the random path must be 0 to 1.*0.99"):
        TwoPathLoss(DiceLoss(**DICE), weight)
    with pytest.raises(InputError, match="must be 0 to 1"):
        joint_weight(1, weight)


def test_epochs_are_counted_from_one():
    with pytest.raises(InputError, match="epoch is 0: epochs are counted from 1"):
        joint_weight(0)


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_logits_that_are_not_two_paths_are_refused(channels):
    logits, truth = example()
    with pytest.raises(InputError, match=rf"shape \(2, {channels}, 4, 3, 5\).*2 K.*through TwoPathInferer"):
        TwoPathLoss(DiceLoss(**DICE))(logits.repeat(1, 2, 1, 1, 1)[:, :channels], truth)
    with pytest.raises(InputError, match="both paths"):
        TwoPathLoss(DiceLoss(**DICE))(logits[..., :4], truth)


@pytest.mark.gpu
def test_gpu_does_not_wait():
    logits, truth = example()
    loss, device_truth = TwoPathLoss(DiceLoss(**DICE)), truth.cuda()
    device_logits = logits.detach().cuda().requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(device_logits, device_truth)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), loss(logits, truth))
