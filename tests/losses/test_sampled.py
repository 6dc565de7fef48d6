"""Cross-entropy of the foreground and a part of the background, against sums over the voxels one by one."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor
from monai.utils import set_determinism

from common.checks import InputError
from common.losses import SampledBCELoss

SELECTIONS = ["random", "hardest"]


def example(foreground: int = 7, shape: tuple[int, ...] = (2, 1, 5, 4, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()
    label = torch.zeros(shape)
    label.view(-1)[torch.randperm(label.numel(), generator=draw)[:foreground]] = 1
    return logits, label


def cost(logit: float, truth: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if truth else 1 - probability)


@pytest.mark.parametrize("ratio, foreground", [(1, 7), (3, 7), (2.5, 3), (3, 60), (3, 0), (0.1, 7)])
def test_the_hardest_voxel_by_voxel(ratio, foreground):
    logits, label = example(min(foreground, 120))
    pairs = list(zip(logits.flatten().tolist(), label.flatten().tolist(), strict=True))
    chosen = [cost(logit, truth) for logit, truth in pairs if truth]
    background = sorted((cost(logit, truth) for logit, truth in pairs if not truth), reverse=True)
    chosen += background[: round(ratio * max(len(chosen), 1))]
    found = SampledBCELoss(ratio, "hardest")(logits, label)
    assert found.item() == pytest.approx(sum(chosen) / len(chosen), rel=1e-12)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("ratio, foreground", [(1, 7), (3, 7), (3, 100), (3, 0), (0.1, 20)])
def test_who_is_learnt_from(selection, ratio, foreground):
    logits, label = example(foreground)
    SampledBCELoss(ratio, selection)(logits, label).backward()
    learnt = logits.grad != 0
    assert learnt[label == 1].all()
    assert learnt[label == 0].sum() == min(ratio * max(foreground, 1), 120 - foreground)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("foreground", [30, 120])
def test_with_all_the_background_it_is_the_plain_mean(selection, foreground):
    logits, label = example(foreground)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.double())
    torch.testing.assert_close(SampledBCELoss(3, selection)(logits, label), expected, rtol=1e-12, atol=0)


def test_random_background_is_drawn_evenly_and_by_the_seed():
    logits, label = example(10)
    counts = torch.zeros_like(label)

    def drawn() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(SampledBCELoss(2, "random")(logits, label), logits)
        return gradient != 0

    set_determinism(4)
    first = drawn()
    assert not torch.equal(first, drawn())
    set_determinism(4)
    assert torch.equal(first, drawn())
    for _ in range(2000):
        counts += drawn()
    set_determinism(None)
    background = counts[label == 0]  # each of 110 is drawn with probability 20/110: 364 times, deviation 17
    assert background.min() > 364 - 6 * 17 and background.max() < 364 + 6 * 17


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_saturated_and_equal_logits(selection, logit):
    _, label = example(5)
    logits = torch.full(label.shape, logit, requires_grad=True)
    value = SampledBCELoss(1, selection)(logits, label)
    value.backward()
    expected = math.log(2) if logit == 0 else 100.0  # half of what is learnt from is wrong by 200
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_metatensors_and_label_types(dtype):
    logits, label = example()
    value = SampledBCELoss(3, "hardest")(MetaTensor(logits), MetaTensor(label.to(dtype)))
    assert type(value) is torch.Tensor
    torch.testing.assert_close(value, SampledBCELoss(3, "hardest")(logits, label))


def test_gradcheck():
    logits, label = example()
    assert torch.autograd.gradcheck(lambda x: SampledBCELoss(3, "hardest")(x, label), logits)


def test_half_precision_logits_are_widened():
    logits, label = example()
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = SampledBCELoss(3, "hardest")(half, label)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, SampledBCELoss(3, "hardest")(half.float(), label), rtol=1e-6, atol=0)


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf")])
def test_useless_ratios_are_refused(ratio):
    with pytest.raises(InputError, match=f"ratio is {ratio}: it must be a number above 0.*use 3"):
        SampledBCELoss(ratio)


def test_other_selections_and_shapes_are_refused():
    with pytest.raises(InputError, match="selection is 'easy': it must be one of random, hardest"):
        SampledBCELoss(selection="easy")
    logits, label = example()
    with pytest.raises(InputError, match=r"shape \(2, 1, 5, 4, 3\) and the label \(2, 5, 4, 3\): the two must be"):
        SampledBCELoss()(logits, label[:, 0])


@pytest.mark.gpu
@pytest.mark.parametrize("selection", SELECTIONS)
def test_gpu_does_not_wait(selection):
    logits, label = example()
    device_logits, device_label = logits.detach().cuda().requires_grad_(), label.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = SampledBCELoss(3, selection)(device_logits, device_label)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (device_logits.grad != 0).sum() == 4 * 7
    if selection == "hardest":
        torch.testing.assert_close(value.cpu(), SampledBCELoss(3, selection)(logits, label))
