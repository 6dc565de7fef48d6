"""What RA-UNet's order of operations and its `save_memory` save in training.

    python benchmarks/ra_unet.py                          # some minutes on one core
    python benchmarks/ra_unet.py --only footprint         # seconds: counted, nothing is computed

Footprint: 3D RA-UNet, width 8, at 224x224x32 voxels, batch 2, on the meta device. Kept: bytes that autograd holds for
the backward pass, every storage once, without weights, for the four attention modules and for the whole network. Peak:
the most that all tensors hold at a time in a step with Adam, parameters, gradients and the optimizer's state included;
not what a kernel needs while it runs. Step: seconds of forward and backward, the networks in turn, at a size that a CPU
can do, and the peak of a fresh process for each beside the counted one.

"As drawn" is the network as the paper draws it and as one writes it down: concatenations, upsampling before the
convolutions that follow it, ReLUs that make a new tensor. All three give the same result.

Seconds on a CPU are those of the processor, for other work may run beside; ratios are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from measure import CountedPeak, in_turn, kept_bytes, peak, peak_of, times
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.networks.ra_parts import AttentionModule, PreActivationBlock, upsampled  # noqa: E402
from common.networks.ra_unet import RAUNet  # noqa: E402

PAPER, BATCH, LIMIT = (224, 224, 32), 2, 11e9
NETWORKS = ("as drawn", "RAUNet", "RAUNet, save_memory")


class Drawn(RAUNet):
    """RA-UNet with the order of operations of the drawing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the image."""
        first = F.relu(self.stem[1](self.stem[0](x)))
        levels = [first]
        for part in self.encoder:
            levels.append(block(part, self.pool(levels[-1])))
        x = block(self.bottom[1], block(self.bottom[0], self.pool(levels[-1])))
        for module, part, skip in zip(self.attention, self.decoder, reversed(levels)):
            x = block(part, torch.cat([upsampled(x), attention(module, skip)], 1))
        joined = self.join(torch.cat([upsampled(x), first], 1))
        return self.head(F.relu(self.join_norm[0](joined)))


def block(part: PreActivationBlock, x: torch.Tensor) -> torch.Tensor:
    """The residual block, as one writes it."""
    y = part.conv1(F.relu(part.norm1(x)))
    y = part.conv2(F.relu(part.norm2(y)))
    return part.conv3(F.relu(part.norm3(y))) + part.shortcut(x)


def attention(part: AttentionModule, x: torch.Tensor) -> torch.Tensor:
    """The attention residual module, as one writes it."""
    x = block(part.first, x)
    trunk = block(part.trunk[1], block(part.trunk[0], x))
    x, skips = block(part.down[0], part.pool(x)), []
    for skip, down in zip(part.skip, part.down[1:]):
        skips.append(block(skip, x))
        x = block(down, part.pool(x))
    for up in part.up[:-1]:
        x = upsampled(block(up, x)) + skips.pop()
    mask = part.mask(upsampled(block(part.up[-1], x)))
    return block(part.last, (1 + mask) * trunk)


def build(name: str) -> RAUNet:
    """One of `NETWORKS`, with the same weights."""
    torch.manual_seed(0)
    return Drawn() if name == "as drawn" else RAUNet(save_memory="save" in name)


def parameter_table() -> None:
    """Trainable parameters of the parts, for volumes and slices."""
    print(f"{'trainable parameters':<22}{'3D, width 8':>12}{'2D, width 4':>12}")
    with torch.device("meta"):
        networks = RAUNet(), RAUNet(2, width=4)
    for name in [*(name for name, part in networks[0].named_children() if [*part.parameters()]), ""]:
        counts = [sum(p.numel() for p in network.get_submodule(name).parameters()) for network in networks]
        print(f"{name or 'together':<22}{counts[0]:>12,}{counts[1]:>12,}")


def kept_by_modules(network: RAUNet) -> int:
    """Bytes that the four attention modules keep, their inputs included."""
    total, factors = 0, (16, 8, 4, 2)
    for module, factor in zip(network.attention, factors):
        channels = module.last.conv3.out_channels
        size = tuple(n // factor for n in PAPER)
        x = torch.empty(BATCH, channels, *size, device="meta", requires_grad=True)
        if isinstance(network, Drawn):
            total += kept_bytes(attention, module, x)
        elif network.save_memory:
            total += kept_bytes(network._again, module, module, x)
        else:
            total += kept_bytes(module, x)
    return total


def train_step(network: RAUNet, x: torch.Tensor, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Forward, backward, and the optimizer's step if there is one."""
    network.zero_grad(set_to_none=True)
    network(x).square().mean().backward()
    if optimizer is not None:
        optimizer.step()


