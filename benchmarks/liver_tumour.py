"""What RA-UNet's boxes save: windows, seconds and memory, against its two 3D networks slid over the whole volume.

A constructed abdomen of 512x512x78 voxels with a liver of about the share and the box that a recorded one had (6.6 % of
the voxels, in a box of 22 %), three tumours and a spleen. Both sides run the same two networks with the same windows
and overlaps: the published 224x224x32 for the liver, 32x32x32 for tumours. The pipeline runs the localiser as well.

    python benchmarks/liver_tumour.py              # some minutes, width 4
    python benchmarks/liver_tumour.py --width 8    # the published width
    python benchmarks/liver_tumour.py --quick      # a 64th of the voxels, for a look

Seconds: the networks are run, untrained; what they answer is then replaced by a rule of brightness, so that the liver
lies where it was constructed. Memory: each side in a process of its own, the highest resident set during the call, less
what was there before and less the same for a volume of one window. There the rule stands alone: a network's own memory,
the same on both sides, would cover up the rest.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import peak, peak_of
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.geometry.components import keep_largest  # noqa: E402
from common.inferers.liver_tumour import LiverTumourInferer  # noqa: E402
from common.inferers.voting import VotingInferer  # noqa: E402
from common.networks.ra_unet import RAUNet  # noqa: E402

MIB, SIZE = 2**20, (512, 512, 78)
FLESH, LIVER, TUMOUR = 0.25, 0.65, 0.45
# centre and radii in voxels: two lobes, the spleen, three tumours
LOBES = [((120, 265, 32), (70, 118, 31)), ((215, 205, 45), (102, 55, 24))]
SPLEEN = ((420, 330, 40), (40, 55, 18))
TUMOURS = [((110, 290, 30), (20, 20, 8)), ((140, 220, 40), (12, 12, 5)), ((250, 200, 45), (8, 8, 4))]
SIDES = ("boxes", "whole", "whole, rolling sums")


class Ruled(nn.Module):
    """A network that is run, if there is one, and a logit by brightness that is its answer: above 0 in one range."""

    def __init__(self, low: float, high: float, network: nn.Module | None) -> None:
        super().__init__()
        self.middle, self.reach, self.network = (low + high) / 2, (high - low) / 2, network

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of the windows' own size."""
        rule = windows.sub(self.middle).abs_().sub_(self.reach).mul_(-100)
        return rule if self.network is None else rule.add_(self.network(windows), alpha=0)


