"""The plain U-Net in 2D and 3D: published counts, any size, the same result with less memory."""

from __future__ import annotations

import pytest
import torch
from contracts import NetworkCase, NetworkContract
from torch import nn
from torch.nn import functional as F

from common.checks import InputError
from common.networks import UNet, UNet2D

NORMS = [None, "instance", "batch_running", "batch", "group"]


class TestUNetContract(NetworkContract):
    network_class = UNet
    cases = [
        NetworkCase({"widths": (2, 4, 8)}, (1, 1, 8, 8, 8), (1, 1, 8, 8, 8)),
        NetworkCase({"in_channels": 2, "out_channels": 3, "widths": (2, 3)}, (2, 2, 5, 1, 7), (2, 3, 5, 1, 7)),
        NetworkCase({"spatial_dims": 2, "widths": (2, 4, 4), "norm": "instance"}, (2, 1, 9, 6), (2, 1, 9, 6)),
        NetworkCase({"widths": (3, 2), "save_memory": True}, (1, 1, 5, 6, 4), (1, 1, 5, 6, 4)),
    ]


def written_out(network: UNet, x: torch.Tensor) -> torch.Tensor:
    """The network as one writes it down: pads, concatenates, crops."""
    conv, up, pool = (
        (F.conv2d, F.conv_transpose2d, F.max_pool2d) if x.ndim == 4 else (F.conv3d, F.conv_transpose3d, F.max_pool3d)
    )

    def twice(first: nn.Module, second: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return F.relu(conv(F.relu(conv(x, first.weight, first.bias, padding=1)), second.weight, second.bias, padding=1))

    size = x.shape[2:]
    stride = 2 ** (len(network.analysis) - 1)
    x = F.pad(x, [pad for n in reversed(size) for pad in (0, -n % stride)])
    skips = []
    for level, convs in enumerate(network.analysis):
        x = twice(convs[0].conv, convs[1].conv, pool(x, 2) if level else x)
        skips.append(x)
    skips.pop()
    for part in network.synthesis:
        x = up(x, part.up.conv.weight, part.up.conv.bias, stride=2, padding=1, output_padding=1)
        x = twice(part.join, part.conv.conv, torch.cat([skips.pop(), x], 1))
    x = conv(x, network.score.weight, network.score.bias)
    return x[(..., *(slice(n) for n in size))]


@pytest.mark.parametrize(
    ("network", "count"),
    [(UNet2D(), 8_629_921), (UNet(3), 1_618_489), (UNet(2, widths=(64, 128, 256, 512)), 8_556_353)],
    ids=["2D", "3D", "other reading"],
)
def test_published_counts(network, count):
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (1, 1), (4, 4, 8), (3, 1, 6)])
def test_written_out(size):
    torch.manual_seed(0)
    network = UNet(len(size), 2, 2, (3, 4, 5)).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(network(x), written_out(network, x))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_save_memory_gives_the_same(norm, dims):
    results = []
    for save_memory in (False, True):
        torch.manual_seed(0)
        network = UNet(dims, 1, 2, (8, 16, 8), norm, save_memory).double()
        x = torch.randn(2, 1, *(9, 6, 5)[:dims], dtype=torch.float64)
        logits = network(x)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in network.parameters()), *network.buffers()])
    for kept, again in zip(*results, strict=True):
        torch.testing.assert_close(again, kept)


def test_save_memory_of_one_level():
    network = UNet(2, widths=(3,), save_memory=True)
    network(torch.randn(1, 1, 5, 4)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def kept(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, parameters left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = network(x)
    del result
    return sum(storages.values())


def test_nothing_is_kept_twice():
    x = torch.randn(1, 1, 32, 32)
    one = 8 * 32 * 32 * 4
    # two convolutions, the upsampled part, two convolutions; pooled features and int64 indices; the bottom's two
    expected = 5 * one + one // 4 + one // 2 + 2 * one // 2 + x.nbytes
    assert kept(UNet(2, widths=(8, 16)), x) <= expected
    assert kept(UNet(2, widths=(8, 16), save_memory=True), x) <= one + one // 2 + x.nbytes


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"spatial_dims": 1}, r"spatial_dims is 1: it must be 2 \(images\) or 3"),
            ({"in_channels": 0}, "in_channels is 0 and out_channels is 1: both must be 1 or more"),
            ({"widths": ()}, r"widths is \(\).*use \(8, 16, 32, 64, 128\)"),
            ({"spatial_dims": 2, "widths": (1.5,)}, r"widths is \(1.5,\).*use \(32, 64"),
            ({"norm": "layer"}, "norm is 'layer': it must be one of batch"),
            ({"norm": "group", "widths": (4, 8)}, "num_groups is 8 at a layer of 4 channels"),
            ({"save_memory": "perhaps"}, "save_memory is 'perhaps': it must be true or false"),
        ],
        ids=["dims", "channels", "no widths", "half widths", "norm", "groups", "flag"],
    )
    def test_arguments(self, arguments, text):
        with pytest.raises(InputError, match=text):
            UNet(**arguments)

    def test_images(self):
        network = UNet(2, widths=(1, 2, 3))
        with pytest.raises(InputError, match=r"shape \(1, 2, 8, 8\): it takes \(batch, 1, H, W\)"):
            network(torch.zeros(1, 2, 8, 8))
        with pytest.raises(InputError, match=r"size \(1, 2, 3\) has 3 axes: it must be \(H, W\)"):
            network.output_size((1, 2, 3))

    def test_one_value_at_the_bottom(self):
        network = UNet(2, widths=(1, 2, 3), norm="instance")
        with pytest.raises(InputError, match="4x3 voxels.*needs two or more.*use 4x5 or more, or norm=None"):
            network(torch.zeros(1, 1, 4, 3))
        assert network(torch.zeros(1, 1, 4, 5)).shape == (1, 1, 4, 5)