def counted_peak(name: str, size: tuple[int, ...]) -> int:
    """The most bytes that the tensors of a training step hold at a time, weights and Adam's state included."""
    with CountedPeak() as counted, torch.device("meta"):
        network = build(name)
        optimizer = torch.optim.Adam(network.parameters())
        x = torch.empty(BATCH, 1, *size)
        for _ in range(2):  # the first step makes the optimizer's state
            train_step(network, x, optimizer)
    return counted.peak


def footprint_table() -> bool:
    """Bytes at the size of the paper; whether it trains within the limit, and `save_memory` keeps less."""
    print(f"\n{times(PAPER)}, batch {BATCH}, counted: GB kept for the backward pass, ratio; GB at the peak of a step")
    print(f"{'':<22}{'attention modules':>20}{'whole network':>18}{'peak':>10}")
    first: list[int] = []
    held = True
    for name in NETWORKS:
        with torch.device("meta"):
            network, x = build(name), torch.empty(BATCH, 1, *PAPER)
        kept = [kept_by_modules(network), kept_bytes(network, x)]
        first = first or kept
        high = counted_peak(name, PAPER)
        told = "".join(f"{own / 1e9:>{width}.2f}{own / one:>8.3f}" for own, one, width in zip(kept, first, (12, 10)))
        print(f"{name:<22}{told}{high / 1e9:>10.2f}", flush=True)
        held = held and (name == "as drawn" or high <= LIMIT)
    return held


def step_table(size: tuple[int, ...], rounds: int, device: str) -> bool:
    """Seconds and peaks of a training step; whether computing again costs at most half a step more."""
    print(f"\ntraining step at {times(size)}, batch {BATCH}: seconds, ratio to RAUNet; peak GB measured, counted")
    networks = {name: build(name).to(device) for name in NETWORKS}
    x, small = (torch.randn(BATCH, 1, *shape, device=device) for shape in (size, (32, 32, 32)))
    for network in networks.values():
        train_step(network, small)
    spent = in_turn({name: lambda n=network: train_step(n, x) for name, network in networks.items()}, rounds, device)
    ratios = {}
    for name in NETWORKS:
        each = sorted(a / b for a, b in zip(spent[name], spent["RAUNet"], strict=True))
        ratios[name] = statistics.median(each)
        high, counted = peak(__file__, name, size, device), counted_peak(name, size)
        print(f"{name:<22}{statistics.median(spent[name]):>8.2f}{ratios[name]:>7.2f} ", end="")
        print(f"({each[0]:.2f}-{each[-1]:.2f}){high / 1e9:>8.2f}{counted / 1e9:>8.2f}", flush=True)
    return ratios["RAUNet, save_memory"] <= 1.5


def measure_peak(name: str, size: list[int], device: str) -> int:
    """Bytes of a training step with Adam, in this process, beside which the network and its gradients are small."""
    network = build(name).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    train_step(network, torch.randn(BATCH, 1, 32, 32, 32, device=device), optimizer)
    x = torch.randn(BATCH, 1, *size, device=device)
    state = 4 * sum(parameter.nbytes for parameter in network.parameters())
    network.zero_grad(set_to_none=True)
    return peak_of(lambda: train_step(network, x, optimizer), device) + state * 3 // 4


def main() -> int:
    """Print the tables; the exit status says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, help="voxels of the measured step, multiples of 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("footprint", "step"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(measure_peak(*json.loads(options.child)))
        return 0
    size = tuple(options.size or ((96, 96, 32) if options.device == "cpu" else PAPER))
    where = f"{torch.get_num_threads()} threads" if options.device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}\n")
    parameter_table()
    held = True
    if options.only != "step":
        held = footprint_table()
    if options.only != "footprint":
        held = step_table(size, options.rounds, options.device) and held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