class Stages(nn.Module):
    """The three networks; width 0 leaves the rules alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        flat, liver, tumour = (
            RAUNet(dims, 1, 1, wide) if width else None
            for dims, wide in ((2, max(width // 2, 1)), (3, width), (3, width))
        )
        self.localiser = Ruled(0.45, 0.85, flat)
        self.liver = Ruled(0.35, 0.85, liver)
        self.tumour = Ruled(0.38, 0.52, tumour)


def abdomen(scale: int) -> torch.Tensor:
    """The volume 1 1 X Y Z, grey values 0 to 1."""
    size = tuple(length // scale for length in SIZE)
    axes = [torch.arange(length, dtype=torch.float32) * scale for length in size]
    noise = torch.Generator().manual_seed(0)
    volume = torch.empty(1, 1, *size).normal_(0.02, 0.01, generator=noise)
    body = ((256, 256, 39), (230, 170, 1e6))
    levels = [(body, FLESH), *((part, LIVER) for part in (*LOBES, SPLEEN)), *((part, TUMOUR) for part in TUMOURS)]
    for part, level in levels:
        x, y, z = (((axis - centre) / radius) ** 2 for axis, centre, radius in zip(axes, *part))
        for plane, third in zip(volume[0, 0].unbind(-1), z.tolist()):
            inside = x[:, None] + y < 1 - third
            plane[inside] = level + torch.empty(int(inside.sum())).normal_(0, 0.01, generator=noise)
    return volume


def tiles_of(stage: str, scale: int, **settings: object) -> VotingInferer:
    """The published windows of a stage."""
    window = (224, 224, 32) if stage == "liver" else (32, 32, 32)
    overlap = (0.0, 0.0, 0.375) if stage == "liver" else 0.5
    padding = "replicate" if stage == "liver" else "constant"
    batch = 1 if stage == "liver" else 8
    given = {
        "sw_batch_size": batch,
        "output": "probabilities",
        "activation": "sigmoid",
        "padding_mode": padding,
        **settings,
    }
    return VotingInferer([max(length // scale, 8) for length in window], overlap, **given)


class WholeVolume:
    """The two 3D networks slid over the whole volume, the labels made as the pipeline makes them.

    Args:
        scale: divides the windows.
        rolling: masks instead of probabilities, for which sums are kept for one window's height only.
    """

    def __init__(self, scale: int, rolling: bool) -> None:
        output = [{"output": "labels", "threshold": level} if rolling else {} for level in (0.6, 0.5)]
        self.liver, self.tumour = (tiles_of(*both, **given) for both, given in zip(_both(scale), output))
        self.report: dict = {}

    def __call__(self, volume: torch.Tensor, network: Stages) -> torch.Tensor:
        """Labels 0, 1 and 2."""
        clocks = [time.perf_counter()]
        liver = keep_largest(self.liver(volume, network.liver) >= 0.6)
        clocks.append(time.perf_counter())
        labels = liver.to(torch.uint8)
        labels += (self.tumour(volume, network.tumour) >= 0.5).logical_and_(liver)
        clocks.append(time.perf_counter())
        self.report = {
            "windows": {"liver": self.liver.windows, "tumour": self.tumour.windows},
            "seconds": {"liver": clocks[1] - clocks[0], "tumour": clocks[2] - clocks[1]},
        }
        return labels


def inferer_of(side: str, scale: int) -> Callable:
    """The pipeline, or what it is compared with."""
    if side != "boxes":
        return WholeVolume(scale, side != "whole")
    liver, tumour = (tiles_of(*both) for both in _both(scale))
    wide, narrow = 256 // scale, 224 // scale
    return LiverTumourInferer(
        liver_tiles=liver,
        tumour_tiles=tumour,
        localiser_size=(wide, wide),
        liver_size=(narrow, narrow),
        box_margin=10 // scale,
    )


def measure_memory(side: str, scale: int) -> int:
    """Bytes above one window's own, in this process."""
    torch.set_num_threads(1)
    volume, network, inferer = abdomen(scale), Stages(0), inferer_of(side, scale)
    middle = [slice(max(length // 2 - 112 // scale, 0), length // 2 + 112 // scale) for length in volume.shape[2:4]]
    window = volume[(..., *middle, slice(0, 32 // scale))].clone()
    inferer(window, network)
    alone = peak_of(lambda: inferer(window, network), "cpu")
    return peak_of(lambda: inferer(volume, network), "cpu") - alone


def memory(side: str, scale: int) -> float:
    """MiB above one window's own, in a fresh process."""
    return peak(__file__, side, scale) / MIB


@torch.no_grad()
def seconds_table(scale: int, width: int) -> float:
    """Windows and seconds of both sides; the ratio of CPU seconds."""
    volume, network = abdomen(scale), Stages(width).eval()
    spent, answers = {}, {}
    for side in SIDES[:2]:
        inferer = inferer_of(side, scale)
        clocks = time.perf_counter(), time.process_time()
        answers[side] = inferer(volume, network)
        spent[side] = (time.perf_counter() - clocks[0], time.process_time() - clocks[1])
        windows = ", ".join(f"{stage} {count}" for stage, count in inferer.report["windows"].items())
        steps = ", ".join(f"{step} {taken:.2f}" for step, taken in inferer.report["seconds"].items())
        print(
            f"  {side:<6} windows: {windows}; {spent[side][0]:.1f} s, of the CPU {spent[side][1]:.1f}: {steps}",
            flush=True,
        )
        if side == "boxes":
            print(f"         box {inferer.report['box_share']:.1%} of the volume, tumours {inferer.report['tumours']}")
    wall, cpu = (whole / boxes for whole, boxes in zip(spent["whole"], spent["boxes"]))
    print(f"  ratio of seconds {wall:.2f}, of the CPU's {cpu:.2f} (goal 4)")
    for label, name in ((1, "liver"), (2, "tumour")):
        both = [answers[side] >= label for side in SIDES[:2]]
        dice = 2 * (both[0] & both[1]).sum().item() / max(sum(one.sum().item() for one in both), 1)
        print(f"  {name}: {both[0].float().mean().item():.2%} of the volume, Dice of the two sides {dice:.4f}")
    return cpu


def memory_table(scale: int) -> float:
    """Peaks of the three sides; the ratio to the whole volume's."""
    peaks = {side: memory(side, scale) for side in SIDES}
    print(f"\nMiB above one window's own (goal 0.3); the answer is {math.prod(SIZE) / scale**3 / MIB:.1f} of each")
    for side, most in peaks.items():
        print(f"  {side:<22}{most:>8.1f}   boxes / this {peaks['boxes'] / max(most, 1e-6):.2f}", flush=True)
    return peaks["boxes"] / max(peaks["whole"], 1e-6)


def main() -> int:
    """Print the tables; the exit status says whether both goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small volume, for a look")
    parser.add_argument("--width", type=int, default=4, help="of the 3D networks; the localiser has half of it")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with torch.no_grad():
            print(measure_memory(*json.loads(options.child)))
        return 0
    scale = 4 if options.quick else 1
    size = "x".join(str(length // scale) for length in SIZE)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {size} voxels, width {options.width}",
        flush=True,
    )
    held = memory_table(scale) <= 0.3
    print()
    # windows of the small volume are not what the networks take: their rules stand alone there
    held = seconds_table(scale, 0 if options.quick else options.width) >= 4 and held
    return 0 if held else 1


def _both(scale: int) -> list[tuple[str, int]]:
    return [("liver", scale), ("tumour", scale)]


if __name__ == "__main__":
    sys.exit(main())
