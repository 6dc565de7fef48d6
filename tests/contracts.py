"""What every network and every loss must keep, written once; a test class inherits a contract and lists its cases."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from monai.data import MetaTensor
from monai.networks import convert_to_torchscript
from monai.utils import set_determinism
from torch import nn

from common.checks import InputError


class NetworkCase(NamedTuple):
    """One way to build a network, an input shape (B C D H W) and the output shape it must give."""

    arguments: dict
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def _spread_cases(metafunc: pytest.Metafunc, cases: list) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases, ids=[str(index) for index in range(len(cases))])


class NetworkContract:
    """Contract of a network: one tensor in, one out. Members set `network_class` and `cases`."""

    network_class: Callable[..., nn.Module]
    cases: list[NetworkCase]
    autocast_dtype = torch.bfloat16  # of the result; float32 where the last operations are computed so

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        _spread_cases(metafunc, self.cases)

    def build(self, case: NetworkCase) -> tuple[nn.Module, torch.Tensor]:
        """The network of a case with weights of a fixed seed, and an input for it."""
        torch.manual_seed(0)
        return self.network_class(**case.arguments), torch.randn(case.input_shape)

    def trained(self, network: nn.Module) -> nn.Module:
        """The part of the network that a gradient through its forward reaches; a composite of stages overrides it."""
        return network

    def learning(self, network: nn.Module) -> nn.Module:
        """The network in the mode in which every parameter has a gradient.

        Where biases stand before a normalisation by the batch's statistics, which takes them away again, that is
        evaluation by running ones: in training their gradient is rounding.
        """
        return network.train()

    def test_output_shape(self, case):
        network, x = self.build(case)
        assert tuple(network.eval()(x).shape) == case.output_shape
        assert tuple(network.output_size(case.input_shape[2:])) == case.output_shape[2:]

    def test_every_parameter_learns(self, case):
        network, x = self.build(case)
        self.learning(network)(x).square().mean().backward()
        for name, parameter in self.trained(network).named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), f"{name} has no gradient"

    def test_input_is_left_as_it_was(self, case):
        network, x = self.build(case)
        before = x.clone()
        network(x)
        assert torch.equal(x, before)

    def test_same_seed_same_weights_and_step(self, case):
        def step() -> list[torch.Tensor]:
            set_determinism(0)
            network, x = self.build(case)
            network(x).square().mean().backward()
            set_determinism(None)
            return [p.grad for p in self.trained(network).parameters()]

        assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))

    def test_weights_go_round(self, case):
        network, x = self.build(case)
        network(x)  # running statistics, where there are any, leave their start values
        other = self.network_class(**case.arguments)
        other.load_state_dict(copy.deepcopy(network.state_dict()), strict=True)
        assert torch.equal(other.eval()(x), network.eval()(x))

    def test_torchscript(self, case):
        network, x = self.build(case)
        file = io.BytesIO()
        convert_to_torchscript(network, file)
        file.seek(0)
        scripted = torch.jit.load(file)
        with torch.no_grad():
            torch.testing.assert_close(scripted(x), network.eval()(x))
            torch.testing.assert_close(scripted.train()(x), network.train()(x))

    def test_trace(self, case):
        """As ``ckpt_export --use_trace`` does it."""
        network, x = self.build(case)
        traced = convert_to_torchscript(network.eval(), use_trace=True, inputs=[x])
        with torch.no_grad():
            torch.testing.assert_close(traced(x), network(x))

    def test_export(self, case):
        network, x = self.build(case)
        network.eval()
        exported = torch.export.export(network, (x,))
        with torch.no_grad():
            torch.testing.assert_close(exported.module()(x), network(x))

    def test_autocast(self, case):
        network, x = self.build(case)
        network.eval()
        with torch.no_grad():
            full = network(x)
            with torch.autocast("cpu", torch.bfloat16):
                half = network(x)
        assert half.dtype == self.autocast_dtype and half.isfinite().all()
        assert (half.float() - full).abs().mean() < 0.05 * full.abs().mean() + 0.01

    def test_metatensor_input(self, case):
        network, x = self.build(case)
        network.eval()
        with torch.no_grad():
            torch.testing.assert_close(torch.as_tensor(network(MetaTensor(x))).as_subclass(torch.Tensor), network(x))

    @pytest.mark.gpu
    def test_gpu_agrees(self, case):
        network, x = self.build(case)
        network, x = network.double().eval(), x.double()
        with torch.no_grad():
            torch.testing.assert_close(network.cuda()(x.cuda()).cpu(), network.cpu()(x), rtol=1e-6, atol=1e-8)

    @pytest.mark.gpu
    def test_gpu_mixed_precision_learns(self, case):
        network, x = self.build(case)
        network, x = network.cuda(), x.cuda()
        with torch.autocast("cuda", torch.float16):
            loss = network(x).float().square().mean()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in self.trained(network).parameters())


class LossCase(NamedTuple):
    """Arguments of a loss, its classes K and the mark of unlabelled voxels."""

    arguments: dict
    num_classes: int
    ignore_index: int


class LabelledLossContract:
    """Contract of a loss over partly labelled volumes (logits B K ..., labels B 1 ...).

    Members set `loss_class` and `cases`.
    """

    loss_class: Callable[..., nn.Module]
    cases: list[LossCase]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        _spread_cases(metafunc, self.cases)

    def build(self, case: LossCase, labelled: float = 0.4) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        """Loss, logits that require a gradient, and labels of which the part `labelled` is labelled."""
        draw = torch.Generator().manual_seed(1)
        logits = torch.randn(2, case.num_classes, 5, 4, 3, generator=draw, dtype=torch.float64).requires_grad_()
        classes = torch.tensor([k for k in range(case.num_classes) if k != case.ignore_index])
        label = classes[torch.randint(len(classes), (2, 1, 5, 4, 3), generator=draw)]
        label[torch.rand(label.shape, generator=draw) >= labelled] = case.ignore_index
        return self.loss_class(**case.arguments), logits, label

    def test_gradient_is_exact_zero_where_unlabelled(self, case):
        loss, logits, label = self.build(case)
        loss(logits, label).backward()
        unlabelled = (label == case.ignore_index).expand_as(logits)
        assert unlabelled.any() and (logits.grad[unlabelled] == 0).all()
        assert (logits.grad[~unlabelled] != 0).any()

    def test_value_is_blind_to_unlabelled_voxels(self, case):
        loss, logits, label = self.build(case)
        with torch.no_grad():
            before = loss(logits, label)
            logits += 50 * torch.randn_like(logits) * (label == case.ignore_index)
            torch.testing.assert_close(loss(logits, label), before, rtol=1e-12, atol=0)

    def test_nothing_labelled(self, case):
        loss, logits, label = self.build(case, labelled=0.0)
        value = loss(logits, label)
        value.backward()
        assert value.item() == 0.0
        assert logits.grad is not None and (logits.grad == 0).all()

    def test_gradcheck(self, case):
        loss, logits, label = self.build(case)
        assert torch.autograd.gradcheck(lambda x: loss(x, label), logits)

    def test_falls_when_the_truth_grows(self, case):
        loss, logits, label = self.build(case)
        optimizer = torch.optim.SGD([logits], lr=1.0)
        start = loss(logits, label).item()
        for _ in range(20):
            optimizer.zero_grad()
            loss(logits, label).backward()
            optimizer.step()
        assert loss(logits, label).item() < start

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
    def test_label_types(self, case, dtype):
        loss, logits, label = self.build(case)
        if case.ignore_index < 0 and dtype == torch.uint8:
            dtype = torch.int8
        assert torch.equal(loss(logits, label.to(dtype)), loss(logits, label))

    def test_metatensors(self, case):
        loss, logits, label = self.build(case)
        value = loss(MetaTensor(logits), MetaTensor(label.float()))
        assert type(value) is torch.Tensor
        torch.testing.assert_close(value, loss(logits, label))
        value.backward()
        assert logits.grad.any()

    def test_half_precision_logits_are_widened(self, case):
        loss, logits, label = self.build(case)
        half = logits.detach().bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(half, label)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(half.float(), label), rtol=1e-6, atol=0)

    def test_no_state(self, case):
        loss, logits, label = self.build(case)
        assert not loss.state_dict()
        assert torch.equal(loss(logits, label), loss(logits, label))

    def test_foreign_label_is_named(self, case):
        loss, logits, label = self.build(case)
        label[0, 0, 1, 2, 0] = 77
        with pytest.raises(
            InputError, match=rf"the label holds 77: .* 0 to {case.num_classes - 1}, or {case.ignore_index} where"
        ):
            loss(logits, label)
        with pytest.raises(InputError, match="the label holds 0.5"):
            loss(logits, torch.full(label.shape, 0.5))

    def test_wrong_shapes_are_named(self, case):
        loss, logits, label = self.build(case)
        with pytest.raises(InputError, match=r"labels \(2, 1, 5, 4, 2\).*crop them to the network's output_size"):
            loss(logits, label[..., :2])
        with pytest.raises(InputError, match=r"labels \(2, 5, 4, 3\).*give labels one channel"):
            loss(logits, label[:, 0])
        with pytest.raises(InputError, match=r"logits have shape \(2, 1, 5, 4, 3\).*classes >= 2"):
            loss(logits[:, :1], label)

    @pytest.mark.gpu
    def test_gpu_agrees_without_waiting(self, case):
        loss, logits, label = self.build(case)
        expected = loss(logits, label)
        (gradient,) = torch.autograd.grad(expected, logits)
        device_logits, device_label = logits.detach().cuda().requires_grad_(), label.cuda()
        loss(device_logits, device_label)  # the first step copies the class weights
        torch.cuda.set_sync_debug_mode("error")
        try:
            value = loss(device_logits, device_label)
            value.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(value.cpu(), expected)
        torch.testing.assert_close(device_logits.grad.cpu(), gradient)
