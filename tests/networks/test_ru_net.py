"""RUNet and its ensemble: published counts and receptive fields; the same result, however it is computed."""

from __future__ import annotations

import pytest
import torch
from contracts import NetworkCase, NetworkContract
from torch import nn
from torch.nn import functional as F

from common.checks import InputError
from common.networks import RUNet, RUNetEnsemble

VARIANTS = ["RF64", "RF88", "RF112"]
SMALL = (2, 1, 6, 12, 16)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class Slow(nn.Module):
    """The released network written down layer by layer, with the parameters of a :class:`RUNet`; no trick of any kind.

    huang2021runet as of the released code: upsampling, then 1x1x1 convolution, concatenation, heads of two channels.
    """

    def __init__(self, network: RUNet, dilations: tuple[int, int, int]) -> None:
        super().__init__()
        self.network, self.dilations = network, dilations

    def block(self, block: nn.Module, x: torch.Tensor, dilation: int) -> torch.Tensor:
        def conv(layer: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
            x = F.pad(x, (dilation,) * 4 + (layer.weight.shape[2] // 2,) * 2)
            return F.conv3d(x, layer.weight, layer.bias, dilation=(1, dilation, dilation))

        def norm(x: torch.Tensor) -> torch.Tensor:
            mean, var = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), unbiased=False, keepdim=True)
            return (x - mean) / (var + 1e-5).sqrt()

        first = conv(block.conv1, x)
        x = conv(block.conv2, torch.relu(norm(first)))
        x = conv(block.conv3, torch.relu(norm(x)))
        return torch.relu(norm(x) + first)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        encoder = self.network.encoder
        f1 = self.block(encoder.block1, x, self.dilations[0])
        f2 = self.block(encoder.block2, F.max_pool3d(f1, (1, 2, 2)), self.dilations[1])
        return f1, f2, self.block(encoder.block3, F.max_pool3d(f2, (2, 2, 2)), self.dilations[2])

    def locate(self, f3: torch.Tensor) -> torch.Tensor:
        logits = self.network.locator(f3)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, 1:]

    def decode(self, f1: torch.Tensor, f2: torch.Tensor, f3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        decoder = self.network.decoder
        x = F.interpolate(f3, scale_factor=(2, 2, 2), mode="trilinear")
        x = torch.cat([f2, torch.relu(decoder.conv2(x))], 1)
        x = self.block(decoder.block2, x, self.dilations[1])
        x = F.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear")
        x = torch.cat([f1, torch.relu(decoder.conv1(x))], 1)
        x = self.block(decoder.block1, x, self.dilations[0])
        return decoder.region(x).softmax(1)[:, 1:], decoder.contour(x).softmax(1)[:, 1:]


DILATIONS = {"RF64": (1, 1, 1), "RF88": (1, 1, 2), "RF112": (1, 2, 2)}


def reached(network: nn.Module) -> nn.Module:
    """What the gradient of `forward` reaches: not the locator, nor the contour's head."""
    return nn.ModuleList(
        module
        for member in (network.members.values() if isinstance(network, RUNetEnsemble) else [network])
        for module in (member.encoder, *(m for name, m in member.decoder.named_children() if name != "contour"))
    )


class TestRUNetContract(NetworkContract):
    network_class = RUNet
    cases = [
        NetworkCase({"width": 4}, (1, 1, 8, 16, 16), (1, 1, 8, 16, 16)),
        NetworkCase({"width": 4, "variant": "RF64", "locator": "softmax"}, (2, 1, 4, 12, 20), (2, 1, 4, 12, 20)),
        NetworkCase({"width": 3, "variant": "RF112", "in_channels": 2}, (1, 2, 2, 16, 12), (1, 1, 2, 16, 12)),
        NetworkCase({"width": 4, "save_memory": True}, (2, 1, 6, 16, 16), (2, 1, 6, 16, 16)),
    ]

    def trained(self, network):
        return reached(network)


class TestRUNetEnsembleContract(NetworkContract):
    network_class = RUNetEnsemble
    cases = [
        NetworkCase({"width": 3}, (1, 1, 6, 16, 16), (1, 1, 6, 16, 16)),
        NetworkCase({"width": 2, "variants": ["RF112"], "save_memory": True}, (1, 1, 4, 8, 16), (1, 1, 4, 8, 16)),
    ]

    def trained(self, network):
        return reached(network)


class TestPublishedFigures:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("locator, count", [("sigmoid", 4_255_589), ("softmax", 4_255_782)])
    def test_parameters(self, variant, locator, count):
        with torch.device("meta"):
            network = RUNet(variant, locator=locator)
            assert parameters(network) == count
            assert parameters(network.decoder) == 1_102_084
            assert sum(p.numel() for p in network.locator_parameters()) == count - 1_102_084

    def test_parameters_of_the_ensemble(self):
        with torch.device("meta"):
            network = RUNetEnsemble(locator="softmax")
        assert parameters(network) == 3 * 4_255_782
        assert sum(p.numel() for p in network.locator_parameters()) == 3 * 3_153_698

    def test_initial_weights_have_the_variance_of_he(self):
        torch.manual_seed(0)
        network = RUNet(width=16)
        assert network.encoder.block3.conv2.weight.var().item() == pytest.approx(2 / (64 * 27), rel=0.02)
        assert network.decoder.block1.conv1.weight.var().item() == pytest.approx(2 / (32 * 9), rel=0.1)
        assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


class Bypass(nn.Module):
    """In place of a normalisation: a copy."""

    def forward(self, x):
        return x.clone()


class TestReceptiveField:
    """Which voxels of the image a voxel of the result depends on, through gradients, without normalisations."""

    @staticmethod
    def fields(variant: str, upsampling: str, plane: int) -> list[tuple[int, ...]]:
        """Of voxels at the four places along the axes of one cell."""
        network = RUNet(variant, width=1).double()
        for parameter in network.parameters():
            nn.init.constant_(parameter, 0.1)
        nn.init.zeros_(network.decoder.region.weight[:1].detach())
        for module in network.modules():
            if isinstance(module, nn.Upsample):
                module.mode = upsampling
            if hasattr(module, "norm"):
                module.norm = Bypass()
        torch.manual_seed(0)
        x = (1 + 0.001 * torch.rand(1, 1, 36, plane + 16, plane + 16, dtype=torch.float64)).requires_grad_()
        region, _ = network.decode(*network.encode(x))
        found, last = [], torch.tensor(x.shape[2:]) - 1
        for place in range(4):
            voxel = region[0, 0, 16 + place % 2, plane // 8 * 4 + 4 + place, plane // 8 * 4 + 4 + place]
            (gradient,) = torch.autograd.grad(voxel, x, retain_graph=True)
            touched = gradient[0, 0].nonzero()
            assert (touched.amin(0) > 0).all() and (touched.amax(0) < last).all()
            found.append(tuple((touched.amax(0) - touched.amin(0) + 1).tolist()))
        return found

    @pytest.mark.parametrize("variant, plane", [("RF64", 64), ("RF88", 88), ("RF112", 112)])
    def test_published(self, variant, plane):
        """With upsampling that repeats; in the plane a voxel's field depends on its place in the cell: the mean."""
        fields = torch.tensor(self.fields(variant, "nearest", plane), dtype=torch.float64)
        assert fields.mean(0).tolist() == [26, plane, plane]
        assert (fields - fields.mean(0)).abs().max() == 2 and (fields[:, 0] == 26).all()

    @pytest.mark.parametrize("variant, plane", [("RF64", 64), ("RF88", 88), ("RF112", 112)])
    def test_interpolation_reaches_further(self, variant, plane):
        assert self.fields(variant, "trilinear", plane) == [(28, plane + 6, plane + 6)] * 4


class TestAgainstTheReleasedOrder:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("locator", ["sigmoid", "softmax"])
    @pytest.mark.parametrize("grad", [True, False])
    def test_same_features_and_probabilities(self, variant, locator, grad):
        torch.manual_seed(0)
        network = RUNet(variant, width=3, locator=locator).double()
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)
        slow, x = Slow(network, DILATIONS[variant]), torch.randn(SMALL, dtype=torch.float64)
        with torch.set_grad_enabled(grad):
            features = network.encode(x)
            torch.testing.assert_close(features, slow.encode(x))
            torch.testing.assert_close(network.locate(features[2]).sigmoid(), slow.locate(features[2]))
            torch.testing.assert_close(
                tuple(logits.sigmoid() for logits in network.decode(*features)), slow.decode(*features)
            )
            torch.testing.assert_close(network(x), slow.decode(*features)[0])

    def test_ensemble_is_the_mean_of_its_members(self):
        torch.manual_seed(0)
        network, x = RUNetEnsemble(VARIANTS[1:], width=2), torch.randn(SMALL)
        members = [network.members["RF88"](x), network.members["RF112"](x)]
        torch.testing.assert_close(network(x), (members[0] + members[1]) / 2)
        assert not torch.allclose(*members)
        assert [member.variant for member in network.members.values()] == VARIANTS[1:]

    def test_items_of_a_batch_do_not_meet(self):
        torch.manual_seed(0)
        network, x = RUNet(width=2), torch.randn(SMALL)
        torch.testing.assert_close(network(x)[1:], network(x[1:]))

    def test_result_is_the_same_in_training_and_at_test(self):
        torch.manual_seed(0)
        network, x = RUNet(width=2), torch.randn(SMALL)
        assert torch.equal(network.train()(x), network.eval()(x))


class TestSteps:
    def test_shapes(self):
        network = RUNet(width=3)
        f1, f2, f3 = network.encode(torch.randn(1, 1, 6, 20, 24))
        assert (f1.shape, f2.shape, f3.shape) == ((1, 3, 6, 20, 24), (1, 6, 6, 10, 12), (1, 12, 3, 5, 6))
        assert network.locate(f3).shape == (1, 1, 3, 5, 6)
        region, contour = network.decode(f1[..., 2:4, 4:12, 8:24], f2[..., 2:4, 2:6, 4:12], f3[..., 1:2, 1:3, 2:6])
        assert region.shape == contour.shape == (1, 1, 2, 8, 16)
        assert network.cell == RUNetEnsemble(width=1).cell == (2, 4, 4)

    def test_an_roi_of_one_cell_can_be_decoded(self):
        network = RUNet(width=3)
        crops = torch.randn(1, 3, 2, 4, 4), torch.randn(1, 6, 2, 2, 2), torch.randn(1, 12, 1, 1, 1)
        region, contour = network.decode(*crops)
        assert region.shape == contour.shape == (1, 1, 2, 4, 4)
        assert region.isfinite().all() and contour.isfinite().all()

    def test_gradient_reaches_the_encoder_from_every_head(self):
        torch.manual_seed(0)
        network = RUNet(width=2)
        features = network.encode(torch.randn(SMALL))
        heads = [network.locate(features[2]), *network.decode(*features)]
        for head in heads:
            (gradient,) = torch.autograd.grad(
                head.square().sum(), network.encoder.block1.conv1.weight, retain_graph=True
            )
            assert gradient.any()

    def test_steps_can_be_scripted(self):
        torch.manual_seed(0)
        network, x = RUNet("RF112", width=2, locator="softmax"), torch.randn(SMALL)
        scripted = torch.jit.script(network)
        features = network.encode(x)
        torch.testing.assert_close(scripted.encode(x), features)
        torch.testing.assert_close(scripted.locate(features[2]), network.locate(features[2]))
        torch.testing.assert_close(scripted.decode(*features), network.decode(*features))


class TestErrors:
    @pytest.mark.parametrize(
        "arguments, text",
        [
            ({"variant": "RF80"}, "variant is 'RF80': it must be one of RF64, RF88, RF112.* use variant='RF88'"),
            ({"locator": "softmx"}, "locator is 'softmx': .* use locator='softmax'"),
            ({"width": 0}, "width is 0: it must be a whole number, 1 or more"),
            ({"width": 2.5}, "width is 2.5"),
            ({"in_channels": 0}, "in_channels is 0"),
            ({"save_memory": "maybe"}, "save_memory is 'maybe'"),
        ],
    )
    def test_arguments(self, arguments, text):
        with pytest.raises(InputError, match=text):
            RUNet(**arguments)
        if "variant" not in arguments:
            with pytest.raises(InputError, match=text):
                RUNetEnsemble(**arguments)

    @pytest.mark.parametrize("variants", [[], ["RF64", "RF64"], "RF64", 88, None, [["RF64"]], [88]])
    def test_variants(self, variants):
        with pytest.raises(InputError, match="variants is .*one or more different variants.*'RF112'"):
            RUNetEnsemble(variants, width=1)

    @pytest.mark.parametrize(
        "size, padded",
        [((5, 16, 16), "6x16x16"), ((4, 15, 18), "4x16x20"), ((1, 1, 1), "2x4x8"), ((2, 4, 4), "2x4x8")],
    )
    @pytest.mark.parametrize("network", [RUNet(width=1), RUNetEnsemble(width=1)])
    def test_sizes(self, network, size, padded):
        text = f"the input has {'x'.join(map(str, size))} voxels: .* multiples of 2x4x4.* pad it to {padded}"
        with pytest.raises(InputError, match=text):
            network(torch.zeros(1, 1, *size))
        with pytest.raises(InputError, match=text):
            network.output_size(size)
        network(torch.zeros(1, 1, *map(int, padded.split("x"))))

    def test_axes_and_channels(self):
        network = RUNet(width=1)
        with pytest.raises(InputError, match=r"shape \(1, 2, 4, 8, 8\): it takes \(batch, 1, D, H, W\)"):
            network(torch.zeros(1, 2, 4, 8, 8))
        with pytest.raises(InputError, match=r"shape \(1, 4, 8, 8\)"):
            network.encode(torch.zeros(1, 4, 8, 8))
        with pytest.raises(InputError, match="has 2 axes"):
            network.output_size((8, 8))

    def test_crops_of_different_boxes(self):
        network = RUNet(width=1)
        f1, f2, f3 = network.encode(torch.zeros(1, 1, 4, 8, 8))
        with pytest.raises(
            InputError, match="have 4x8x8, 4x4x4, 1x2x2 voxels: .* 2d 4h 4w .* crop the three by one box"
        ):
            network.decode(f1, f2, f3[:, :, 1:])

    @pytest.mark.parametrize("typed", ["true", "false"])
    def test_a_flag_from_a_command_line_is_read(self, typed):
        assert RUNet(width=1, save_memory=typed).save_memory is (typed == "true")
