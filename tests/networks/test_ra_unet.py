"""RA-UNet: the published figures, the published order of operations, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from contracts import NetworkCase, NetworkContract
from torch import nn
from torch.nn import functional as F

from common.checks import InputError
from common.networks import RAUNet
from common.networks.ra_parts import AttentionModule, PreActivationBlock, upsampled_convolution


def numbers(network: nn.Module) -> tuple[int, int]:
    """Trainable parameters, and those with the running statistics."""
    trained = sum(p.numel() for p in network.parameters())
    return trained, trained + sum(b.numel() for name, b in network.named_buffers() if not name.endswith("tracked"))


class TestRAUNetContract(NetworkContract):
    network_class = RAUNet
    cases = [
        NetworkCase({"width": 2}, (2, 1, 32, 64, 32), (2, 1, 32, 64, 32)),
        NetworkCase({"width": 2, "spatial_dims": 2}, (3, 1, 64, 96), (3, 1, 64, 96)),
        # instance normalisation of two values gives their signs: a dozen are needed for rounding not to matter
        NetworkCase(
            {"width": 2, "spatial_dims": 2, "norm": "instance", "in_channels": 2, "out_channels": 3},
            (1, 2, 128, 96),
            (1, 3, 128, 96),
        ),
    ]


class TestPublishedFigures:
    @pytest.mark.parametrize(
        ("arguments", "expected"), [({}, (4_420_849, 4_439_697)), ({"spatial_dims": 2, "width": 4}, (737_897, 747_321))]
    )
    def test_parameters(self, arguments, expected):
        with torch.device("meta"):
            assert numbers(RAUNet(**arguments)) == expected

    def test_brain_widths_are_not_this_network(self):
        """Guards the count above against a network whose every level doubles."""
        with torch.device("meta"):
            assert numbers(RAUNet(width=4))[0] < 4_420_849 / 3

    def test_grids_and_channels(self):
        """Table of the levels, at the size of the paper; every soft mask ends on the grid of the bottom."""
        with torch.device("meta"):
            network, x = RAUNet().eval(), torch.empty(1, 1, 224, 224, 32)
            seen: dict[str, tuple[int, ...]] = {}

            def note(name: str):
                def hook(module, given, result):
                    seen[name] = tuple(result.shape[1:])

                return hook

            for name, part in network.named_modules():
                part.register_forward_hook(note(name))
            assert network(x).shape == (1, 1, 224, 224, 32)
        assert seen["stem"] == (32, 224, 224, 32)
        levels = [(32, 112, 112, 16), (64, 56, 56, 8), (128, 28, 28, 4), (256, 14, 14, 2)]
        assert [seen[f"encoder.{i}"] for i in range(4)] == levels
        assert seen["bottom.0"] == seen["bottom.1"] == (512, 7, 7, 1)
        assert [seen[f"attention.{i}"] for i in range(4)] == [seen[f"decoder.{i}"] for i in range(4)] == levels[::-1]
        assert [seen[f"attention.{i}.down.{i}"] for i in range(4)] == [(c, 7, 7, 1) for c in (256, 128, 64, 32)]
        assert seen["join_norm"] == (32, 224, 224, 32)

    def test_kernels(self):
        network = RAUNet(width=1)
        assert network.head.kernel_size == (3, 3, 3) and network.stem[0].kernel_size == (3, 3, 3)
        assert all(conv.bias is not None for conv in network.modules() if isinstance(conv, nn.Conv3d))
        norms = [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm3d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
        assert not any(conv.bias.any() for conv in network.modules() if isinstance(conv, nn.Conv3d))

    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    def test_blocks_of_an_attention_module(self, depth):
        module = AttentionModule(3, 4, depth, "batch_running", 0.01)
        assert sum(isinstance(part, PreActivationBlock) for part in module.modules()) == 6 + 3 * (depth - 1)


# -- the same network as the paper draws it: concatenations, upsampling where it is drawn -----------------------------


def up(x: torch.Tensor) -> torch.Tensor:
    for axis in range(2, x.ndim):
        x = x.repeat_interleave(2, axis)
    return x


def pool(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool3d(x, 2) if x.ndim == 5 else F.max_pool2d(x, 2)


def block(part: PreActivationBlock, x: torch.Tensor) -> torch.Tensor:
    y = part.conv1(part.norm1(x).relu())
    y = part.conv2(part.norm2(y).relu())
    return part.conv3(part.norm3(y).relu()) + part.shortcut(x)


def attention(part: AttentionModule, x: torch.Tensor, depth: int) -> torch.Tensor:
    x = block(part.first, x)
    trunk = block(part.trunk[1], block(part.trunk[0], x))
    mask, skips = block(part.down[0], pool(x)), []
    for level in range(depth - 1):
        skips.append(block(part.skip[level], mask))
        mask = block(part.down[level + 1], pool(mask))
    for level in range(depth - 1):
        mask = up(block(part.up[level], mask)) + skips[-1 - level]
    mask = up(block(part.up[depth - 1], mask))
    mask = part.mask[1](part.mask[0](mask)).sigmoid()
    return block(part.last, (1 + mask) * trunk)


def as_drawn(network: RAUNet, x: torch.Tensor) -> torch.Tensor:
    first = network.stem[1](network.stem[0](x)).relu()
    levels = [first]
    for part in network.encoder:
        levels.append(block(part, pool(levels[-1])))
    x = block(network.bottom[1], block(network.bottom[0], pool(levels[-1])))
    for level in range(4):
        joined = torch.cat([up(x), attention(network.attention[level], levels[4 - level], level + 1)], 1)
        x = block(network.decoder[level], joined)
    x = network.join_norm[0](network.join(torch.cat([up(x), first], 1))).relu()
    return network.head(x)


def shaken(network: nn.Module) -> nn.Module:
    """Weights in double precision of which none is zero or one."""
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data + 0.1 * torch.rand_like(tensor)
    return network.double()


class TestOrderOfOperations:
    @pytest.mark.parametrize("norm", ["batch_running", "instance"])
    @pytest.mark.parametrize("save_memory", [False, True])
    @pytest.mark.parametrize("shape", [(2, 1, 32, 64, 64), (3, 1, 64, 96)])
    def test_result_gradients_and_statistics_are_those_of_the_drawing(self, shape, save_memory, norm):
        torch.manual_seed(0)
        network = shaken(RAUNet(len(shape) - 2, width=1, norm=norm, norm_momentum=0.3, save_memory=save_memory))
        other, x = copy.deepcopy(network), torch.randn(shape, dtype=torch.float64)
        got, expected = network(x), as_drawn(other, x)
        torch.testing.assert_close(got, expected)
        for result in (got, expected):
            result.sin().sum().backward()
        for (name, a), b in zip(network.named_parameters(), other.parameters()):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-8, msg=name)
        for (name, a), b in zip(network.named_buffers(), other.buffers()):
            torch.testing.assert_close(a, b, msg=name)
        # batch statistics in training, running ones at test
        assert torch.equal(network.eval()(x), got) == (norm == "instance")
        torch.testing.assert_close(network(x), as_drawn(other.eval(), x))

    def test_the_mask_strengthens(self):
        """(1 + S) * T: with S = 1 everywhere the trunk is doubled, with S = 0 it passes as it is."""
        torch.manual_seed(0)
        module = AttentionModule(2, 4, 2, "batch_running", 0.01).double().eval()
        x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
        trunk = module.trunk(module.first(x))
        for bias, factor in [(1e4, 2.0), (-1e4, 1.0)]:
            module.mask[1].bias.data.fill_(bias)
            torch.testing.assert_close(module(x), module.last(factor * trunk))

    def test_soft_mask_is_a_share(self):
        torch.manual_seed(0)
        mask = AttentionModule(3, 4, 3, "instance", 0.01).soft_mask(torch.randn(1, 4, 16, 16, 16))
        assert mask.shape == (1, 4, 8, 8, 8) and 0 < mask.min() < mask.max() < 1

    def test_shift_by_the_pooling_grid(self):
        """At test the network moves with the image, by multiples of 32 voxels, where no border is near."""
        torch.manual_seed(0)
        network = RAUNet(2, width=1).double().eval()
        x = torch.zeros(1, 1, 512, 512, dtype=torch.float64)
        x[..., 224:256, 224:256] = torch.rand(32, 32)
        moved = torch.roll(x, (32, -32), (2, 3))
        a, b = network(x), network(moved)
        torch.testing.assert_close(torch.roll(a, (32, -32), (2, 3))[..., 250:270, 190:220], b[..., 250:270, 190:220])

    @pytest.mark.parametrize("shape", [(2, 3, 4, 5, 3), (1, 3, 1, 2, 1), (2, 3, 4, 5), (1, 3, 1, 1)])
    def test_convolution_of_upsampled_features(self, shape):
        """Borders included."""
        torch.manual_seed(0)
        x, bias = torch.randn(shape, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
        weight = torch.randn(4, 3, *[3] * (len(shape) - 2), dtype=torch.float64)
        convolve = F.conv3d if len(shape) == 5 else F.conv2d
        torch.testing.assert_close(upsampled_convolution(x, weight, bias), convolve(up(x), weight, bias, padding=1))


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"spatial_dims": 4}, "spatial_dims is 4: it must be 2 .slices. or 3 .volumes."),
            ({"width": 0}, "width is 0: it must be a whole number, 1 or more.*use width=8"),
            ({"in_channels": 1.5}, "in_channels is 1.5"),
            ({"norm": "batch"}, "norm is 'batch': it must be one of batch_running, instance.*use norm='batch_running'"),
            ({"norm": None}, "norm is None"),
            ({"norm_momentum": 0.0}, "norm_momentum is 0.0.*use 0.01"),
            ({"save_memory": "perhaps"}, "save_memory is 'perhaps'"),
        ],
    )
    def test_arguments(self, arguments, text):
        with pytest.raises(InputError, match=text):
            RAUNet(**{"width": 1, **arguments})

    @pytest.mark.parametrize(
        ("arguments", "shape", "text"),
        [
            ({}, (2, 1, 32, 33, 31), "has 32x33x31 voxels: its sides must be multiples of 32.*pad it to 32x64x32"),
            ({}, (2, 1, 64, 64, 0), "has 64x64x0 voxels.*pad it to 64x64x32"),
            ({"spatial_dims": 2}, (2, 1, 250, 256), "has 250x256 voxels.*pad it to 256x256"),
            ({}, (2, 2, 32, 32, 32), r"shape \(2, 2, 32, 32, 32\): it takes \(batch, 1, D, H, W\).*set in_channels"),
            ({"spatial_dims": 2}, (2, 1, 32, 32, 32), r"it takes \(batch, 1, H, W\)"),
            ({}, (1, 1, 32, 32, 32), "one image of 32x32x32 voxels leaves one value per channel.*batch of two or more"),
            ({"spatial_dims": 2}, (1, 1, 32, 32), "one image of 32x32 voxels leaves one value"),
            (
                {"norm": "instance"},
                (4, 1, 32, 32, 32),
                "one value per channel is left.*use windows of 32x32x64 or more",
            ),
        ],
    )
    def test_images(self, arguments, shape, text):
        with pytest.raises(InputError, match=text):
            RAUNet(width=1, **arguments)(torch.zeros(shape))

    def test_one_value_per_channel_will_do_at_test(self):
        assert RAUNet(width=1).eval()(torch.zeros(1, 1, 32, 32, 32)).isfinite().all()

    def test_size_of_other_axes(self):
        with pytest.raises(InputError, match=r"size \(256, 256\) has 2 axes: it must be \(D, H, W\)"):
            RAUNet(width=1).output_size((256, 256))
