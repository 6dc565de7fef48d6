"""UNet3D: the published sizes and counts, padded and unpadded, and tiles that agree with the whole."""

from __future__ import annotations

import pytest
import torch
from contracts import NetworkCase, NetworkContract
from monai.losses import DeepSupervisionLoss
from torch.nn import functional as F

from common.checks import InputError
from common.losses import LabelledDiceCELoss
from common.networks import UNet3D

TINY = (2, 3, 4, 5)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class TestUNet3DContract(NetworkContract):
    network_class = UNet3D
    cases = [
        NetworkCase({"widths": TINY}, (1, 3, 92, 92, 92), (1, 3, 4, 4, 4)),
        NetworkCase({"widths": (2, 4), "norm": None, "up_bias": True}, (2, 3, 20, 22, 18), (2, 3, 4, 6, 2)),
        NetworkCase(
            {"widths": (2, 4), "norm": "batch_running", "conv_bias": "first", "up_norm": True},
            (1, 3, 20, 22, 18),
            (1, 3, 4, 6, 2),
        ),
        NetworkCase({"widths": (4,), "norm": "group", "num_groups": 2}, (2, 3, 7, 8, 9), (2, 3, 3, 4, 5)),
        NetworkCase(
            {"widths": TINY, "padded": True, "in_channels": 1, "out_channels": 8},
            (2, 1, 17, 12, 16),
            (2, 8, 17, 12, 16),
        ),
        NetworkCase(
            {"widths": TINY, "padded": True, "norm": "instance", "up_norm": True}, (1, 3, 9, 5, 1), (1, 3, 9, 5, 1)
        ),
        NetworkCase({"widths": TINY[:3], "padded": True, "norm": None}, (1, 3, 1, 2, 3), (1, 3, 1, 2, 3)),
    ]


class TestPublishedFigures:
    def test_parameters_and_tile_of_the_paper(self):
        with torch.device("meta"):
            network = UNet3D(in_channels=3, out_channels=3, norm=None)
            assert parameters(network) == 19_069_955
            assert network(torch.empty(1, 3, 132, 132, 116)).shape == (1, 3, 44, 44, 28)

    @pytest.mark.parametrize("classes, count", [(8, 19_072_712), (21, 19_073_557)])
    def test_parameters_of_the_cascade(self, classes, count):
        with torch.device("meta"):
            network = UNet3D(1, classes, norm="batch", conv_bias="first", up_norm=True)
            assert parameters(network) == count
            assert network(torch.empty(1, 1, 132, 132, 116)).shape == (1, classes, 44, 44, 28)

    def test_batch_norm_adds_its_scale_and_shift_only(self):
        with torch.device("meta"):
            assert parameters(UNet3D(conv_bias="all")) == 19_074_627
            assert parameters(UNet3D()) == 19_074_627 - 2_336

    def test_up_bias(self):
        with torch.device("meta"):
            assert parameters(UNet3D(norm=None, up_bias=True)) == 19_069_955 + 512 + 256 + 128

    def test_initial_weights_have_the_msra_variance(self):
        torch.manual_seed(0)
        network = UNet3D(widths=(16, 32), norm=None)
        weight = network.synthesis[0].join.weight
        assert weight.var().item() == pytest.approx(2 / (96 * 27), rel=0.05)
        up = network.synthesis[0].up.conv.weight
        assert up.var().item() == pytest.approx(2 / (64 * 8), rel=0.05)
        assert not network.score.bias.any()


