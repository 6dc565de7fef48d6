"""What the random 2.5D U-Net costs beside the 3D U-Net of the same paper: seconds, memory, and both as volumes grow.

    python benchmarks/random25d.py                        # tens of minutes on two cores
    python benchmarks/random25d.py --only memory          # seconds: counted, nothing is computed
    python benchmarks/random25d.py --only inference --full
    python benchmarks/random25d.py --only growth --out /tmp/pictures

Inference: one volume through both networks in turn, widths as published, all 60 directions, projections included. A CPU
gets a smaller volume unless ``--full`` is given.

Memory: a training step at 96x288x224 on the meta device, with Dice loss and Adam. Kept: bytes that autograd holds for
the backward pass, every storage once, without weights. Peak: the most that all tensors hold at a time, parameters,
gradients and the optimizer's state included; not what a kernel needs while it runs. Projections of the fixed directions
come with the volume, as in training.

Step: seconds of that training step, the networks in turn, at a size that a CPU can do, and the peak of a fresh process
beside the counted one.

Growth: cubes of 128, 256 and 384 voxels. Operations and bytes are counted, seconds measured, of the networks as
published.

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
from monai.losses import DiceLoss
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.geometry.projection import sector_angles  # noqa: E402
from common.losses import TwoPathLoss  # noqa: E402
from common.networks import RandomProjectionUNet, UNet  # noqa: E402

PAPER, SMALL, CUBES = (96, 288, 224), (48, 144, 112), (128, 256, 384)
SECTORS, DIRECTIONS = 12, 60
PLAIN, RANDOM, SAVING = "3D U-Net", "random 2.5D", ", save_memory"
TRAINED = (PLAIN, PLAIN + SAVING, RANDOM, RANDOM + SAVING)
MEMORY_GOAL, GPU_GOAL = 0.6, 1.0


def build(name: str) -> nn.Module:
    """The network of a name, with the same random weights each time."""
    torch.manual_seed(0)
    saving = name.endswith(SAVING)
    if name.startswith(PLAIN):
        return UNet(3, save_memory=saving)
    return RandomProjectionUNet(1, 1, SECTORS, DIRECTIONS, save_memory=saving)


def made(name: str, size: tuple[int, ...], device: str) -> tuple[nn.Module, list[object], torch.Tensor]:
    """Network, its arguments in training and the truth."""
    angles = sector_angles(SECTORS, 0, 1)
    with torch.device(device):
        network, image, label = build(name), torch.rand(1, 1, *size), torch.ones(1, 1, *size)
        projections = torch.rand(1, DIRECTIONS, 1, *size[1:])
    return network, [image, projections, angles] if name.startswith(RANDOM) else [image], label


def train_step(name: str, network: nn.Module, given: list[object], label: torch.Tensor, optimizer: object) -> None:
    """Forward, loss, backward and the optimizer's step."""
    criterion = DiceLoss(sigmoid=True, smooth_nr=0.0)
    loss = TwoPathLoss(criterion) if name.startswith(RANDOM) else criterion
    optimizer.zero_grad(set_to_none=True)
    loss(network(*given), label).backward()
    optimizer.step()


def counted_step(name: str, size: tuple[int, ...]) -> tuple[int, int]:
    """Bytes kept for the backward pass, and the most that tensors hold at a time in a step with Adam."""
    with CountedPeak() as counted:
        network, given, label = made(name, size, "meta")
        optimizer = torch.optim.Adam(network.parameters())
        for _ in range(2):  # the first step makes the optimizer's state
            train_step(name, network, given, label, optimizer)
    return kept_bytes(network, *given), counted.peak


def memory_table() -> bool:
    """Bytes of a training step at the size of the paper; whether the 2.5D network needs as little as it should."""
    print(f"\ntraining step at {times(PAPER)}, counted: GB kept for the backward pass, ratio; GB at the peak, ratio")
    first: tuple[int, int] | None = None
    high = {}
    for name in TRAINED:
        own = counted_step(name, PAPER)
        first, high[name] = first or own, own[1]
        print(f"{name:<28}" + "".join(f"{a / 1e9:>9.2f}{a / b:>7.2f}" for a, b in zip(own, first)), flush=True)
    network, given, _ = made(RANDOM, PAPER, "meta")
    print(f"{'path 2 alone':<28}{kept_bytes(network, *given[:2]) / 1e9:>9.2f}")
    print(f"goal for the peak, {RANDOM + SAVING} / {PLAIN}: {MEMORY_GOAL}; paper 6.69 / 6.15 = 1.09, as measured there")
    return high[RANDOM + SAVING] <= MEMORY_GOAL * high[PLAIN]


def step_table(size: tuple[int, ...], rounds: int, device: str) -> None:
    """Seconds of a training step, and its peak measured beside the counted one."""
    print(f"\ntraining step at {times(size)}: seconds, ratio to {PLAIN}; peak GB measured, counted")
    steps = {}
    for name in TRAINED:
        network, given, label = made(name, size, device)
        optimizer = torch.optim.Adam(network.parameters())
        steps[name] = lambda n=name, parts=(network, given, label, optimizer): train_step(n, *parts)
        steps[name]()
    spent = in_turn(steps, rounds, device)
    steps.clear()
    for name in TRAINED:
        middle, spread = ratio(spent, name)
        high, counted = peak(__file__, name, size, device), counted_step(name, size)[1]
        print(f"{name:<28}{statistics.median(spent[name]):>9.2f}{middle:>7.2f} ({spread})", end="")
        print(f"{high / 1e9:>9.2f}{counted / 1e9:>7.2f}", flush=True)


