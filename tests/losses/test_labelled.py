"""Losses over partly labelled volumes, against sums over the labelled voxels alone."""

from __future__ import annotations

import math

import pytest
import torch
from contracts import LabelledLossContract, LossCase

from common.checks import InputError
from common.losses import LabelledCrossEntropyLoss, LabelledDiceCELoss, LabelledDiceLoss


class TestLabelledCrossEntropyContract(LabelledLossContract):
    loss_class = LabelledCrossEntropyLoss
    cases = [
        LossCase({}, 3, 3),
        LossCase({"class_weights": [2.0, 2.0, 0.5]}, 3, 3),
        LossCase({"class_weights": [1.0, 0.0, 3.0, 0.5], "ignore_index": 1}, 4, 1),
        LossCase({"ignore_index": 255}, 2, 255),
        LossCase({"ignore_index": -1}, 5, -1),
    ]


class TestLabelledDiceContract(LabelledLossContract):
    loss_class = LabelledDiceLoss
    cases = [
        LossCase({}, 3, 3),
        LossCase({"include_background": False, "batch": True}, 3, 3),
        LossCase({"ignore_index": 0, "smooth": 1.0}, 3, 0),
        LossCase({"ignore_index": 255, "batch": True}, 2, 255),
        LossCase({"ignore_index": -1}, 5, -1),
    ]


class TestLabelledDiceCEContract(LabelledLossContract):
    loss_class = LabelledDiceCELoss
    cases = [
        LossCase({}, 3, 3),
        LossCase({"class_weights": [2.0, 2.0, 0.5], "lambda_dice": 0.5, "batch": True}, 3, 3),
        LossCase({"ignore_index": 2, "lambda_ce": 0.0, "include_background": False}, 4, 2),
    ]


def example(num_classes: int = 3, ignore_index: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(2, num_classes, 4, 3, 2, generator=draw, dtype=torch.float64)
    label = torch.randint(num_classes, (2, 1, 4, 3, 2), generator=draw)
    label[torch.rand(label.shape, generator=draw) < 0.5] = ignore_index
    return logits, label


@pytest.mark.parametrize("ignore_index", [3, 1])
@pytest.mark.parametrize("weights", [None, [2.0, 2.0, 0.5], [0.0, 1.0, 4.0]])
def test_cross_entropy_voxel_by_voxel(weights, ignore_index):
    logits, label = example(ignore_index=ignore_index)
    summed = total = 0.0
    for b, d, h, w in torch.cartesian_prod(*[torch.arange(n) for n in (2, 4, 3, 2)]).tolist():
        truth = int(label[b, 0, d, h, w])
        if truth == ignore_index:
            continue
        scores = logits[b, :, d, h, w].tolist()
        probability = math.exp(scores[truth]) / sum(math.exp(s) for s in scores)
        weight = weights[truth] if weights else 1.0
        summed -= weight * math.log(probability)
        total += weight
    loss = LabelledCrossEntropyLoss(weights, ignore_index)
    assert loss(logits, label).item() == pytest.approx(summed / total, rel=1e-12)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("ignore_index", [3, 2, 255])
def test_dice_is_that_of_the_labelled_voxels_alone(batch, include_background, ignore_index):
    logits, label = example(ignore_index=ignore_index)
    probability, smooth = logits.softmax(1), 1e-3
    groups = [[0, 1]] if batch else [[0], [1]]
    terms = []
    for items in groups:
        for k in range(0 if include_background else 1, 3):
            p = torch.cat([probability[i, k][label[i, 0] != ignore_index] for i in items])
            g = torch.cat([(label[i, 0] == k)[label[i, 0] != ignore_index] for i in items]).double()
            terms.append(1 - (2 * (p * g).sum() + smooth) / (p.sum() + g.sum() + smooth))
    loss = LabelledDiceLoss(ignore_index, include_background, batch, smooth)
    torch.testing.assert_close(loss(logits, label), torch.stack(terms).mean(), rtol=1e-6, atol=0)


def test_perfect_prediction_costs_nothing():
    _, label = example()
    sure = 60.0 * torch.nn.functional.one_hot(label[:, 0], 4).movedim(-1, 1)[:, :3]
    assert LabelledCrossEntropyLoss()(sure, label) < 1e-6
    assert LabelledDiceLoss()(sure, label) < 1e-6


def test_dice_ce_is_the_weighted_sum():
    logits, label = example()
    both = LabelledDiceCELoss([2.0, 2.0, 0.5], lambda_dice=0.3, lambda_ce=0.7)
    expected = 0.3 * LabelledDiceLoss()(logits, label) + 0.7 * LabelledCrossEntropyLoss([2.0, 2.0, 0.5])(logits, label)
    torch.testing.assert_close(both(logits, label), expected)


def test_only_classes_of_weight_zero_labelled():
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    value = LabelledCrossEntropyLoss([0.0, 1.0])(logits, torch.zeros(1, 1, 3, 3, 3))
    value.backward()
    assert value.item() == 0 and not logits.grad.any()


def test_two_dimensional_images_too():
    logits, label = example()
    flat = LabelledDiceCELoss()(logits.flatten(3), label.flatten(3))
    torch.testing.assert_close(flat, LabelledDiceCELoss()(logits, label))


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_useless_weights_are_refused(weights):
    with pytest.raises(InputError, match="class_weights are .* finite, none below 0 and one above"):
        LabelledCrossEntropyLoss(weights)


def test_wrong_number_of_weights():
    logits, label = example()
    with pytest.raises(InputError, match="there are 2 class_weights and 3 channels of logits"):
        LabelledCrossEntropyLoss([1.0, 2.0])(logits, label)


def test_smooth_and_lambda_are_checked():
    with pytest.raises(InputError, match="smooth is 0.0: it must be above 0"):
        LabelledDiceLoss(smooth=0.0)
    with pytest.raises(InputError, match="lambda_ce is -1.0: neither may be negative"):
        LabelledDiceCELoss(lambda_ce=-1.0)
