"""The 2.5D U-Nets: which path trains what, the same as a slow loop, and what is kept in memory."""

from __future__ import annotations

import math

import pytest
import torch
from contracts import NetworkCase, NetworkContract
from torch import nn

from common.checks import InputError
from common.geometry.projection import direction_angles, project
from common.networks import ProjectionUNet, RandomProjectionUNet, UNet2D
from common.networks.reconstruction import Reconstruction

TINY = (2, 3)
ANGLES = [17.0, 70.0, 95.0, 163.0]


def tiny(**arguments) -> RandomProjectionUNet:
    torch.manual_seed(0)
    return RandomProjectionUNet(**{"sectors": 4, "directions": 8, "widths": TINY, "directions_at_once": 3, **arguments})


class TestProjectionUNetContract(NetworkContract):
    network_class = ProjectionUNet
    autocast_dtype = torch.float32
    cases = [
        NetworkCase({"directions": 3, "widths": TINY, "directions_at_once": 2}, (1, 1, 5, 6, 7), (1, 1, 5, 6, 7)),
        NetworkCase(
            {
                "in_channels": 2,
                "out_channels": 2,
                "directions": 4,
                "widths": TINY,
                "projection": "sum",
                "detector": "full",
                "filter_size": 5,
                "filter_init": "ramp",
                "normalise": "batch",
            },
            (2, 2, 5, 3, 6),
            (2, 2, 5, 3, 6),
        ),
        NetworkCase(
            {"directions": 2, "widths": TINY, "norm": "instance", "filter_size": 0, "save_memory": True},
            (1, 1, 4, 6, 5),
            (1, 1, 4, 6, 5),
        ),
    ]


class TestRandomProjectionUNetContract(NetworkContract):
    network_class = RandomProjectionUNet
    autocast_dtype = torch.float32
    cases = [
        NetworkCase({"sectors": 2, "directions": 4, "widths": TINY}, (1, 1, 5, 6, 7), (1, 1, 5, 6, 7)),
        NetworkCase(
            {"in_channels": 2, "out_channels": 3, "sectors": 2, "directions": 2, "widths": TINY, "detector": "full"},
            (2, 2, 4, 3, 5),
            (2, 3, 4, 3, 5),
        ),
    ]

    def trained(self, network):
        return network.reconstruction  # without angles there is path 2 alone


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters():
    with torch.device("meta"):
        network, fixed = RandomProjectionUNet(), ProjectionUNet(out_channels=2, filter_size=0)
    assert counted(network.unet) == 8_629_921
    assert counted(network.auxiliary) == 12 * 2 + 2
    assert counted(network.reconstruction) == 60 * 2 + 2
    assert counted(fixed.reconstruction) == 2 * 2
    assert fixed.angles == direction_angles(12) and len(network.angles) == 60


def at(values: torch.Tensor, position: float) -> torch.Tensor:
    """Rows of values (b W) between their columns; 0 beyond."""
    low = math.floor(position)
    found = torch.zeros_like(values[:, 0])
    for cell, share in ((low, 1 - position + low), (low + 1, position - low)):
        if 0 <= cell < values.shape[1]:
            found = found + share * values[:, cell]
    return found


