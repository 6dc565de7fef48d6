"""What decoding in regions saves: 3D RU-Net against a 3D U-Net of the same layers that decodes the whole volume.

    python benchmarks/ru_net.py                          # minutes on two cores: an eighth of the size of the paper
    python benchmarks/ru_net.py --size 40 256 320        # the size of the paper throughout
    python benchmarks/ru_net.py --only inference --rounds 1

Footprint: bytes that autograd keeps for the backward pass, at 40x256x320 voxels and width 48 on the meta device: every
storage once, without weights, with the indices of poolings; parameters beside them. Step: seconds of forward and
backward, the networks in turn, and the peak of a fresh process for each. Inference: an ensemble of three by
`RoIInferer` against one pass of each of three U-Nets; peaks of fresh processes for the ensemble and for one pass.

Each RU-Net decodes two regions of 24x96x96 voxels of 40x256x320, and the same share of other sizes: 13.5 % of the
volume. (The largest tumour of the eight volumes of the public data set is 18x46x45; with its margin, 22x62x61.) The
weights are random, so the locator runs, and then a constructed heat map takes the place of what it says. The U-Net is
written down as one does: upsampling, then the convolution, a concatenation, ReLUs that make a new tensor.

Seconds on a CPU are those of the processor, for other work may run beside; ratios are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from measure import in_turn, kept_bytes, peak, peak_of, times
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.geometry.boxes import Box  # noqa: E402
from common.geometry.rois import pyramid_crop  # noqa: E402
from common.inferers.roi import RoIInferer  # noqa: E402
from common.networks.ru_net import CELL, DILATIONS, RUNet, RUNetEnsemble  # noqa: E402

PAPER, EIGHTH, MARGIN = (40, 256, 320), (20, 128, 160), (1, 2, 2)
STEPS = ("3D U-Net", "RUNet", "RUNet, save_memory")


class Block(nn.Module):
    """The residual block, as one writes it."""

    def __init__(self, in_channels: int, channels: int, depth: int, dilation: int) -> None:
        super().__init__()
        form = {"padding": (depth // 2, dilation, dilation), "dilation": (1, dilation, dilation)}
        self.conv1 = nn.Conv3d(in_channels, channels, (depth, 3, 3), **form)
        self.conv2 = nn.Conv3d(channels, channels, (depth, 3, 3), **form)
        self.conv3 = nn.Conv3d(channels, channels, (depth, 3, 3), **form)
        self.norm = nn.InstanceNorm3d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Three convolutions; the raw result of the first is added."""
        first = self.conv1(x)
        x = self.conv2(F.relu(self.norm(first)))
        x = self.conv3(F.relu(self.norm(x)))
        return F.relu(self.norm(x) + first)


