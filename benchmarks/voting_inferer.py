"""Seconds and peak memory of `VotingInferer` against MONAI's `SlidingWindowInferer`, side by side in one run.

Both stitch the same windows with the same weights from the same network, one 1x1x1 convolution, so that stitching
dominates. Rows "labels" end in uint8 labels on both sides; rows "probabilities" in float32 means.

    python benchmarks/voting_inferer.py            # 24 classes, 192 x 192 x 432, window 96, overlap 0.5
    python benchmarks/voting_inferer.py --quick    # the same on a volume of a 27th

Time: both in one process, taking turns, the best of n runs. Memory: each in a process of its own, the highest resident
set while it runs less the highest one while a single window ran before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from monai.inferers import SlidingWindowInferer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.inferers.voting import VotingInferer  # noqa: E402

CLASSES = 24
TARGETS = {("labels", "seconds"): 1.0, ("labels", "memory"): 0.35}


class Theirs:
    """MONAI's inferer, brought to the same product."""

    def __init__(self, roi: int, mode: str, output: str) -> None:
        self.inferer = SlidingWindowInferer(roi, sw_batch_size=1, overlap=0.5, mode=mode)
        self.output = output

    def __call__(self, volume: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        scores = self.inferer(volume, network)
        return scores.argmax(dim=1, keepdim=True).to(torch.uint8) if self.output == "labels" else scores


def ours(roi: int, mode: str, output: str) -> VotingInferer:
    """This project's inferer; the network's scores are averaged as they come, as MONAI does."""
    return VotingInferer(roi, overlap=0.5, mode=mode, output=output, activation=None)


def workload(quick: bool) -> tuple[torch.Tensor, torch.nn.Module, int]:
    """The volume, the network and the window."""
    torch.manual_seed(0)
    size, roi = ((64, 64, 144), 32) if quick else ((192, 192, 432), 96)
    return torch.rand(1, 1, *size), torch.nn.Conv3d(1, CLASSES, 1).eval(), roi


def peak() -> int:
    """Highest resident set of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux's ru_maxrss would begin with the parent's size; this line is the process's own
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@torch.no_grad()
def measure_memory(side: str, mode: str, output: str, quick: bool) -> int:
    """Bytes above one window's own, in this process."""
    volume, network, roi = workload(quick)
    inferer = {"ours": ours, "theirs": Theirs}[side](roi, mode, output)
    window = volume[..., :roi, :roi, :roi]
    inferer(window, network)
    before = peak()
    inferer(volume, network)
    return peak() - before


def memory(side: str, mode: str, output: str, quick: bool) -> int:
    """Bytes above one window's own, in a fresh process."""
    command = [sys.executable, __file__, "--child", json.dumps([side, mode, output, quick])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


@torch.no_grad()
def seconds(mode: str, output: str, quick: bool, repeats: int) -> tuple[float, float, float]:
    """Best times of ours and of theirs, and the share of voxels in which the results agree."""
    volume, network, roi = workload(quick)
    sides = ours(roi, mode, output), Theirs(roi, mode, output)
    best, results = [float("inf")] * 2, [torch.empty(0)] * 2
    for _ in range(repeats):
        for index, inferer in enumerate(sides):
            results[index] = torch.empty(0)
            start = time.perf_counter()
            results[index] = inferer(volume, network)
            best[index] = min(best[index], time.perf_counter() - start)
    same = sum(torch.isclose(a, b, atol=1e-5).sum().item() for a, b in zip(*(r[0] for r in results), strict=True))
    return best[0], best[1], same / results[0].numel()


def main() -> int:
    """Print the table; the exit status says whether the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small volume, for a look in a few seconds")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side for the times")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(measure_memory(*json.loads(options.child)))
        return 0
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    columns = f"{'ours':>10}{'MONAI':>10}{'ratio':>8}{'target':>8}  voxels that agree"
    print(f"{'weights':<10}{'output':<15}{'figure':<10}{columns}")
    held = True
    for mode in ("constant", "gaussian"):
        for output in ("labels", "probabilities"):
            quick, mib = options.quick, 2**20
            mine, theirs, same = seconds(mode, output, quick, options.repeats)
            bytes_mine, bytes_theirs = (memory(side, mode, output, quick) for side in ("ours", "theirs"))
            rows = [
                ("seconds", f"{mine:.2f} s", f"{theirs:.2f} s", mine / theirs, f"{same:.7f}"),
                (
                    "memory",
                    f"{bytes_mine / mib:.0f} MiB",
                    f"{bytes_theirs / mib:.0f} MiB",
                    bytes_mine / bytes_theirs,
                    "",
                ),
            ]
            for figure, a, b, ratio, note in rows:
                target = TARGETS.get((output, figure))
                held = held and (target is None or ratio <= target)
                goal = f"{target:.2f}" if target else "-"
                print(f"{mode:<10}{output:<15}{figure:<10}{a:>10}{b:>10}{ratio:>8.2f}{goal:>8}  {note}", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
