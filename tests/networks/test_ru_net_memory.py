"""RU-Net with less memory: features computed again in the backward pass, and slabs in place without gradients."""

from __future__ import annotations

import functools

import pytest
import torch
from kept import saved_bytes

from common.networks import ResidualBlock, RUNet, residual

VARIANTS = ["RF64", "RF88", "RF112"]
SMALL = (2, 1, 6, 12, 16)


class TestSaveMemory:
    """Features computed again in the backward pass: the same numbers, from less that is kept."""

    @staticmethod
    def heads(network: RUNet, x: torch.Tensor) -> list[torch.Tensor]:
        """Heat map and two regions: one in the middle, one at the border, cut off."""
        f1, f2, f3 = network.encode(x)
        results = [network.locate(f3)]
        for d, h, w in [(slice(1, 2), slice(1, 3), slice(0, 3)), (slice(0, 3), slice(2, 4), slice(3, 5))]:
            scaled = [
                tuple(slice(n * s.start, n * s.stop) for n, s in zip(strides, (d, h, w)))
                for strides in [(2, 4, 4), (2, 2, 2), (1, 1, 1)]
            ]
            results += network.decode(*(f[(..., *box)] for f, box in zip((f1, f2, f3), scaled)))
        return results

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_same_result_and_gradients(self, variant, dtype):
        torch.manual_seed(0)
        plain = RUNet(variant, width=3)
        saving = RUNet(variant, width=3, save_memory=True)
        saving.load_state_dict(plain.state_dict())
        x = torch.randn(2, 1, 6, 16, 20)
        got = []
        for network in (plain, saving):
            if dtype == torch.float64:
                network, image = network.double(), x.double().requires_grad_()
            else:
                image = x.clone().requires_grad_()
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                results = self.heads(network, image)
            sum((result.float().sin() * (i + 1)).sum() for i, result in enumerate(results)).backward()
            got.append((results, [image.grad, *(p.grad for p in network.parameters())]))
        assert all(torch.equal(a, b) for a, b in zip(*(results for results, _ in got)))
        for (name, _), a, b in zip([("x", x), *plain.named_parameters()], *(gradients for _, gradients in got)):
            assert torch.equal(a, b), name

    def test_bytes_kept_at_the_size_of_the_paper(self):
        """Two regions of 24x96x96 voxels, larger than tumours with their margins are."""
        kept = {}
        for save_memory in (False, True):
            with torch.device("meta"):
                network = RUNet(save_memory=save_memory)
                x = torch.empty(1, 1, 40, 256, 320)

            def step(whole: bool, network: RUNet = network, x: torch.Tensor = x) -> list[torch.Tensor]:
                f1, f2, f3 = network.encode(x)
                if whole:
                    return [network.locate(f3), *network.decode(f1, f2, f3)]
                crops = f1[..., :24, :96, :96], f2[..., :24, :48, :48], f3[..., :12, :24, :24]
                return [network.locate(f3), *network.decode(*crops), *network.decode(*crops)]

            for whole in (False, True):
                kept[save_memory, whole] = saved_bytes(functools.partial(step, whole)) / 1e9
        assert kept[False, True] < 13.4 and kept[False, False] < 7.7  # a 3D U-Net as one writes it keeps 17 GB
        assert kept[True, False] < 0.27 * kept[False, False] and kept[True, True] < 0.41 * kept[False, True]

    def test_kept_crops_do_not_keep_the_volume(self):
        network = RUNet(width=2, save_memory=True)
        f1, f2, f3 = network.encode(torch.randn(1, 1, 8, 64, 64))
        crops = f1[..., :2, :4, :8], f2[..., :2, :2, :4], f3[..., :1, :1, :2]
        assert saved_bytes(lambda: network.decode(*crops)) < f3.nbytes / 2


@pytest.fixture(params=[1, 300, 4000])
def slab(request, monkeypatch):
    """Slabs of one slice, of some, of all of them."""
    monkeypatch.setattr(residual, "SLAB", request.param)


@pytest.mark.usefixtures("slab")
class TestWithoutGradients:
    """Slab by slab and in place: the same numbers as with gradients, whatever the slabs."""

    @pytest.mark.parametrize("depth, dilation", [(1, 1), (1, 2), (3, 1), (3, 2)])
    @pytest.mark.parametrize("shape", [(2, 5, 7, 6, 5), (1, 5, 1, 4, 9), (1, 5, 2, 3, 3)])
    @pytest.mark.parametrize("parts", [[5], [2, 3]])
    def test_block(self, depth, dilation, shape, parts):
        torch.manual_seed(0)
        block = ResidualBlock(5, 4, depth, dilation).double()
        inputs = torch.randn(shape, dtype=torch.float64).split(parts, 1)
        before = [x.clone() for x in inputs]
        expected = block(*inputs)
        with torch.no_grad():
            torch.testing.assert_close(block(*inputs), expected)
        assert all(torch.equal(a, b) for a, b in zip(inputs, before))

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_steps_leave_features_as_they_were(self, context):
        torch.manual_seed(0)
        network, x = RUNet(width=2).double(), torch.randn(1, 1, 6, 16, 20, dtype=torch.float64)
        expected = TestSaveMemory.heads(network, x)
        with context():
            f1, f2, f3 = network.encode(x)
            before = [f.clone() for f in (f1, f2, f3)]
            network.locate(f3)
            network.decode(f1[..., :2, 4:12, :8], f2[..., :2, 2:6, :4], f3[..., :1, 1:3, :2])
            assert all(torch.equal(a, b) for a, b in zip((f1, f2, f3), before))
            torch.testing.assert_close(TestSaveMemory.heads(network, x), expected)

    def test_mean_far_from_zero_costs_no_digits(self):
        torch.manual_seed(0)
        x = 1000 + torch.randn(2, 3, 5, 20, 20) * torch.tensor([0.1, 1, 10]).view(3, 1, 1, 1)
        mean, scale = residual.moments(x, 0.0)
        var, expected = torch.var_mean(x.double(), (2, 3, 4), correction=0, keepdim=True)
        torch.testing.assert_close(mean.double(), expected, rtol=1e-7, atol=0)
        torch.testing.assert_close(scale.double(), var.rsqrt(), rtol=1e-4, atol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_normalised_in_full(self, dtype):
        torch.manual_seed(0)
        x = (100 + torch.randn(1, 2, 5, 20, 20)).to(dtype)
        mean, scale = residual.moments(x, 1e-5)
        assert mean.dtype == scale.dtype == torch.float32
        torch.testing.assert_close(mean, x.double().mean((2, 3, 4), keepdim=True).float(), rtol=1e-6, atol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_network_of_half_precision(self, dtype):
        torch.manual_seed(0)
        network, x = RUNet(width=4), torch.randn(SMALL)
        expected = network(x)
        with torch.no_grad():
            got = network.to(dtype)(x.to(dtype))
        assert got.dtype == dtype
        assert (got.float() - expected).abs().mean() < 0.02

    def test_a_constant_volume(self):
        network = RUNet(width=2)
        x = torch.full((1, 1, 4, 8, 8), 3.0)
        expected = network(x)
        with torch.no_grad():
            torch.testing.assert_close(network(x), expected)

    def test_not_a_number_spreads_within_its_item(self):
        network, x = RUNet(width=2), torch.randn(SMALL)
        x[0, 0, 3, 3, 3] = torch.nan
        with torch.no_grad():
            result = network(x)
        assert result[0].isnan().all() and result[1].isfinite().all()