def looped(network, reconstruction: Reconstruction, image: torch.Tensor, angles: list[float]) -> torch.Tensor:
    """A path of one volume with one class, from corner to corner of its voxels."""
    size_a, length, size_c = image.shape[2:]
    weight, affine = reconstruction.filtration.weight, reconstruction.consensus.norm
    taps = weight.shape[2]
    total = torch.zeros(size_a, length, size_c, dtype=image.dtype)
    for index, angle in enumerate(angles):
        seen = project(image, [angle], network.projection, network.detector)[:, 0]
        mask = network.unet(seen / size_a if network.projection == "sum" else seen).sigmoid()[0, 0]
        # column j of what is filtered lies at detector coordinate `first` + j
        width, first = mask.shape[1], -0.5 if taps % 2 == 0 else -1.0
        filtered = torch.zeros(length, width + (1 if taps % 2 == 0 else 2), dtype=image.dtype)
        for j in range(filtered.shape[1]):
            for tap in range(taps):
                source = round(first + j + tap - (taps - 1) / 2)
                filtered[:, j] += weight[index, 0, tap] * mask[:, min(max(source, 0), width - 1)]
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for a in range(size_a):
            for c in range(size_c):
                corners = torch.zeros(length, dtype=image.dtype)
                for da, dc in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
                    s = (c + dc - (size_c - 1) / 2) * cos + (a + da - (size_a - 1) / 2) * sin + (width - 1) / 2
                    corners = corners + at(filtered, s - first) / 4
                for b in range(length):
                    above, below = corners[max(b - 1, 0)], corners[min(b + 1, length - 1)]
                    total[a, b, c] += (above + 2 * corners[b] + below) / 4
    return (total * affine.weight[0] + affine.bias[0])[None, None]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"detector": "full", "projection": "sum"}, {"filter_size": 3, "filter_init": "ramp"}, {"filter_size": 4}],
    ids=["paper", "full sum", "ramp", "even"],
)
@torch.no_grad()
def test_both_paths_against_a_loop(arguments):
    network = tiny(**arguments).double()
    for part in (network.auxiliary, network.reconstruction):
        for parameter in part.parameters():
            nn.init.normal_(parameter)
    image = torch.rand(1, 1, 3, 4, 5, dtype=torch.float64)
    both = network(image, angles=ANGLES)
    torch.testing.assert_close(both[:, :1], looped(network, network.reconstruction, image, network.angles))
    torch.testing.assert_close(both[:, 1:], looped(network, network.auxiliary, image, ANGLES))
    torch.testing.assert_close(network(image), both[:, :1])


@torch.no_grad()
def test_items_and_classes_stay_apart():
    network = tiny(in_channels=2, out_channels=2, detector="full").double()
    images = torch.rand(3, 2, 4, 5, 6, dtype=torch.float64)
    both = network(images, angles=ANGLES)
    assert both.shape == (3, 4, 4, 5, 6)
    for item in range(3):
        torch.testing.assert_close(both[item : item + 1], network(images[item : item + 1], angles=ANGLES))
    # the weights of class 1 reach class 1 of their own path alone
    for part, at in ((network.reconstruction, 1), (network.auxiliary, 3)):
        part.filtration.weight[:, 1] *= 2
        changed = network(images, angles=ANGLES)
        assert [torch.equal(changed[:, k], both[:, k]) for k in range(4)] == [k != at for k in range(4)]
        both = changed


@torch.no_grad()
def test_projections_at_hand():
    network, image = tiny(detector="full"), torch.rand(2, 1, 4, 5, 6)
    projections = project(image, network.angles, "max", "full")
    torch.testing.assert_close(network(image, projections), network(image))
    torch.testing.assert_close(network(image, projections, ANGLES), network(image, None, ANGLES))
    assert not torch.allclose(network(image, projections.flip(1)), network(image))