class TestSizes:
    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    def test_size_rule_holds_against_the_layers(self, depth):
        """Build the size layer by layer, the slow way, for every size up to twice the smallest."""

        def slow(n: int) -> int | None:
            sizes = []
            for level in range(depth):
                if level:
                    if n % 2:
                        return None
                    n //= 2
                n -= 4
                sizes.append(n)
            for _ in range(depth - 1):
                n = 2 * n - 4
            return n if n > 0 and min(sizes) > 0 else None

        network = UNet3D(widths=(1,) * depth, norm=None)
        for n in range(1, 200):
            expected = slow(n)
            if expected is None:
                with pytest.raises(InputError, match=f"{n}x{n}x{n}"):
                    network.output_size((n, n, n))
            else:
                assert network.output_size((n, n, n)) == (expected,) * 3
            best = min((m for m in range(1, 400) if slow(m)), key=lambda m: (abs(m - n), -m))
            assert network.nearest_size((n, n, n)) == (best,) * 3

    def test_error_names_rule_and_nearest_size(self):
        network = UNet3D(widths=TINY)
        with pytest.raises(InputError, match=r"128x132x100 voxels: .* must be 92 \+ a multiple of 8\. .* 132x132x100"):
            network(torch.zeros(1, 3, 128, 132, 100))
        with pytest.raises(InputError, match="nearest valid size, 92x92x92"):
            network.output_size(torch.Size([20, 90, 4]))

    def test_error_names_channels(self):
        with pytest.raises(InputError, match=r"\(1, 1, 92, 92, 92\): it takes \(batch, 3, D, H, W\)"):
            UNet3D(widths=TINY)(torch.zeros(1, 1, 92, 92, 92))
        with pytest.raises(InputError, match="has 2 axes"):
            UNet3D(widths=TINY).output_size((92, 92))

    @pytest.mark.parametrize("kind", [list, tuple, torch.Size])
    def test_size_may_come_in_any_sequence(self, kind):
        assert UNet3D(widths=TINY).output_size(kind([132, 132, 116])) == (44, 44, 28)

    @pytest.mark.parametrize("norm", ["batch", "instance", "batch_running"])
    def test_padded_bottom_of_one_voxel_has_no_statistics(self, norm):
        network = UNet3D(widths=TINY, padded=True, norm=norm)
        with pytest.raises(InputError, match="one axis must exceed 8 voxels. .* nearest valid size, 4x9x2"):
            network(torch.zeros(1, 3, 4, 8, 2))
        assert network(torch.zeros(1, 3, 4, 9, 2)).shape[2:] == (4, 9, 2)

    @pytest.mark.parametrize("norm", [None, "group"])
    def test_padded_takes_one_voxel_where_the_norm_allows(self, norm):
        network = UNet3D(widths=(2, 2, 2, 2), padded=True, norm=norm, num_groups=1)
        assert network(torch.zeros(1, 3, 1, 1, 1)).shape[2:] == (1, 1, 1)