class UNet(nn.Module):
    """The 3D U-Net with the layers of RU-Net, as one writes it."""

    def __init__(self, variant: str = "RF88", width: int = 48) -> None:
        super().__init__()
        one, two, three = DILATIONS[variant]
        self.encode1 = Block(1, width, 1, one)
        self.encode2 = Block(width, 2 * width, 3, two)
        self.encode3 = Block(2 * width, 4 * width, 3, three)
        self.conv2 = nn.Conv3d(4 * width, 2 * width, 1)
        self.decode2 = Block(4 * width, 2 * width, 3, two)
        self.conv1 = nn.Conv3d(2 * width, width, 1)
        self.decode1 = Block(2 * width, width, 1, one)
        self.head = nn.Conv3d(width, 2, 1)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """F_I, F_II and F_III."""
        f1 = self.encode1(x)
        f2 = self.encode2(F.max_pool3d(f1, (1, 2, 2)))
        return f1, f2, self.encode3(F.max_pool3d(f2, 2))

    def decode(self, f1: torch.Tensor, f2: torch.Tensor, f3: torch.Tensor) -> torch.Tensor:
        """Probabilities of background and region."""
        x = F.relu(self.conv2(F.interpolate(f3, scale_factor=(2, 2, 2), mode="trilinear")))
        x = self.decode2(torch.cat([f2, x], 1))
        x = F.relu(self.conv1(F.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear")))
        return self.head(self.decode1(torch.cat([f1, x], 1))).softmax(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities of background and region in the whole volume."""
        return self.decode(*self.encode(x))


def regions(size: tuple[int, ...]) -> list[Box]:
    """Two boxes, in cells, of the share of the volume that 24x96x96 voxels have of 40x256x320."""
    grid = [n // step for n, step in zip(size, CELL)]
    shape = [round(n * part / whole) for n, part, whole in zip(grid, (24, 96, 96), PAPER)]
    last = tuple(grid)
    return [
        Box((0, 0, 0), tuple(shape)),
        Box(tuple(n - length for n, length in zip(grid, shape)), last),
    ]


def outputs(network: nn.Module, x: torch.Tensor, boxes: list[Box] | None) -> list[torch.Tensor]:
    """What a training step gets from a network: all heads, in the regions (None: the whole volume is one)."""
    features = network.encode(x)
    located = [network.locate(features[2])] if isinstance(network, RUNet) else []
    for crops in [features] if boxes is None else [pyramid_crop(features, box) for box in boxes]:
        decoded = network.decode(*crops)
        located += [decoded] if isinstance(decoded, torch.Tensor) else decoded
    return located


def footprint_table(width: int) -> bool:
    """Bytes kept at the size of the paper; whether both goals are met."""
    with torch.device("meta"):
        x = torch.empty(1, 1, *PAPER)
        plain, saving, written = RUNet(width=width), RUNet(width=width, save_memory=True), UNet(width=width)
    boxes = regions(PAPER)
    rows = [
        ("3D U-Net, as one writes it", written, None),
        ("the same, its decoder in two regions", written, boxes),
        ("RUNet, the whole volume one region", plain, None),
        ("RUNet", plain, boxes),
        ("RUNet, the whole volume one region, save_memory", saving, None),
        ("RUNet, save_memory", saving, boxes),
    ]
    print(f"\nbytes kept for the backward pass at {times(PAPER)}, width {width} (paper 9.7 / 18.9 GB = 0.51,")
    print(f"with activations in place 6.5 / 13.3 = 0.49)\n{'':<50}{'parameters':>11}{'GB':>8}{'ratio':>8}")
    ratios, first = {}, 0
    for name, network, where in rows:
        count, kept = sum(p.numel() for p in network.parameters()), kept_bytes(outputs, network, x, where)
        first = first or kept
        ratios[name] = kept / first
        print(f"{name:<50}{count:>11,}{kept / 1e9:>8.2f}{ratios[name]:>8.3f}")
    return ratios["RUNet"] <= 0.51 and ratios["RUNet, save_memory"] <= 0.25


def build(name: str, width: int, variant: str = "RF88") -> nn.Module:
    """One of the networks of `STEPS`."""
    torch.manual_seed(0)
    return UNet(variant, width) if name == "3D U-Net" else RUNet(variant, width=width, save_memory="save" in name)


def train_step(network: nn.Module, x: torch.Tensor) -> None:
    """Forward and backward; the U-Net decodes everything, RU-Net its regions."""
    network.zero_grad(set_to_none=True)
    boxes = regions(tuple(x.shape[2:])) if isinstance(network, RUNet) else None
    sum(result.square().mean() for result in outputs(network, x, boxes)).backward()


def ensemble(width: int, size: tuple[int, ...], device: str) -> RUNetEnsemble:
    """Three members whose locators run, and then say what is constructed."""
    torch.manual_seed(0)
    network = RUNetEnsemble(width=width).eval().to(device)
    heat = torch.full((1, 1, *(n // step for n, step in zip(size, CELL))), -10.0)
    for box in regions(size):
        inside = (slice(a + m * (a > 0), b - m * (a == 0)) for a, b, m in zip(box.start, box.stop, MARGIN))
        heat[(0, 0, *inside)] = 10.0
    heat = heat.to(device)
    for member in network.members.values():
        locate = member.locate
        # where the volume is another one (the first, small one that prepares the kernels), one cell is told
        member.locate = lambda f3, locate=locate: 0 * locate(f3) + (heat if f3.shape[2:] == heat.shape[2:] else 10.0)
    return network


def measure_peak(what: str, width: int, size: list[int], device: str) -> int:
    """Bytes of a training step or of a prediction, in this process."""
    x, small = torch.randn(1, 1, *size, device=device), torch.randn(1, 1, 4, 16, 16, device=device)
    if what in STEPS:
        network = build(what, width).to(device)
        train_step(network, small)
        return peak_of(lambda: train_step(network, x), device)
    with torch.no_grad():
        if what == "pass":
            network = build("3D U-Net", width).eval().to(device)
            network(small)
            return peak_of(lambda: network(x), device)
        inferer, network = RoIInferer(margin=MARGIN), ensemble(width, tuple(size), device)
        inferer(small, network)
        return peak_of(lambda: inferer(x, network), device)


def step_table(size: tuple[int, ...], width: int, rounds: int, device: str) -> bool:
    """Seconds and peak of a training step; whether saving memory costs no more than it may."""
    print(f"\ntraining step at {times(size)}: seconds, ratio to RUNet; peak GB, ratio to the U-Net", flush=True)
    x, networks = torch.randn(1, 1, *size, device=device), {name: build(name, width).to(device) for name in STEPS}
    for network in networks.values():
        train_step(network, x[..., :16, :32, :32])
    spent = in_turn({name: lambda n=network: train_step(n, x) for name, network in networks.items()}, rounds, device)
    ratios, first = {}, 0
    for name in STEPS:
        each = sorted(a / b for a, b in zip(spent[name], spent["RUNet"], strict=True))
        ratios[name] = statistics.median(each)
        high = peak(__file__, name, width, size, device)
        first = first or high
        print(
            f"{name:<22}{statistics.median(spent[name]):>8.2f}{ratios[name]:>7.2f} ({each[0]:.2f}-{each[-1]:.2f})",
            end="",
        )
        print(f"{high / 1e9:>8.2f}{high / first:>7.2f}", flush=True)
    return ratios["RUNet, save_memory"] <= 1.35


@torch.no_grad()
def inference_table(size: tuple[int, ...], width: int, rounds: int, device: str) -> bool:
    """Seconds and peak of an ensemble in its regions against three passes; whether both goals are met."""
    print(f"\nthree members at {times(size)}, two regions each", flush=True)
    x, network, inferer = (
        torch.randn(1, 1, *size, device=device),
        ensemble(width, size, device),
        RoIInferer(margin=MARGIN),
    )
    others = [build("3D U-Net", width, variant).eval().to(device) for variant in DILATIONS]
    steps: list[dict[str, float]] = []

    def ours() -> None:
        inferer(x, network)
        steps.append(inferer.report["seconds"])

    def theirs() -> None:
        for other in others:
            other(x)

    for call in (network, others[0]):
        call(x[..., :16, :32, :32])
    spent = in_turn({"theirs": theirs, "ours": ours}, rounds, device)
    ratios = sorted(a / b for a, b in zip(spent["theirs"], spent["ours"], strict=True))
    ratio, pair = statistics.median(ratios), [statistics.median(spent[side]) for side in ("theirs", "ours")]
    print(f"  seconds: three passes of the U-Net {pair[0]:.2f}, RoIInferer {pair[1]:.2f}, ratio {ratio:.2f} ", end="")
    print(f"({ratios[0]:.2f}-{ratios[-1]:.2f}); rois {inferer.report['rois']}, share {inferer.report['roi_share']:.3f}")
    told = ", ".join(f"{step} {statistics.median(s[step] for s in steps):.3f}" for step in steps[0])
    print(f"  of these (elapsed): {told}", flush=True)
    one, all_three = peak(__file__, "pass", width, size, device), peak(__file__, "ensemble", width, size, device)
    print(
        f"  peak GB: one pass of the U-Net {one / 1e9:.2f}, the ensemble {all_three / 1e9:.2f}, {all_three / one:.2f}"
    )
    return ratio >= 1.7 and all_three <= 0.5 * one


def main() -> int:
    """Print the tables; the exit status says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, help="voxels, multiples of 8 16 16 or so")
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("footprint", "step", "inference"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(measure_peak(*json.loads(options.child)))
        return 0
    size = tuple(options.size or (EIGHTH if options.device == "cpu" else PAPER))
    where = f"{torch.get_num_threads()} threads" if options.device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}, width {options.width}")
    held = True
    if options.only in (None, "footprint"):
        held = footprint_table(options.width)
    if options.only in (None, "step"):
        held = step_table(size, options.width, options.rounds, options.device) and held
    if options.only in (None, "inference"):
        held = inference_table(size, options.width, options.rounds, options.device) and held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
