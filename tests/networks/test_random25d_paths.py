"""The 2.5D U-Nets: which path trains what, under mixed precision too, and what is kept in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.networks import ProjectionUNet, RandomProjectionUNet

TINY = (2, 3)
ANGLES = [17.0, 70.0, 95.0, 163.0]


def tiny(**arguments) -> RandomProjectionUNet:
    torch.manual_seed(0)
    return RandomProjectionUNet(**{"sectors": 4, "directions": 8, "widths": TINY, "directions_at_once": 3, **arguments})


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