@pytest.mark.parametrize("at_once", [1, 3, 100])
@torch.no_grad()
def test_how_many_at_once_changes_nothing(at_once):
    image = torch.rand(2, 1, 4, 8, 6)
    expected, network = tiny(norm="instance"), tiny(norm="instance", directions_at_once=at_once)
    torch.testing.assert_close(network(image, angles=ANGLES), expected(image, angles=ANGLES))


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"sectors": 7}, "directions is 60 and sectors is 7: .*equally many.*use directions=63"),
            ({"sectors": 0}, "sectors is 0: it must be a whole number"),
            ({"directions": 2.5}, "directions is 2.5: it must be a whole number"),
            ({"directions": "many"}, "directions is 'many': it must be a whole number"),
            ({"directions_at_once": 0}, "directions_at_once is 0"),
            ({"projection": "mean"}, "projection is 'mean': it must be one of max, sum"),
            ({"detector": "ful"}, "detector is 'ful': .*use 'full'"),
            ({"norm": "batch"}, "norm is 'batch': images pass the 2D network some at a time"),
            ({"filter_size": -1}, "filter_size is -1: .*0 for no filtration"),
            ({"filter_init": "ram"}, "filter_init is 'ram': .*use filter_init='ramp'"),
            ({"filter_size": "two"}, "filter_size is 'two': .*0 for no filtration"),
            (
                {"filter_init": "ramp"},
                "filter_size is 2 and .*odd number of taps.*use filter_size=3, or filter_init='mean'",
            ),
            ({"normalise": "instance"}, "normalise is 'instance': it must be one of affine, batch"),
            ({"widths": []}, r"widths is \[\].*use \(32, 64"),
        ],
        ids=["multiple", "no sector", "half", "text", "at once", "projection", "detector", "norm", "filter", "init"]
        + ["filter text", "even", "normalise", "widths"],
    )
    def test_arguments(self, arguments, text):
        with pytest.raises(InputError, match=text):
            RandomProjectionUNet(**arguments)

    @pytest.mark.parametrize(
        ("angles", "text"),
        [
            ([10.0, 50.0], "2 angles came for 4 sectors: path 1 takes one angle in each sector"),
            ([10.0, 50.0, 100.0, 180.0], r"angle 3 is 180 degrees: it must lie in \[135, 180\)"),
            ([-1.0, 50.0, 100.0, 140.0], r"angle 0 is -1 degrees: it must lie in \[0, 45\)"),
            ([50.0, 10.0, 100.0, 140.0], r"angle 0 is 50 degrees"),
        ],
        ids=["count", "180", "negative", "order"],
    )
    def test_angles(self, angles, text):
        with pytest.raises(InputError, match=text):
            tiny()(torch.zeros(1, 1, 4, 5, 6), angles=angles)

    def test_volumes(self):
        network = tiny(filter_size=4)
        with pytest.raises(InputError, match="volume of 9x9x3 voxels has 3 detector bins: the filter of 4 taps"):
            network(torch.zeros(1, 1, 9, 9, 3))
        with pytest.raises(InputError, match=r"shape \(1, 2, 4, 5, 6\): it takes \(batch, 1, A, b, C\)"):
            network(torch.zeros(1, 2, 4, 5, 6))
        with pytest.raises(InputError, match=r"size \(4, 5\) has 2 axes"):
            network.output_size((4, 5))
        with pytest.raises(InputError, match="2x2 voxels.*use 2x3 or more"):
            tiny(norm="instance")(torch.zeros(1, 1, 4, 2, 2))

    def test_projections(self):
        network, image = tiny(), torch.zeros(1, 1, 4, 5, 6)
        with pytest.raises(InputError, match=r"\(1, 4, 1, 5, 6\) came with.*must be \(1, 8, 1, 5, 6\)"):
            network(image, torch.zeros(1, 4, 1, 5, 6))


def test_unet_sees_projections_as_images():
    """One direction, no filtration: the network is the 2D U-Net, pooled at corners and smeared along the rays."""
    torch.manual_seed(0)
    network = ProjectionUNet(1, 1, 1, widths=TINY, filter_size=0)
    network.reconstruction.consensus.norm = nn.Identity()
    plain = UNet2D(widths=TINY)
    plain.load_state_dict(network.unet.state_dict())
    image = torch.rand(1, 1, 5, 6, 7)
    with torch.no_grad():
        mask = torch.nn.functional.pad(plain(image.amax(2)).sigmoid(), [1, 1, 1, 1], "replicate")
        kernel = torch.tensor([0.25, 0.5, 0.25])
        smooth = torch.nn.functional.conv2d(mask, (kernel[:, None] * kernel)[None, None])
        expected = smooth[:, :, None].expand(1, 1, 5, 6, 7)
        torch.testing.assert_close(network(image), expected)
