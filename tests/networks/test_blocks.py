"""The shared blocks against their plain PyTorch spelling."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from common.checks import InputError
from common.networks.blocks import DoubleConv, UpConcat, norm_spec


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


@pytest.mark.parametrize("skip_size", [(10, 8, 14), (6, 6, 6)])
def test_unpadded_join_takes_the_centre(skip_size):
    join, skip = UpConcat(2, norm=None), torch.randn(1, 3, *skip_size)
    result = join(torch.randn(1, 2, 3, 3, 3), skip)
    margins = [(n - 6) // 2 for n in skip_size]
    expected = skip[:, :, margins[0] :, margins[1] :, margins[2] :][:, :, :6, :6, :6]
    assert result.shape == (1, 5, 6, 6, 6)
    assert torch.equal(result[:, :3], expected)


def test_padded_join_cuts_the_rounded_voxel_at_the_end():
    join = UpConcat(2, norm=None)
    x, skip = torch.randn(1, 2, 3, 3, 3), torch.randn(1, 3, 5, 6, 5)
    result = join(x, skip)
    assert torch.equal(result[:, :3], skip)
    assert torch.equal(result[:, 3:], join.up(x)[:, :, :5, :, :5])


def test_up_convolution_is_plain_or_normalised():
    x, skip = torch.randn(1, 4, 2, 2, 2), torch.zeros(1, 1, 4, 4, 4)
    plain = UpConcat(4)
    torch.testing.assert_close(plain(x, skip)[:, 1:], F.conv_transpose3d(x, plain.up.conv.weight, stride=2))
    assert plain(x, skip).min() < 0
    assert UpConcat(4, up_norm=True)(x, skip).min() == 0


def test_norm_spec_errors():
    with pytest.raises(InputError, match="norm is 'instanc': .* use norm='instance'"):
        norm_spec("instanc", 8)
    with pytest.raises(InputError, match="num_groups is 3 at a layer of 8 channels"):
        norm_spec("group", 8, 3)