class TestArguments:
    @pytest.mark.parametrize(
        "arguments, text",
        [
            ({"norm": "bach"}, "norm is 'bach': .* use norm='batch'"),
            ({"widths": []}, r"widths is \[\]: it must list a whole number of channels per level"),
            ({"widths": [4, 0]}, r"widths is \[4, 0\]"),
            ({"in_channels": 0}, "in_channels is 0 .* both must be 1 or more"),
            ({"conv_bias": "some"}, "conv_bias is 'some': it must be one of all, first, none, None"),
            ({"norm": None, "up_norm": True}, "up_norm is true with norm None"),
            ({"norm": "group", "widths": (4, 6)}, "num_groups is 8 at a layer of 4 channels"),
            ({"deep_supervision": 1}, "deep_supervision is 1 in an unpadded network: .* set padded to true"),
            ({"deep_supervision": 3, "padded": True}, "is 3 in a network of 4 levels: .* 0 to 2.* use 2 or less"),
            ({"deep_supervision": -1, "padded": True}, "deep_supervision is -1"),
            ({"deep_supervision": 1, "padded": True, "widths": [4]}, "of 1 levels: .* 0 to 0"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, text):
        with pytest.raises(InputError, match=text):
            UNet3D(**arguments)

    def test_current_statistics_also_at_test(self):
        torch.manual_seed(0)
        network, x = UNet3D(widths=(2, 4)), torch.randn(1, 3, 20, 20, 20)
        assert torch.equal(network.train()(x), network.eval()(x))
        running = UNet3D(widths=(2, 4), norm="batch_running")
        assert not torch.allclose(running.train()(x), running.eval()(x))


class TestReach:
    """Which voxels of the input an output voxel depends on, found through gradients."""

    @staticmethod
    def reach(network: UNet3D, size: tuple[int, int, int], outputs: slice) -> tuple[int, int]:
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        x = (1 + 0.001 * torch.rand(1, network.in_channels, *size, dtype=torch.float64)).requires_grad_()
        network.double()(x)[0, 0, outputs].sum().backward()
        touched = x.grad[0].abs().sum(dim=(0, 2, 3)).nonzero().flatten()
        return int(touched.min()), int(touched.max())

    def test_result_depends_on_88_voxels_more_than_it_holds(self):
        network = UNet3D(1, 1, widths=(1, 1, 1, 1), norm=None)
        assert network.halo == 44 and network.stride == 8
        assert self.reach(network, (108, 92, 92), slice(None)) == (0, 107)
        # The first four and the last four of an output of twenty: aligned with the pooling grid, 4 + 88 voxels each.
        assert self.reach(network, (108, 92, 92), slice(0, 4)) == (0, 91)
        assert self.reach(network, (108, 92, 92), slice(16, 20)) == (16, 107)

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_halo_of_other_depths(self, depth):
        network = UNet3D(1, 1, widths=(1,) * depth, norm=None)
        n = network.nearest_size((60, 1, 1))
        assert network.output_size(n)[0] + 2 * network.halo == n[0]
        assert self.reach(network, n, slice(None)) == (0, n[0] - 1)


@pytest.mark.parametrize(
    "arguments", [{"norm": None}, {"norm": "batch_running"}, {"norm": "batch_running", "up_norm": True}]
)
@pytest.mark.parametrize("depth", [2, 3])
def test_tiles_agree_with_the_whole(arguments, depth):
    """Without statistics of the tile, tiles whose starts lie on the pooling grid repeat the untiled result."""
    torch.manual_seed(0)
    network = UNet3D(widths=(3, 4, 5)[:depth], **arguments).train()
    whole_size = network.nearest_size([2 * network.halo + 28] * 3)
    x = torch.randn(1, 3, *whole_size)
    with torch.no_grad():
        network(x)  # gives running statistics that are not those of any tile
        whole = network.eval()(x)
        tile = network.nearest_size([2 * network.halo + 12] * 3)
        result = network.output_size(tile)
        assert whole.shape[2] > result[0]
        for start in range(0, whole.shape[2] - result[0] + 1, network.stride):
            part = network(x[:, :, start : start + tile[0], : tile[1], start : start + tile[2]])
            expected = whole[:, :, start : start + result[0], : result[1], start : start + result[2]]
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_the_tile_make_tiles_differ():
    torch.manual_seed(0)
    network, x = UNet3D(widths=(3, 4), norm="batch").eval(), torch.randn(1, 3, 30, 30, 30)
    x[:, :, :15] *= 3
    with torch.no_grad():
        assert not torch.allclose(network(x[:, :, :20, :20, :20]), network(x)[:, :, :4, :4, :4], atol=1e-2)


def test_padded_interior_equals_unpadded():
    """Zeros at the border are all that differs between the modes, at two levels, whose pooling grids coincide."""
    torch.manual_seed(0)
    valid = UNet3D(widths=(3, 4), norm=None)
    padded = UNet3D(widths=(3, 4), norm=None, padded=True)
    padded.load_state_dict(valid.state_dict())
    x = torch.randn(1, 3, 26, 24, 22)
    with torch.no_grad():
        inner = padded(x)[:, :, 8:-8, 8:-8, 8:-8]
        torch.testing.assert_close(inner, valid(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8, 8), (16, 24, 8)])
def test_padded_odd_size_is_pooled_without_invented_values(size):
    """One plane more of the smallest value at the end changes nothing that pooling sees."""
    torch.manual_seed(0)
    network = UNet3D(widths=(2, 3), norm=None, padded=True)
    x = torch.randn(1, 3, *size)
    features = network.analysis[0](x)[:, :, :-1]
    with torch.no_grad():
        below = torch.cat([features, torch.full_like(features[:, :, :1], -1e9)], dim=2)
        assert torch.equal(network.pool(features), torch.nn.functional.max_pool3d(below, 2))


class TestDeepSupervision:
    @staticmethod
    def build(count: int, **arguments) -> UNet3D:
        torch.manual_seed(0)
        return UNet3D(1, 3, widths=TINY, norm="instance", padded=True, deep_supervision=count, **arguments)

    @pytest.mark.parametrize("count", [1, 2])
    def test_training_gives_a_list_and_evaluation_one_tensor(self, count):
        network, x = self.build(count), torch.randn(2, 1, 17, 12, 9)
        scores = network.train()(x)
        assert [tuple(one.shape) for one in scores] == [(2, 3, 17, 12, 9), (2, 3, 9, 6, 5), (2, 3, 5, 3, 3)][
            : count + 1
        ]
        torch.testing.assert_close(network.eval()(x), scores[0])

    def test_lower_scores_change_nothing_for_who_has_none(self):
        """Same names, same weights of a seed, and the same result with the weights of the other."""
        plain, deep, x = self.build(0), self.build(2), torch.randn(1, 1, 9, 10, 11)
        extra = {f"deep_scores.{level}.{kind}" for level in (0, 1) for kind in ("weight", "bias")}
        assert deep.state_dict().keys() - plain.state_dict().keys() == extra
        assert list(plain.state_dict()) == [name for name in deep.state_dict() if name not in extra]
        assert parameters(deep) - parameters(plain) == 3 * (2 * 3 + 1) + 3 * (2 * 4 + 1)
        assert isinstance(plain.train()(x), torch.Tensor)
        deep.load_state_dict(plain.state_dict(), strict=False)
        assert torch.equal(deep.train()(x)[0], plain(x))

    def test_lower_score_is_that_of_its_level(self):
        """Each is found again from the features that its level of the synthesis path puts out."""
        network, x, seen = self.build(2), torch.randn(1, 1, 8, 16, 12), []
        for level_up in network.synthesis:
            level_up.register_forward_hook(lambda module, inputs, result: seen.append(result))
        scores = network.train()(x)
        for level, head in enumerate((network.score, *network.deep_scores)):
            torch.testing.assert_close(scores[level], head(seen[2 - level]))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    @pytest.mark.parametrize("size", [(8, 16, 8), (17, 12, 9)])
    def test_loss_of_monai_with_integer_labels(self, size, dtype):
        """The sum over the levels, halved at each, with labels of the nearest voxels; unlabelled ones stay out."""
        network, x = self.build(2), torch.randn(2, 1, *size)
        label = torch.randint(0, 3, (2, 1, *size)).to(dtype)
        label[torch.rand(label.shape) < 0.3] = 255
        loss = LabelledDiceCELoss(ignore_index=255)
        scores = network.train()(x)
        value = DeepSupervisionLoss(loss)(scores, label)
        expected = 0.0
        for level, score in enumerate(scores):
            nearest = F.interpolate(label.double(), score.shape[2:], mode="nearest-exact")
            assert set(nearest.unique().tolist()) <= {0, 1, 2, 255} and (nearest == 255).any()
            expected += loss(score, nearest.long()) / 2**level
        torch.testing.assert_close(value, expected)
        value.backward()
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())

    def test_scripted_network_always_returns_the_one_tensor(self):
        network, x = self.build(2), torch.randn(1, 1, 9, 10, 11)
        expected = network.train()(x)[0]
        scripted = torch.jit.script(network)
        torch.testing.assert_close(scripted.train()(x), expected)
        torch.testing.assert_close(scripted.eval()(x), expected)
        torch.testing.assert_close(torch.jit.trace(network.eval(), x)(x), expected)


@pytest.mark.parametrize("padded", [False, True])
def test_layout_of_memory_is_kept_and_changes_rounding_only(padded):
    torch.manual_seed(0)
    plain, other = (UNet3D(1, 3, (4, 8), padded=padded, channels_last=flag).double() for flag in (False, "true"))
    other.load_state_dict(plain.state_dict())
    layout = torch.channels_last_3d
    assert all(p.is_contiguous(memory_format=layout) for p in other.parameters() if p.dim() == 5)
    assert not all(p.is_contiguous(memory_format=layout) for p in plain.parameters() if p.dim() == 5)
    x = torch.randn(2, 1, 32, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(other(x), plain(x))
        features = other.float().analysis[0](x.float())
    assert features.is_contiguous(memory_format=layout) or not torch.backends.mkldnn.is_available()
