"""PlanarUNet: the 3D U-Net's twin in 2D, and slices that know nothing of each other."""

from __future__ import annotations

import pytest
import torch
from contracts import NetworkCase, NetworkContract

from common.checks import InputError
from common.networks import PlanarUNet, UNet3D
from common.networks.doubling_unet import DoublingUNet

TINY = (2, 3, 4, 5)


class TestPlanarUNetContract(NetworkContract):
    network_class = PlanarUNet
    cases = [
        NetworkCase({"widths": TINY}, (1, 3, 92, 92, 2), (1, 3, 4, 4, 2)),
        NetworkCase(
            {"widths": (2, 4), "norm": None, "up_bias": True, "axis": 0, "slices_at_once": 2},
            (2, 3, 5, 20, 22),
            (2, 3, 5, 4, 6),
        ),
        NetworkCase(
            {"widths": (2, 4), "norm": "batch_running", "axis": 1, "conv_bias": "first", "up_norm": True},
            (1, 3, 20, 3, 18),
            (1, 3, 4, 3, 2),
        ),
        NetworkCase({"widths": (4,), "norm": "group", "num_groups": 2}, (2, 3, 7, 8, 9), (2, 3, 3, 4, 9)),
        NetworkCase(
            {"widths": TINY, "padded": True, "norm": "instance", "in_channels": 1, "out_channels": 8, "axis": 1},
            (2, 1, 17, 4, 5),
            (2, 8, 17, 4, 5),
        ),
    ]


