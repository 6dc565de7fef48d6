"""The shared blocks against their plain PyTorch spelling."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from common.checks import InputError
from common.networks.blocks import DoubleConv, UpDoubleConv, norm_spec


def test_double_conv_is_conv_norm_relu_twice():
    torch.manual_seed(0)
    block, x = DoubleConv((2, 3, 4)), torch.randn(2, 2, 7, 6, 5)
    y = x
    for convolution in block:
        y = F.conv3d(y, convolution.conv.weight)
        mean, var = y.mean((0, 2, 3, 4), keepdim=True), y.var((0, 2, 3, 4), keepdim=True, unbiased=False)
        y = ((y - mean) / (var + 1e-5).sqrt()).relu()
    torch.testing.assert_close(block(x), y, rtol=1e-4, atol=1e-5)


def test_relu_shares_the_memory_of_the_norm():
    """Two tensors are kept per convolution: its result and the activation, not the normalised values beside it."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 5 and tensor.shape[0] == 2:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    block, x = DoubleConv((3, 4, 4), padded=True), torch.randn(2, 3, 6, 6, 6)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(x)
    assert sum(kept.values()) == 4 * (3 + 4 * 4) * 2 * 6**3


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "padded, below_size, skip_size",
    [
        (False, (4, 4, 4), (12, 8, 14)),
        (False, (3, 4, 5), (6, 8, 10)),
        (True, (3, 3, 3), (5, 6, 5)),
        (True, (1, 2, 1), (1, 4, 2)),
    ],
)
def test_up_double_conv_is_crop_concatenate_convolve(padded, below_size, skip_size, bias):
    """The slow, obvious way: make the concatenation, then convolve it; value and every gradient agree."""
    torch.manual_seed(0)
    block = UpDoubleConv((4, 3, 5), norm=None, bias=bias, up_bias=bias, padded=padded).double()
    below = torch.randn(2, 4, *below_size, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, 3, *skip_size, dtype=torch.float64, requires_grad=True)
    result = block(below, skip)

    up = F.conv_transpose3d(below, block.up.conv.weight, block.up.conv.bias, stride=2)
    size = [min(a, b) for a, b in zip(up.shape[2:], skip_size, strict=True)]
    first = [0 if padded else (a - b) // 2 for a, b in zip(skip_size, size, strict=True)]
    cut = skip[:, :, first[0] : first[0] + size[0], first[1] : first[1] + size[1], first[2] : first[2] + size[2]]
    joined = torch.cat([cut, up[:, :, : size[0], : size[1], : size[2]]], dim=1)
    middle = F.conv3d(joined, block.join.weight, block.join.bias, padding=int(padded)).relu()
    expected = F.conv3d(middle, block.conv.conv.weight, block.conv.conv.bias, padding=int(padded)).relu()
    torch.testing.assert_close(result, expected)

    wanted = [below, skip, *block.parameters()]
    weigh = torch.randn_like(result)
    ours, slow = (torch.autograd.grad((y * weigh).sum(), wanted) for y in (result, expected))
    torch.testing.assert_close(ours, slow)


def test_up_convolution_is_plain_or_normalised():
    x = torch.randn(1, 4, 3, 3, 3)
    plain = UpDoubleConv((4, 1, 2))
    torch.testing.assert_close(plain.up(x), F.conv_transpose3d(x, plain.up.conv.weight, stride=2))
    assert plain.up(x).min() < 0
    assert UpDoubleConv((4, 1, 2), up_norm=True).up(x).min() == 0


def test_norm_spec_errors():
    with pytest.raises(InputError, match="norm is 'instanc': .* use norm='instance'"):
        norm_spec("instanc", 8)
    with pytest.raises(InputError, match="num_groups is 3 at a layer of 8 channels"):
        norm_spec("group", 8, 3)
