"""Training cost of the padded 3D U-Net beside MONAI's BasicUNet and DynUNet.

Measures forward + backward seconds and the bytes that autograd keeps for the backward pass, both per
multiply-accumulate of the forward convolutions, and prints the ratios ours / theirs. The blocks of all networks give
the same channels level by level (twice `widths`); ours reaches them by its doubling convolution, and joins more
channels in the synthesis path, because its up-convolutions keep their channels. Ours is measured with the others'
instance normalisation, so like with like, and with its own default, batch statistics. The others keep their default
LeakyReLU.

The networks alternate within each round, and a ratio of seconds is the median of the ratios round by round, so that a
busy machine hits all alike. Batches of two: on the CPU, PyTorch runs single volumes of few channels through a slower
kernel, below a limit that each network crosses at other layers.

    python benchmarks/padded_unet.py --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from monai.networks.nets import BasicUNet, DynUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.networks import UNet3D  # noqa: E402

CLASSES = 3


def networks(widths: list[int]) -> dict[str, nn.Module]:
    """Ours twice, then theirs, with the same channels level by level."""
    wide = [2 * width for width in widths]
    levels = len(widths)
    return {
        "UNet3D instance": UNet3D(1, CLASSES, widths, norm="instance", padded=True),
        "UNet3D batch": UNet3D(1, CLASSES, widths, norm="batch", padded=True),
        "DynUNet": DynUNet(3, 1, CLASSES, [3] * levels, [1] + [2] * (levels - 1), [2] * (levels - 1), filters=wide),
        "BasicUNet": BasicUNet(3, 1, CLASSES, features=(*wide, wide[0])),
    }


def multiply_accumulates(network: nn.Module, x: torch.Tensor) -> float:
    """Multiply-accumulates of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() / 2


def saved_bytes(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes of the distinct storages that autograd keeps for the backward pass, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = network(x)
    del result
    return sum(kept.values())


def seconds(network: nn.Module, x: torch.Tensor) -> float:
    """Seconds of one forward and backward pass."""
    network.zero_grad(set_to_none=True)
    if x.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    network(x).square().mean().backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(widths: list[int], size: list[int], batch: int, rounds: int, device: str) -> None:
    """Measure and print the two tables."""
    torch.manual_seed(0)
    x = torch.randn(batch, 1, *size, device=device)
    built = {name: network.to(device) for name, network in networks(widths).items()}
    macs = {name: multiply_accumulates(network, x) for name, network in built.items()}
    kept = {name: saved_bytes(network, x) / macs[name] for name, network in built.items()}
    for network in built.values():
        seconds(network, x)  # the first pass prepares kernels
    times: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(rounds):
        for name, network in built.items():
            times[name].append(seconds(network, x) / macs[name])

    where = torch.cuda.get_device_name() if x.is_cuda else f"CPU, {torch.get_num_threads()} thread(s)"
    shape = "x".join(map(str, (batch, 1, *size)))
    print(f"input {shape}, widths {widths}, {rounds} rounds, {where}, torch {torch.__version__}\n")
    print(f"{'network':<17}{'GMAC':>9}{'s':>9}{'ps/MAC':>9}{'B/kMAC':>9}")
    for name in built:
        pace = statistics.median(times[name])
        print(f"{name:<17}{macs[name] / 1e9:9.1f}{pace * macs[name]:9.2f}{pace * 1e12:9.1f}{kept[name] * 1e3:9.2f}")
    print(f"\n{'ours / theirs':<34}{'seconds per MAC':>16}{'(range)':>16}{'bytes per MAC':>15}")
    for ours in ("UNet3D instance", "UNet3D batch"):
        for theirs in ("DynUNet", "BasicUNet"):
            ratios = sorted(a / b for a, b in zip(times[ours], times[theirs], strict=True))
            spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
            line = f"{ours + ' / ' + theirs:<34}{statistics.median(ratios):15.2f}x{spread:>16}"
            print(f"{line}{kept[ours] / kept[theirs]:14.2f}x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="five levels, as BasicUNet has"
    )
    parser.add_argument("--size", type=int, nargs=3, default=[48, 48, 48], help="voxels, multiples of 2^(levels - 1)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    measure(given.widths, given.size, given.batch, given.rounds, given.device)
