"""LiverTumourRAUNet: three networks under one roof, a channel for every label, members that are averaged."""

from __future__ import annotations

import pytest
import torch
from contracts import NetworkCase, NetworkContract
from torch import nn

from common.checks import InputError
from common.networks import LiverTumourRAUNet, RAUNet

TINY = {"localiser_width": 1, "width": 1}
LARGE = 1e4


class TestLiverTumourRAUNetContract(NetworkContract):
    network_class = LiverTumourRAUNet
    cases = [
        NetworkCase({"localiser_width": 1, "width": 4}, (2, 1, 32, 64, 32), (2, 3, 32, 64, 32)),
    ]

    def trained(self, network):
        return nn.ModuleList([network.liver, network.tumour])

    def learning(self, network):
        return network.eval()

    def test_an_ensemble_scripts_too(self):
        torch.manual_seed(0)
        network, x = LiverTumourRAUNet(**TINY, members=2).eval().double(), torch.randn(1, 1, 32, 32, 64).double()
        with torch.no_grad():
            torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def certain(network: RAUNet, logit: float) -> None:
    """Make a network say the same everywhere."""
    nn.init.zeros_(network.head.weight)
    nn.init.constant_(network.head.bias, logit)


class TestProbabilities:
    def test_parameters(self):
        with torch.device("meta"):
            counts = [sum(p.numel() for p in part.parameters()) for part in LiverTumourRAUNet().children()]
        assert counts == [737_897, 4_420_849, 4_420_849]

    @pytest.mark.parametrize("members", [1, 3])
    def test_a_channel_for_every_label(self, members):
        torch.manual_seed(0)
        network, x = LiverTumourRAUNet(**TINY, members=members).eval(), torch.randn(1, 1, 32, 32, 64)
        nets = [[stage] if isinstance(stage, RAUNet) else list(stage) for stage in (network.liver, network.tumour)]
        assert [len(each) for each in nets] == [members, members]
        with torch.no_grad():
            liver, tumour = (sum(net(x).sigmoid() for net in each) / members for each in nets)
            expected = torch.cat([1 - liver, liver * (1 - tumour), liver * tumour], 1)
            got = network(x)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(got.sum(1), torch.ones(1, 32, 32, 64))

    @pytest.mark.parametrize(
        ("liver", "tumour", "label"), [(-LARGE, LARGE, 0), (-LARGE, -LARGE, 0), (LARGE, -LARGE, 1), (LARGE, LARGE, 2)]
    )
    def test_no_tumour_outside_the_liver(self, liver, tumour, label):
        network = LiverTumourRAUNet(**TINY).eval()
        certain(network.liver, liver)
        certain(network.tumour, tumour)
        result = network(torch.zeros(1, 1, 32, 32, 32))
        assert torch.equal(result, torch.eye(3)[label].view(1, 3, 1, 1, 1).expand_as(result))

    def test_five_sure_members_are_sure(self):
        """Not 0.477, as where sums and counts of one member are left for the next."""
        network = LiverTumourRAUNet(**TINY, members=5).eval()
        for member in [*network.liver, *network.tumour]:
            certain(member, LARGE)
        assert (network(torch.zeros(1, 1, 32, 32, 32))[:, 2] == 1).all()


class TestStages:
    def test_children_are_those_that_are_trained(self):
        network = LiverTumourRAUNet(**TINY)
        for name, dims in [("localiser", 2), ("liver", 3), ("tumour", 3)]:
            assert network.child(name) is network.get_submodule(name)
            assert network.child(name).spatial_dims == dims
        network.check_trainable()
        network(torch.randn(2, 1, 32, 32, 32)).square().sum().backward()
        assert all(p.grad is None for p in network.localiser.parameters())

    def test_arguments_reach_all_three(self):
        network = LiverTumourRAUNet(**TINY, norm_momentum=0.2, save_memory="true", in_channels=2)
        for child in network.children():
            assert child.save_memory is True and child.in_channels == 2 and child.stem[1].momentum == 0.2

    def test_errors(self):
        with pytest.raises(InputError, match="no stage 'tumor': it must be one of localiser, liver.*use 'tumour'"):
            LiverTumourRAUNet(**TINY).child("tumor")
        ensemble = LiverTumourRAUNet(**TINY, members=2)
        with pytest.raises(InputError, match="2 members each: .*not trained.*members=1 and join their weights"):
            ensemble.check_trainable()
        with pytest.raises(InputError, match="members is 0: it must be a whole number"):
            LiverTumourRAUNet(**TINY, members=0)
        with pytest.raises(InputError, match="pad it to 32x64x32"):
            ensemble.output_size((32, 40, 32))