def kernels(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("norm", ["batch", "batch_running", "group", None])
@pytest.mark.parametrize("conv_bias, up_norm", [(None, False), ("first", True), ("all", False)])
def test_every_kernel_is_that_of_the_3d_network_less_one_axis(norm, conv_bias, up_norm):
    arguments = dict(norm=norm, conv_bias=conv_bias, up_norm=up_norm and norm is not None)
    with torch.device("meta"):
        planar, solid = kernels(PlanarUNet(1, 5, **arguments)), kernels(UNet3D(1, 5, **arguments))
    assert {name.removeprefix("unet."): shape for name, shape in planar.items()} == {
        name: shape[:4] for name, shape in solid.items()
    }


def test_parameters_and_tile():
    with torch.device("meta"):
        network = PlanarUNet(norm=None)
        assert sum(parameter.numel() for parameter in network.parameters()) == 6_817_091
        assert network(torch.empty(1, 3, 132, 132, 3)).shape == (1, 3, 44, 44, 3)


@pytest.mark.parametrize("norm", [None, "batch", "instance", "group", "batch_running"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@torch.no_grad()
def test_a_slice_alone_gives_what_it_gives_among_others(axis, norm):
    torch.manual_seed(0)
    network = PlanarUNet(2, 3, (2, 4), norm, axis=axis, num_groups=2, slices_at_once=3)
    x = torch.randn(2, 2, 20, 20, 20)
    if norm == "batch_running":
        network(x)  # gives running statistics that are not those of any slice
        network.eval()
    whole = network(x)
    for index in range(20):
        alone = network(x.narrow(axis + 2, index, 1)[1:])
        torch.testing.assert_close(alone, whole.narrow(axis + 2, index, 1)[1:])


@pytest.mark.parametrize("axis, order", [(0, (0, 1, 4, 2, 3)), (1, (0, 1, 2, 4, 3))])
@torch.no_grad()
def test_axes_differ_in_nothing_but_where_the_slices_lie(axis, order):
    torch.manual_seed(0)
    across_z = PlanarUNet(2, 3, (2, 4)).eval()
    other = PlanarUNet(2, 3, (2, 4), axis=axis).eval()
    other.load_state_dict(across_z.state_dict())
    x = torch.randn(1, 2, 20, 22, 5)
    expected = across_z(x).permute(order)
    torch.testing.assert_close(other(x.permute(order)), expected)
    assert other.output_size(x.permute(order).shape[2:]) == tuple(expected.shape[2:])


@pytest.mark.parametrize("axis", [0, 1, 2])
@torch.no_grad()
def test_equals_the_3d_network_with_kernels_of_one_plane(axis):
    """At one level, where nothing is pooled: kernels that are zero outside the plane see no other slice."""
    torch.manual_seed(0)
    planar = PlanarUNet(2, 3, (4,), None, padded=True, axis=axis)
    solid = UNet3D(2, 3, (4,), None, padded=True)
    weights = {}
    for name, value in solid.state_dict().items():
        flat = planar.state_dict()[f"unet.{name}"]
        if value.ndim == 5:
            value.zero_().select(axis + 2, value.shape[axis + 2] // 2).copy_(flat)
            flat = value
        weights[name] = flat
    solid.load_state_dict(weights)
    x = torch.randn(2, 2, 6, 5, 7)
    torch.testing.assert_close(planar(x), solid(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_result_depends_on_its_own_slice_alone(axis):
    torch.manual_seed(0)
    x = torch.randn(1, 1, 9, 10, 11, requires_grad=True)
    PlanarUNet(1, 2, (2, 4), padded=True, axis=axis)(x).select(axis + 2, 3).square().sum().backward()
    touched = x.grad[0, 0].abs().sum([a for a in range(3) if a != axis])
    assert touched[3] > 0 and not touched[torch.arange(len(touched)) != 3].any()


@pytest.mark.parametrize("norm", [None, "batch", "batch_running", "group"])
@torch.no_grad()
def test_slices_at_once_change_nothing(norm):
    torch.manual_seed(0)
    network, x = PlanarUNet(1, 3, (2, 4), norm, padded=True, num_groups=2), torch.randn(2, 1, 6, 7, 5)
    network(x)
    expected = network.eval()(x)
    passed = []
    network.unet.register_forward_hook(lambda module, inputs, result: passed.append(len(inputs[0])))
    for at_once, pieces in ((1, [1] * 10), (4, [4, 4, 2]), (100, [10])):
        network.slices_at_once = at_once
        torch.testing.assert_close(network(x), expected)
        assert passed == pieces
        passed.clear()
    network.slices_at_once = 1
    network.train()(x)
    assert passed == [10]


def test_batch_is_the_statistics_of_one_slice_in_training_and_at_test():
    """Batch normalisation of the 3D network's kind, given the slices one by one."""
    torch.manual_seed(0)
    network, x = PlanarUNet(1, 2, (2, 4), "batch", padded=True), torch.randn(1, 1, 8, 9, 4)
    twin = PlanarUNet(1, 2, (2, 4), "batch_running", padded=True)
    twin.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        expected = torch.cat([twin.train()(x[..., index : index + 1]) for index in range(4)], dim=-1)
        torch.testing.assert_close(network.train()(x), expected)
        torch.testing.assert_close(network.eval()(x), expected)


def test_a_traced_network_takes_other_numbers_of_slices():
    torch.manual_seed(0)
    network = PlanarUNet(1, 2, (2, 4), padded=True, slices_at_once=2).eval()
    traced = torch.jit.trace(network, torch.randn(1, 1, 8, 8, 3))
    with torch.no_grad():
        for slices in (1, 3, 7):
            x = torch.randn(2, 1, 8, 8, slices)
            torch.testing.assert_close(traced(x), network(x))


@pytest.mark.parametrize(
    ("arguments", "size", "text"),
    [
        (
            {},
            (132, 128, 7),
            r"132x128x7 voxels, read as slices of 132x128 across axis 2: in a slice each axis .* 92 \+ a",
        ),
        ({"axis": 0}, (7, 92, 20), "slices of 92x20 across axis 0.* nearest valid size, 7x92x92"),
        ({"padded": True, "axis": 1}, (8, 40, 3), "more than one voxel at the bottom.*exceed 8 voxels.* 9x40x3"),
        ({}, (92, 92, 0), "nearest valid size, 92x92x1"),
        ({}, (92, 92), r"size \(92, 92\) has 2 axes: it must be \(D, H, W\)"),
    ],
)
def test_wrong_sizes_are_named(arguments, size, text):
    network = PlanarUNet(widths=TINY, **arguments)
    with pytest.raises(InputError, match=text):
        network.output_size(size)
    if len(size) == 3 and 0 not in size:
        with pytest.raises(InputError, match=text):
            network(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nearest_size_leaves_the_number_of_slices(axis):
    network = PlanarUNet(widths=TINY, axis=axis)
    for n in (1, 93, 120):
        valid = network.nearest_size((n, n, n))
        assert valid[axis] == n and network.output_size(valid)[axis] == n
        assert network.stride == tuple(1 if across == axis else 8 for across in range(3))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"axis": 3}, "axis is 3: slices lie across one of the axes 0, 1 and 2"),
        ({"axis": -1}, "axis is -1"),
        ({"slices_at_once": 0}, "slices_at_once"),
        ({"norm": "bach"}, "norm is 'bach'.*use norm='batch'"),
        ({"widths": []}, r"widths is \[\]"),
    ],
)
def test_wrong_arguments_are_named(arguments, text):
    with pytest.raises(InputError, match=text):
        PlanarUNet(**arguments)


def test_channels_are_named():
    with pytest.raises(InputError, match=r"\(1, 1, 92, 92, 2\): it takes \(batch, 3, D, H, W\)"):
        PlanarUNet(widths=TINY)(torch.zeros(1, 1, 92, 92, 2))


def test_the_network_of_a_slice_names_its_two_axes():
    network = DoublingUNet(2, widths=TINY)
    assert network.output_size((92, 100)) == (4, 12)
    with pytest.raises(InputError, match=r"size \(92, 92, 92\) has 3 axes: it must be \(H, W\)"):
        network.output_size((92, 92, 92))
    with pytest.raises(InputError, match=r"shape \(1, 3, 92, 92, 2\): it takes \(batch, 3, H, W\)"):
        network(torch.zeros(1, 3, 92, 92, 2))