def measure_peak(name: str, size: list[int], device: str) -> int:
    """Bytes of a training step with Adam in this process, weights, gradients and the optimizer's state included."""
    network, given, label = made(name, tuple(size), device)
    optimizer = torch.optim.Adam(network.parameters())
    _, few, least = made(name, (16, 16, 16), device)
    train_step(name, network, few, least, optimizer)
    network.zero_grad(set_to_none=True)
    before = 3 * sum(parameter.nbytes for parameter in network.parameters())
    inputs = sum(tensor.nbytes for tensor in (*given[:2], label))
    return peak_of(lambda: train_step(name, network, given, label, optimizer), device) + before + inputs


@torch.no_grad()
def seconds(size: tuple[int, ...], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of both networks to apply, in turn."""
    x = torch.rand(1, 1, *size, device=device)
    networks = {name: build(name).to(device).eval() for name in (PLAIN, RANDOM)}
    for network in networks.values():
        network(torch.rand(1, 1, 16, 16, 16, device=device))
    return in_turn({name: lambda n=network: n(x) for name, network in networks.items()}, rounds, device)


def ratio(spent: dict[str, list[float]], name: str = RANDOM) -> tuple[float, str]:
    """Median of the ratios to the 3D U-Net, round by round, and their range."""
    each = sorted(a / b for a, b in zip(spent[name], spent[PLAIN], strict=True))
    return statistics.median(each), f"{each[0]:.2f}-{each[-1]:.2f}"


def inference_table(size: tuple[int, ...], rounds: int, device: str) -> bool:
    """Seconds of both networks as published; on a GPU, whether the 2.5D network is as fast as it should be."""
    spent = seconds(size, rounds, device)
    each = ", ".join(f"{name} {statistics.median(spent[name]):.2f} s" for name in spent)
    middle, spread = ratio(spent)
    print(f"\ninference at {times(size)}, {DIRECTIONS} directions: {each}; ratio {middle:.2f} ({spread})")
    print(f"paper 349 ms / 235 ms = 1.49; goal on a GPU {GPU_GOAL}", flush=True)
    return device == "cpu" or middle <= GPU_GOAL


@torch.no_grad()
def counted_inference(name: str, size: tuple[int, ...]) -> tuple[float, int]:
    """Multiply-accumulates of the convolutions, and the most bytes that tensors hold at a time."""
    with CountedPeak() as counted:
        network, given, _ = made(name, size, "meta")
        network.eval()(given[0])
    with FlopCounterMode(display=False) as operations:
        network(given[0])
    return operations.get_total_flops() / 2, counted.peak


def growth_table(cubes: list[int], rounds: int, device: str, out: Path | None) -> None:
    """Operations, bytes and seconds of cubes; a picture of them into the folder `out`."""
    columns = ("TMAC", "GB apply", "GB train", "GB saving", "seconds")
    print("\ncubes: operations and GB at the peak, counted; seconds to apply")
    print(f"{'':<18}" + "".join(f"{column:>11}" for column in columns) + f"{'ratio of seconds':>24}")
    drawn: dict[str, dict[str, list[float]]] = {name: {column: [] for column in columns} for name in (PLAIN, RANDOM)}
    for side in cubes:
        size = (side, side, side)
        spent = seconds(size, rounds, device)
        for name in (PLAIN, RANDOM):
            operations, high = counted_inference(name, size)
            trained = [counted_step(each, size)[1] / 1e9 for each in (name, name + SAVING)]
            row = (operations / 1e12, high / 1e9, *trained, statistics.median(spent[name]))
            for column, value in zip(columns, row):
                drawn[name][column].append(value)
            end = "{:>15.2f} ({})".format(*ratio(spent)) if name == RANDOM else ""
            print(f"{side:>3} {name:<14}" + "".join(f"{value:>11.2f}" for value in row) + end, flush=True)
    if out is not None:
        picture(cubes, drawn, out)


def picture(cubes: list[int], drawn: dict[str, dict[str, list[float]]], out: Path) -> None:
    """Write growth.png: memory and seconds over the side of the cube."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    titles = {
        "GB apply": "peak to apply, GB",
        "GB train": "peak of a training step, GB (dashed: save_memory)",
        "seconds": "seconds to apply",
    }
    for axis, (column, title) in zip(axes, titles.items()):
        for name, colour in zip(drawn, ("tab:orange", "tab:blue")):
            axis.plot(cubes, drawn[name][column], "o-", color=colour, label=name)
            if column == "GB train":
                axis.plot(cubes, drawn[name]["GB saving"], "o--", color=colour)
        axis.set(title=title, xlabel="side of the cube, voxels", xticks=cubes, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "growth.png", dpi=120)
    print(f"drawn to {out / 'growth.png'}")


def main() -> int:
    """Print the tables; the exit status says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("inference", "memory", "step", "growth"))
    parser.add_argument("--full", action="store_true", help=f"apply to {times(PAPER)} voxels on a CPU too")
    parser.add_argument("--cubes", type=int, nargs="+", default=list(CUBES), help="sides, voxels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the picture of growth")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(measure_peak(*json.loads(options.child)))
        return 0
    cpu = options.device == "cpu"
    print(
        f"torch {torch.__version__}, " + (f"{torch.get_num_threads()} threads" if cpu else torch.cuda.get_device_name())
    )
    held = True
    if options.only in (None, "memory"):
        held = memory_table()
    if options.only in (None, "inference"):
        size = SMALL if cpu and not options.full else PAPER
        held = inference_table(size, options.rounds, options.device) and held
    if options.only in (None, "step"):
        step_table(SMALL if cpu else PAPER, options.rounds, options.device)
    if options.only in (None, "growth"):
        growth_table(options.cubes, options.rounds, options.device, options.out)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
