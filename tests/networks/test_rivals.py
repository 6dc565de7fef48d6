"""What the 2.5D networks are compared with: slice by slice, and by threshold."""

from __future__ import annotations

import pytest
import torch
from contracts import NetworkCase, NetworkContract

from common.checks import InputError
from common.networks import IntensityThreshold, SliceUNet

TINY = (4, 4)


class TestSliceUNetContract(NetworkContract):
    network_class = SliceUNet
    cases = [
        NetworkCase({"widths": TINY, "slices_at_once": 2}, (1, 1, 3, 6, 7), (1, 1, 3, 6, 7)),
        NetworkCase(
            {"in_channels": 2, "out_channels": 3, "widths": TINY, "norm": "instance", "save_memory": True},
            (2, 2, 1, 5, 6),
            (2, 3, 1, 5, 6),
        ),
    ]


class TestIntensityThresholdContract(NetworkContract):
    network_class = IntensityThreshold
    autocast_dtype = torch.float32
    cases = [
        NetworkCase({}, (1, 1, 3, 4, 5), (1, 1, 3, 4, 5)),
        NetworkCase({"in_channels": 2, "out_channels": 3}, (2, 2, 1, 5, 6), (2, 3, 1, 5, 6)),
    ]


def test_parameters():
    assert sum(parameter.numel() for parameter in SliceUNet().parameters()) == 8_629_921
    assert sum(parameter.numel() for parameter in IntensityThreshold(3, 2).parameters()) == 4


@pytest.mark.parametrize("at_once", [1, 4, 100])
@torch.no_grad()
def test_slices_are_apart(at_once):
    torch.manual_seed(0)
    network = SliceUNet(2, 3, TINY, "instance", at_once)
    x = torch.rand(2, 2, 5, 6, 7)
    expected = torch.stack([network.unet(x[:, :, a]) for a in range(5)], 2)
    torch.testing.assert_close(network(x), expected)


def test_save_memory_gives_the_same():
    x, found = torch.rand(1, 1, 5, 6, 7, dtype=torch.float64), []
    for save_memory in (False, True):
        torch.manual_seed(0)
        network = SliceUNet(widths=TINY, slices_at_once=2, save_memory=save_memory).double()
        network(x).square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    for again, kept in zip(*found, strict=True):
        torch.testing.assert_close(again, kept)


def test_threshold_of_each_class_on_the_sum_of_channels():
    network = IntensityThreshold(2, 2)
    with torch.no_grad():
        network.threshold.copy_(torch.tensor([0.5, 1.5]))
        x = torch.tensor([0.2, 0.9]).reshape(1, 2, 1, 1, 1)
        torch.testing.assert_close(network(x).flatten(), torch.tensor([6.0, -4.0]))


def test_threshold_is_found():
    torch.manual_seed(0)
    network, x = IntensityThreshold(), torch.rand(1, 1, 8, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(x), (x > 0.8).float()).backward()
        optimizer.step()
    assert network.threshold.item() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("network", [SliceUNet(widths=TINY), IntensityThreshold()], ids=["slices", "threshold"])
def test_images_are_checked(network):
    with pytest.raises(InputError, match=r"shape \(1, 2, 3, 4, 5\): it takes \(batch, 1, A, b, C\)"):
        network(torch.zeros(1, 2, 3, 4, 5))
    with pytest.raises(InputError, match=r"size \(4, 5\) has 2 axes: it must be \(A, b, C\)"):
        network.output_size((4, 5))


def test_arguments_are_checked():
    with pytest.raises(InputError, match="norm is 'batch_running': images pass the 2D network some at a time"):
        SliceUNet(norm="batch_running")
    with pytest.raises(InputError, match="slices_at_once is 0"):
        SliceUNet(slices_at_once=0)
    with pytest.raises(InputError, match="2x2 voxels"):
        SliceUNet(widths=TINY, norm="instance")(torch.zeros(1, 1, 4, 2, 2))
