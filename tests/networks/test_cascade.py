"""CascadedUNet3D: two published networks under one roof, the second started from the first."""

from __future__ import annotations

import pytest
import torch
from contracts import NetworkCase, NetworkContract

from common.checks import InputError
from common.networks import CascadedUNet3D

TINY = (2, 3, 4, 5)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class TestCascadedUNet3DContract(NetworkContract):
    network_class = CascadedUNet3D
    cases = [
        # three levels: over four, the statistics of a few voxels of noise blow half precision up beyond the contract
        NetworkCase({"widths": TINY[:3]}, (1, 1, 44, 52, 44), (1, 8, 4, 12, 4)),
        NetworkCase({"widths": (2, 4), "norm": None, "in_channels": 2}, (2, 2, 20, 22, 18), (2, 8, 4, 6, 2)),
        NetworkCase({"widths": (2, 4), "norm": "batch_running"}, (1, 1, 20, 22, 18), (1, 8, 4, 6, 2)),
        NetworkCase(
            {"widths": TINY, "padded": True, "norm": "instance", "out_channels": 3}, (2, 1, 17, 9, 1), (2, 3, 17, 9, 1)
        ),
    ]

    def trained(self, network):
        return network.stage2


class TestPublishedFigures:
    def test_parameters_and_tile(self):
        with torch.device("meta"):
            network = CascadedUNet3D()
            assert {name: parameters(child) for name, child in network.named_children()} == {
                "stage1": 19_072_712,
                "stage2": 19_072_712,
            }
            x = torch.empty(1, 1, 132, 132, 116)
            for one in (network, network.stage1, network.stage2):
                assert one(x).shape == (1, 8, 44, 44, 28)

    def test_sizes_are_those_of_the_stages(self):
        network = CascadedUNet3D(widths=TINY)
        assert (network.stride, network.halo) == (8, 44) == (network.stage1.stride, network.stage1.halo)
        assert network.output_size((132, 132, 116)) == (44, 44, 28)
        assert network.nearest_size((128, 130, 20)) == (132, 132, 92)
        with pytest.raises(InputError, match="nearest valid size, 132x132x116"):
            network.output_size((132, 132, 115))
        padded = CascadedUNet3D(widths=TINY, padded=True)
        assert (padded.stride, padded.halo, padded.output_size((17, 12, 9))) == (8, 0, (17, 12, 9))


class TestStages:
    def test_forward_is_that_of_stage_2_alone(self):
        torch.manual_seed(0)
        network, x = CascadedUNet3D(widths=TINY[:2]), torch.randn(1, 1, 20, 20, 20)
        assert torch.equal(network(x), network.stage2(x))
        assert not torch.allclose(network(x), network.stage1(x))
        network(x).sum().backward()
        assert all(p.grad is None for p in network.stage1.parameters())

    def test_stage_2_starts_from_stage_1(self):
        torch.manual_seed(0)
        network, x = CascadedUNet3D(widths=TINY[:2], norm="batch_running"), torch.randn(2, 1, 20, 20, 20)
        optimizer = torch.optim.SGD(network.stage2.parameters(), lr=0.1)
        network.stage1(x)  # gives running statistics that are not those of the start
        network.start_stage2()
        first, second = network.stage1.state_dict(), network.stage2.state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()
        # the optimizer that was built before still holds the parameters, and stage 1 does not move with them
        kept = {name: value.clone() for name, value in first.items()}
        network(x).square().mean().backward()
        optimizer.step()
        assert all(torch.equal(value, kept[name]) for name, value in network.stage1.state_dict().items())
        moved = {name for name, value in network.stage2.named_parameters() if not torch.equal(value, kept[name])}
        assert moved == {name for name, _ in network.stage2.named_parameters()}

    def test_deep_supervision_reaches_both(self):
        network = CascadedUNet3D(widths=TINY, padded=True, norm="instance", deep_supervision=2)
        x = torch.randn(1, 1, 9, 8, 7)
        for one in (network, network.stage1, network.stage2):
            assert [tuple(score.shape[2:]) for score in one.train()(x)] == [(9, 8, 7), (5, 4, 4), (3, 2, 2)]
            assert one.eval()(x).shape == (1, 8, 9, 8, 7)

    @pytest.mark.parametrize("child", ["stage1", "stage2"])
    def test_children_script_and_trace(self, child):
        torch.manual_seed(0)
        network = CascadedUNet3D(widths=TINY[:3], padded=True, deep_supervision=1).get_submodule(child).eval()
        x = torch.randn(1, 1, 9, 10, 11)
        for other in (torch.jit.script(network), torch.jit.trace(network, x)):
            torch.testing.assert_close(other(x), network(x))

    def test_composite_traces(self):
        network, x = CascadedUNet3D(widths=TINY[:2]).eval(), torch.randn(1, 1, 20, 22, 18)
        torch.testing.assert_close(torch.jit.trace(network, x)(x), network(x))

    def test_errors_are_those_of_the_stages(self):
        with pytest.raises(InputError, match="deep_supervision is 2 in an unpadded network"):
            CascadedUNet3D(widths=TINY, deep_supervision=2)
        with pytest.raises(InputError, match=r"it takes \(batch, 1, D, H, W\)"):
            CascadedUNet3D(widths=TINY)(torch.zeros(1, 2, 92, 92, 92))

    @pytest.mark.parametrize("typed, size", [("true", (92, 92, 92)), ("false", (4, 4, 4))])
    def test_a_flag_from_a_command_line_is_read(self, typed, size):
        network = CascadedUNet3D(widths=TINY, padded=typed)
        assert network.padded is (typed == "true") and network.output_size((92, 92, 92)) == size
        with pytest.raises(InputError, match="padded is 'maybe'"):
            CascadedUNet3D(widths=TINY, padded="maybe")
