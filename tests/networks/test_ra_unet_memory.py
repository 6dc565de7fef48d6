"""RA-UNet with less memory: the same numbers, every batch counted once, from less that is kept."""

from __future__ import annotations

import functools

import pytest
import torch
from kept import saved_bytes

from common.networks import RAUNet
from common.networks.ra_parts import FrozenStatistics

BATCH = {"width": 1, "norm_momentum": 0.3}
SHAPES = [(2, 1, 32, 64, 32), (3, 1, 64, 32)]


def pair(**arguments) -> tuple[RAUNet, RAUNet]:
    """A network that keeps features and one that computes them again, with the same weights."""
    torch.manual_seed(0)
    plain, saving = RAUNet(**arguments), RAUNet(**arguments, save_memory=True)
    saving.load_state_dict(plain.state_dict())
    return plain, saving


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_result_gradients_and_statistics_bit_by_bit(shape, dtype):
    networks, x = pair(spatial_dims=len(shape) - 2, **BATCH), torch.randn(shape)
    got = []
    for network in networks:
        image = x.clone().requires_grad_()
        for _ in range(2):  # the second step starts from the statistics of the first
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                result = network(image)
            result.float().sin().sum().backward()
        got.append([result, image.grad, *(p.grad for p in network.parameters()), *network.buffers()])
    assert len(got[0]) == 2 + len(networks[0].state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*got, strict=True))
    counts = {int(value) for name, value in networks[1].named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {2}


def test_statistics_count_once_although_the_backward_pass_ends_early():
    """A step whose backward pass never comes, and one that comes twice, count as one each."""
    _, saving = pair(**BATCH)
    x = torch.randn(SHAPES[0])
    saving(x)
    saving(x).sum().backward(retain_graph=True)
    saving.zero_grad()
    result = saving(x).sum()
    result.backward(retain_graph=True)
    result.backward()
    counts = {int(value) for name, value in saving.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {3}


def test_frozen_statistics_are_put_back_after_an_error():
    network = RAUNet(**BATCH)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    objects = [id(buffer) for buffer in network.buffers()]
    with pytest.raises(RuntimeError, match="on purpose"), FrozenStatistics(network):
        network(torch.randn(SHAPES[0]))
        assert not torch.equal(network.stem[1].running_mean, before["stem.1.running_mean"])
        raise RuntimeError("on purpose")
    assert [id(buffer) for buffer in network.buffers()] == objects
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert list(network.state_dict()) == list(RAUNet(**BATCH).state_dict())


def test_weights_and_copies_are_those_of_the_plain_network():
    plain, saving = pair(**BATCH)
    assert plain.state_dict().keys() == saving.state_dict().keys()
    with torch.no_grad():
        x = torch.randn(SHAPES[0])
        assert torch.equal(saving.eval()(x), plain.eval()(x))


class TestBytesKept:
    """At the size of the paper, batch 2; as one writes it down, the network keeps 4.5 GB."""

    @staticmethod
    def network(save_memory: bool) -> tuple[RAUNet, torch.Tensor]:
        with torch.device("meta"):
            return RAUNet(save_memory=save_memory), torch.empty(2, 1, 224, 224, 32)

    def test_whole_network(self):
        kept = []
        for save_memory in (False, True):
            network, x = self.network(save_memory)
            kept.append(saved_bytes(functools.partial(network, x)))
        assert kept[0] < 3.4e9 and kept[1] < 0.2 * kept[0]

    def test_attention_module(self):
        """Computed again, it keeps its input alone."""
        network, _ = self.network(True)
        x = torch.empty(2, 32, 112, 112, 16, device="meta", requires_grad=True)
        module = network.attention[3]
        plain = saved_bytes(lambda: module(x))
        assert saved_bytes(lambda: network._again(module, module, x)) == x.nbytes < plain / 10

    def test_no_gradient_nothing_kept(self):
        network, x = self.network(True)
        with torch.no_grad():
            assert saved_bytes(lambda: network(x)) == 0
