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
from common.networks.reconstruction import Consensus, Filtration, Reconstruction

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


def reached(loss: torch.Tensor, network: nn.Module) -> dict[str, set[bool]]:
    """For each part, whether the loss has a gradient for its parameters that is not zero."""
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, retain_graph=True)
    found: dict[str, set[bool]] = {}
    for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True):
        found.setdefault(name.split(".")[0], set()).add(gradient is not None and bool(gradient.any()))
    return found


@pytest.mark.parametrize("save_memory", [False, True])
def test_each_path_trains_its_own_part(save_memory):
    network = tiny(save_memory=save_memory, widths=(4, 4))
    with torch.no_grad():  # no dead ReLU
        for name, parameter in network.unet.named_parameters():
            parameter.copy_(torch.rand_like(parameter) / 10 if "weight" in name else torch.zeros_like(parameter))
    both = network(torch.rand(1, 1, 5, 6, 7), angles=ANGLES)
    own, aux = both[:, :1].square().sum(), both[:, 1:].square().sum()
    assert reached(own, network) == {"unet": {False}, "auxiliary": {False}, "reconstruction": {True}}
    assert reached(aux, network) == {"unet": {True}, "auxiliary": {True}, "reconstruction": {False}}


def test_path_1_trains_the_2d_network_under_autocast_too(monkeypatch):
    network, image, events = tiny(widths=(4, 4)), torch.rand(1, 1, 5, 6, 7), []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: events.append("cleared") or clear())
    network.unet.register_forward_pre_hook(lambda *_: events.append(torch.is_grad_enabled()))
    gradients = []
    for cached in (True, False):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            logits = network(image, angles=ANGLES)
        logits[:, 1:].square().mean().backward()
        gradients.append([parameter.grad for parameter in network.unet.parameters()])
    for kept, anew in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, anew, rtol=0.02, atol=1e-3)
    # 8 and 4 images, 3 at a time: no weights that were cast without gradients are left for path 1; the end of autocast
    assert events == 2 * [False, False, False, "cleared", True, True, "cleared"]


def test_sums_reach_the_2d_network_on_the_scale_of_the_volume():
    network, seen = tiny(projection="sum"), []
    network.unet.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
    with torch.no_grad():
        network(torch.ones(1, 1, 40, 6, 40), angles=ANGLES)
    assert 0.9 < torch.cat(seen).max() < 1.5


@pytest.mark.parametrize("save_memory", [False, True])
def test_mixed_precision_trains_both_paths(save_memory):
    """Weights that path 2 had cast without gradients must not serve path 1."""
    network, image, found = tiny(save_memory=save_memory, widths=(8, 16)), torch.rand(1, 1, 5, 6, 7), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            both = network(image, angles=ANGLES)
        found.append(torch.autograd.grad(both.float().square().mean(), list(network.parameters())))
    for full, half in zip(*found, strict=True):
        assert full.any() and (half - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize("network_class", [ProjectionUNet, RandomProjectionUNet])
def test_save_memory_gives_the_same(network_class):
    image, found = torch.rand(2, 1, 4, 5, 6, dtype=torch.float64), []
    for save_memory in (False, True):
        torch.manual_seed(0)
        network = network_class(directions=12, widths=TINY, norm="instance", save_memory=save_memory).double()
        logits = network(image, angles=[15.0 * k for k in range(12)]) if hasattr(network, "sectors") else network(image)
        logits.square().sum().backward()
        found.append([logits, *(parameter.grad for parameter in network.parameters())])
    for again, kept in zip(*found, strict=True):
        torch.testing.assert_close(again, kept)


def kept(network: nn.Module, *inputs) -> int:
    """Bytes that autograd keeps for the backward pass, parameters left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = network(*inputs)
    del result
    return sum(storages.values())


def test_path_2_keeps_masks_only():
    network, image = tiny(widths=(16, 32), directions=64), torch.rand(1, 1, 4, 32, 16)
    masks, volume = 64 * 32 * 16 * 4, 4 * 32 * 16 * 4
    # masks with their border for the filter, what is pooled and what is scaled, tables of positions
    assert kept(network, image) < 2 * masks + 6 * volume
    features = 16 * masks
    assert kept(network, image) < features / 4
    both = [kept(tiny(widths=(16, 32), directions=64, save_memory=s), image, None, ANGLES) for s in (False, True)]
    assert both[0] > kept(network, image) + features * 4 / 64 > both[1] + 2 * masks / 64


class TestReconstruction:
    def test_filters_are_centred_and_the_detector_goes_on(self):
        mask = torch.tensor([2.0, 4.0, 0.0, 6.0]).reshape(1, 1, 1, 1, 4)
        with torch.no_grad():
            assert Filtration(1, 1, 2)(mask).flatten().tolist() == [2.0, 3.0, 2.0, 3.0, 6.0]
            assert Filtration(1, 1, 0)(mask).flatten().tolist() == [2.0, 2.0, 4.0, 0.0, 6.0, 6.0]
            for size in range(1, 6):
                filtered = Filtration(1, 1, size)(mask)
                assert filtered.shape[-1] == (6 if size % 2 else 5)
                torch.testing.assert_close(Filtration(1, 1, size)(mask.flip(-1)), filtered.flip(-1))

    @torch.no_grad()
    def test_ramp_inverts_sum_projections(self):
        """T's pooling and normalisation aside, F and R at their start are filtered back-projection."""
        size, directions = 33, 90
        grid = torch.linspace(-1, 1, size)
        disk = ((grid[:, None] ** 2 + grid[None] ** 2) < 0.36).float()[None, None, :, None, :]
        angles = direction_angles(directions)
        part = Reconstruction(directions, 1, 2 * size - 1, "ramp")
        part.consensus.norm = nn.Identity()
        inverted = part(project(disk, angles, "sum", "full"), angles, size, size)
        inner = grid[:, None] ** 2 + grid[None] ** 2 < 0.25
        assert (inverted[0, 0, :, 0, :][inner] - 1).abs().mean() < 0.02
        assert (inverted - disk)[0, 0].square().mean().sqrt() < 0.1

    @torch.no_grad()
    def test_logits_of_all_and_of_no_directions(self):
        angles = direction_angles(12)
        for size, init in ((0, "mean"), (2, "mean")):
            part = Reconstruction(12, 1, size, init)
            for value, sign in ((0.0, -1), (1.0, 1)):
                logits = part(torch.full((1, 12, 1, 3, 16), value), angles, 5, 16)
                centre = logits[0, 0, :, :, 6:10]
                assert (centre * sign > 2).all()

    def test_pooling_is_the_mean_of_eight_corners(self):
        x = torch.rand(1, 2, 4, 5, 2)
        pooled = Consensus(2, 1.0)
        pooled.norm = nn.Identity()
        expected = torch.nn.functional.avg_pool3d(x, 2, stride=1)
        torch.testing.assert_close(pooled(x), expected)

    @pytest.mark.parametrize("size", [0, 1, 2, 3])
    @torch.no_grad()
    def test_nothing_moves_and_the_border_stays_bright(self, size):
        part = Reconstruction(2, 1, size)
        part.consensus.norm = nn.Identity()
        masks = torch.rand(1, 2, 1, 6, 5)
        logits = part(masks, [0.0, 90.0], 5, 5)
        mirrored = part(masks.flip(3, 4), [0.0, 90.0], 5, 5)
        torch.testing.assert_close(mirrored, logits.flip(2, 3, 4))
        torch.testing.assert_close(part(torch.ones_like(masks), [0.0, 90.0], 5, 5), torch.full((1, 1, 5, 6, 5), 2.0))


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
