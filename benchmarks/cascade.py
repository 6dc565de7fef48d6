"""What the regions of the cascade save: tiles, seconds and memory, against the same inferer without a region.

A constructed torso of 512x512x600 voxels on every second voxel (256x256x300): the body (C1) is about 40 % of it, bright
organs grown by 3 voxels (C2) about 10 %. Both sides use the same grid of tiles.

    python benchmarks/cascade.py                # a few minutes on two cores
    python benchmarks/cascade.py --share 1      # time every tile, not a sample
    python benchmarks/cascade.py --quick        # a torso of a 64th, for a look

Tiles: counted exactly, for several windows. Seconds: both stages of a `CascadedUNet3D` of width 8 run on a sample of
the grid's tiles, the same for both sides, taking turns. Memory: each in a process of its own, the highest resident set
during the call, less what was there before and less the same for a single window. There a stand-in takes the network's
place, with the same windows and cores and next to no memory, since a real tile's own would cover up the rest. Its first
stage answers by brightness, so that the region is the constructed one. The whole pipeline runs with the stand-in too.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from measure import peak, peak_of
from monai.inferers import SlidingWindowInferer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.inferers.cascade import CascadeInferer  # noqa: E402
from common.inferers.tiling import Tiling, margin_of  # noqa: E402
from common.inferers.voting import VotingInferer  # noqa: E402
from common.networks.cascade import CascadedUNet3D  # noqa: E402
from common.transforms.hounsfield import HounsfieldWindow  # noqa: E402

MIB, CLASSES, FLESH, ORGAN, AIR = 2**20, 8, 40.0, 150.0, -1000.0
WINDOW, CORE = (132, 132, 116), (44, 44, 28)
PADDED = (128, 128, 112)
# window, core, predictions for every voxel or overlap: the paper's tile, larger ones, and those of a padded network
GRIDS = [
    (WINDOW, CORE, 1, 0.0),
    (WINDOW, CORE, 4, 0.0),
    ((164, 164, 148), (76, 76, 60), 1, 0.0),
    ((212, 212, 196), (124, 124, 108), 1, 0.0),
    (PADDED, PADDED, 1, 0.0),
    (PADDED, PADDED, None, 0.5),
]
# what is measured for memory: roi, padded, arguments of VotingInferer
MODES = {
    "one prediction (votes=1)": (WINDOW, False, {"votes": 1}),
    "overlap 0, the last tile moved back": (WINDOW, False, {"overlap": 0.0}),
    "R = 4 (votes=4)": (WINDOW, False, {"votes": 4}),
    "padded, overlap 0.5, Gaussian": (PADDED, True, {"overlap": 0.5, "mode": "gaussian"}),
}
# centre and radii in halves of the volume: liver, spleen, stomach, pancreas, gallbladder
ORGANS = [
    ((-0.33, -0.05, 0.1), (0.42, 0.46, 0.54)),
    ((0.48, 0.2, 0.2), (0.18, 0.22, 0.30)),
    ((0.32, -0.18, 0.1), (0.30, 0.27, 0.34)),
    ((0.05, 0.05, -0.1), (0.36, 0.08, 0.12)),
    ((-0.25, -0.3, -0.35), (0.07, 0.07, 0.1)),
]


class StandIn(torch.nn.Module):
    """The geometry of a network without its work: the core of a window, one 1x1x1 convolution."""

    def __init__(self, lost: tuple[int, ...], told: bool) -> None:
        super().__init__()
        self.lost, self.score = lost, torch.nn.Conv3d(1, CLASSES, 1)
        torch.manual_seed(1 + told)
        torch.nn.init.normal_(self.score.weight, std=50)
        if told:
            # class 1 between flesh and organ, in the grey values of stage 1; the others never
            self.score.weight.data.zero_()[1] = 1000
            self.score.bias.data = torch.tensor([0.0, -1000 * 0.055, *[-1e4] * (CLASSES - 2)])
        else:
            # noise decides between all classes around the grey values of flesh and organ in stage 2
            self.score.bias.data = 0.16 * self.score.weight.data.flatten() + torch.randn(CLASSES)

    def output_size(self, roi: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the core."""
        return tuple(length - lost for length, lost in zip(roi, self.lost))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scores of the core."""
        inside = [slice(lost // 2, length - lost // 2) for length, lost in zip(windows.shape[2:], self.lost)]
        return self.score(windows[(slice(None), slice(None), *inside)])


class StandInCascade(torch.nn.Module):
    """Two stand-ins, the first of which tells what is bright."""

    def __init__(self, padded: bool) -> None:
        super().__init__()
        lost = (0, 0, 0) if padded else tuple(a - b for a, b in zip(WINDOW, CORE))
        self.stage1, self.stage2 = StandIn(lost, told=True), StandIn(lost, told=False)


def torso(size: tuple[int, ...]) -> torch.Tensor:
    """A torso in HU, 1 1 X Y Z, with noise."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.empty(1, 1, *size).normal_(0, 10, generator=generator)
    axes = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in size]

    def inside(centre: tuple[float, ...], radii: tuple[float, ...], z: float) -> torch.Tensor:
        x, y = (((axis - c) / r) ** 2 for axis, c, r in zip(axes[:2], centre, radii))
        return x[:, None] + y < 1 - ((z - centre[2]) / radii[2]) ** 2

    for plane, z in enumerate(axes[2].tolist()):
        level = torch.full(size[:2], AIR)
        level[inside((0, 0, 0), (0.83, 0.614, 1e6), z)] = FLESH
        for centre, radii in ORGANS:
            level[inside(centre, radii, z)] = ORGAN
        level[inside((0.05, 0.3, 0), (0.05, 0.05, 0.9), z)] = ORGAN  # the aorta
        volume[0, 0, :, :, plane] += level
    return volume


def cascade(mode: str = "one prediction (votes=1)", region: bool = True, downsampling: int = 2) -> CascadeInferer:
    """The inferer; without a region everything is body, and everything near what stage 1 finds is candidate."""
    roi, _, settings = MODES[mode]
    tiles = [VotingInferer(roi, padding_mode="constant", **settings) for _ in range(2)]
    # the grey values of stage 1 are not centred here: their mean inside the body would depend on the region
    windows = HounsfieldWindow((-500, 500), (-0.54, 0.46)), HounsfieldWindow((-2000, 3000), (-1, 1))
    whole = {} if region else {"body_threshold": -1e9, "body_opening": 0, "dilation": 10**6}
    return CascadeInferer(windows[0], tiles[0], windows[1], tiles[1], downsampling, **whole)


@torch.no_grad()
def measure_memory(what: str, mode: str, side: str, size: tuple[int, ...]) -> int:
    """Bytes above one window's own, in this process: of one stage's tiles, or of the pipeline."""
    torch.set_num_threads(1)
    roi, padded, settings = MODES[mode]
    network = StandInCascade(padded).eval()
    if what == "pipeline":
        volume, inferer = torso(size), cascade(mode, side == "region")
        inferer(volume[..., :64, :64, :8].clone(), network)
        return peak_of(lambda: inferer(volume, network), "cpu")
    volume = torso(tuple(n // 2 for n in size))
    body, _, candidate = cascade(downsampling=1).localise(volume, StandInCascade(padded=False))
    volume = HounsfieldWindow((-2000, 3000), (-1, 1))(volume)
    mask, stage = (body, network.stage1) if what == "stage 1" else (candidate, network.stage2)
    if side == "MONAI":
        theirs = SlidingWindowInferer(roi, 1, settings["overlap"], settings["mode"], padding_mode="constant")

        def call(part: torch.Tensor) -> torch.Tensor:
            return theirs(part, stage).argmax(1, keepdim=True).to(torch.uint8)
    else:
        ours = VotingInferer(roi, padding_mode="constant", **settings)

        def call(part: torch.Tensor) -> torch.Tensor:
            whole = part.shape == volume.shape
            return ours(part, stage, mask=mask if whole and side == "region" else None)

    # one core of a volume is one window
    single = volume[(..., *(slice(0, length) for length in stage.output_size(roi)))].clone()
    call(single)
    alone = peak_of(lambda: call(single), "cpu")
    return peak_of(lambda: call(volume), "cpu") - alone


def memory(*arguments: object) -> float:
    """MiB above one window's own, in a fresh process."""
    return peak(__file__, *arguments) / MIB


def tile_table(regions: dict[str, torch.Tensor]) -> float:
    """Tiles of both stages for several windows; the ratio of the paper's tile."""
    print("\ntiles of both stages: all, in C1 + in C2, ratio; voxels read by all windows, in 1000 million")
    extent, ratios = tuple(regions["c1"].shape), []
    for roi, core, votes, overlap in GRIDS:
        tiling = Tiling(extent, roi, margin_of(roi, core), [overlap] * 3, votes, 1)
        every = 2 * len(tiling.tiles())
        kept = [len(tiling.tiles(mask)) for mask in regions.values()]
        ratios.append(every / sum(kept))
        read = [count * math.prod(roi) / 1e9 for count in (every, sum(kept))]
        text = f"{_times(roi):>12} -> {_times(core):<12} {f'votes={votes}' if votes else f'overlap {overlap}':<12}"
        print(f"{text}{every:>7}{kept[0]:>6} +{kept[1]:>4}{ratios[-1]:>8.2f}{read[0]:>9.2f} ->{read[1]:>7.2f}")
    return ratios[0]


@torch.no_grad()
def seconds_table(volume: torch.Tensor, regions: dict[str, torch.Tensor], share: float) -> tuple[float, float, bool]:
    """Ratio of tiles, ratio of CPU seconds, and whether labels inside the regions are equal, on a sample of tiles."""
    torch.manual_seed(0)
    network = CascadedUNet3D(widths=(8, 16, 32, 64)).eval()
    tiling = Tiling(tuple(volume.shape[2:]), WINDOW, margin_of(WINDOW, CORE), [0.0] * 3, 1, 1)
    starts = tiling.tiles()
    chosen = torch.randperm(len(starts))[: max(round(share * len(starts)), 2)].tolist()
    inferer, same = VotingInferer(WINDOW, votes=1, padding_mode="constant"), True
    network(volume[(..., *map(slice, WINDOW))])
    spent = {side: [0, 0.0, 0.0] for side in ("all", "region")}
    for first in range(0, len(chosen), 10):  # a few tiles in turn, for what else the machine does changes by the minute
        sample = torch.zeros(volume.shape, dtype=torch.bool)
        for index in chosen[first : first + 10]:
            place = tuple(slice(start, start + length) for start, length in zip(starts[index], CORE))
            sample[(0, 0, *place)] = True
        for name, stage in (("c1", network.stage1), ("c2", network.stage2)):
            mask, results = regions[name][None, None], {}
            for side in spent:
                wanted = sample & mask if side == "region" else sample
                clocks = time.perf_counter(), time.process_time()
                results[side] = inferer(volume, stage, mask=wanted)
                wall, cpu = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
                spent[side] = [a + b for a, b in zip(spent[side], (inferer.windows, wall, cpu))]
            same = same and torch.equal(results["region"], results["all"] * mask)
    tiles, wall, cpu = (a / b for a, b in zip(spent["all"], spent["region"]))
    counted, elapsed, used = spent["all"]
    print(f"\nwidth 8, {len(chosen)} of {len(starts)} tiles of each stage: {counted} -> {spent['region'][0]} tiles run")
    print(f"  seconds {elapsed:.1f} -> {spent['region'][1]:.1f}, of the CPU {used:.1f} -> {spent['region'][2]:.1f}")
    print(
        f"  ratio of tiles {tiles:.2f}, of seconds {wall:.2f}, of the CPU's {cpu:.2f}; {elapsed / counted:.2f} s a tile"
    )
    print(f"  labels inside the regions equal: {same}", flush=True)
    return tiles, cpu, same


def memory_table(size: tuple[int, ...]) -> None:
    """MiB of the tiles of each stage, with and without a region."""
    print("\nMiB above one tile's own: without a region, with it, ratio (goal 0.40)")
    for mode in MODES:
        for stage in ("stage 1", "stage 2"):
            none, kept = memory(stage, mode, "all", size), memory(stage, mode, "region", size)
            print(f"  {mode:<38}{stage}{none:>9.1f}{kept:>9.1f}{kept / max(none, 1e-6):>8.2f}", flush=True)
    none, kept = (memory("pipeline", "one prediction (votes=1)", side, size) for side in ("all", "region"))
    answer = math.prod(size) / MIB
    print(f"  whole inferer, of which {answer:.1f} its answer{none:>9.1f}{kept:>9.1f}{kept / max(none, 1e-6):>8.2f}")


@torch.no_grad()
def pipeline(size: tuple[int, ...]) -> bool:
    """Seconds of each step with the stand-in; whether labels inside the region are equal at full size."""
    volume, network = torso(size), StandInCascade(padded=False).eval()
    results = []
    for region in (True, False):
        inferer = cascade(region=region)
        inferer(volume, network)  # a first round: fresh pages of memory take longer than the work
        start = time.perf_counter()
        results.append(inferer(volume, network))
        steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in inferer.report["seconds"].items())
        windows = inferer.report["windows"]
        print(f"  {'region' if region else 'all':<7}{windows} {time.perf_counter() - start:.1f} s: {steps}", flush=True)
    candidate = cascade().localise(volume[..., ::2, ::2, ::2], network)[2]
    limited, everywhere = (result[..., ::2, ::2, ::2] for result in results)
    same = torch.equal(limited, everywhere * candidate) and len(limited.unique()) > 2
    print(f"  labels inside C2 equal: {same}", flush=True)
    return same


@torch.no_grad()
def beside_monai(volume: torch.Tensor, candidate: torch.Tensor, size: tuple[int, ...]) -> None:
    """Stage 2 of the padded network, and what MONAI makes of the unpadded one."""
    mode = "padded, overlap 0.5, Gaussian"
    ours, theirs = memory("stage 2", mode, "region", size), memory("stage 2", mode, "MONAI", size)
    print(f"\nMONAI's SlidingWindowInferer, stage 2, {_times(PADDED)} {mode}")
    print(f"  MiB above one tile's own: ours {ours:.1f}, MONAI {theirs:.1f}, ratio {ours / theirs:.3f}")
    network = CascadedUNet3D(widths=(8, 16, 32, 64), padded=True).eval()
    settings = {"overlap": 0.0, "padding_mode": "constant"}
    mine, its = VotingInferer(PADDED, activation=None, **settings), SlidingWindowInferer(PADDED, **settings)
    start = time.perf_counter()
    labels = mine(volume, network, mask=candidate)
    middle = time.perf_counter()
    others = its(volume, network).argmax(1, keepdim=True).to(torch.uint8)
    seconds = middle - start, time.perf_counter() - middle
    agree = (labels == others)[candidate].float().mean().item()
    print(
        f"  width 8, overlap 0: ours {seconds[0]:.1f} s ({mine.windows} tiles), MONAI {seconds[1]:.1f} s; "
        f"voxels of C2 that agree {agree:.7f}"
    )
    part = volume[..., :200, :150, :140]
    shape = tuple(SlidingWindowInferer(WINDOW, overlap=0.0)(part, StandInCascade(padded=False).stage2).shape[2:])
    print(f"  unpadded network, {_times(part.shape[2:])} voxels in: MONAI gives {_times(shape)} without an error")


def main() -> int:
    """Print the tables; the exit status says whether tiles, seconds and labels are as they should be (not memory)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small volume, for a look")
    parser.add_argument("--share", type=float, default=0.1, help="share of the tiles that is timed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(measure_memory(*json.loads(options.child)))
        return 0
    size = (128, 128, 150) if options.quick else (512, 512, 600)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {_times(size)} voxels")
    volume = torso(tuple(n // 2 for n in size))
    inferer = cascade(downsampling=1)
    body, _, candidate = inferer.localise(volume, StandInCascade(padded=False))
    print(f"C1 {inferer.report['c1_share']:.1%}, C2 {inferer.report['c2_share']:.1%} of the volume")
    regions = {"c1": body[0, 0], "c2": candidate[0, 0]}
    held = tile_table(regions) >= 2
    print("\nwhole inferer on the whole volume, stand-in for the network, one prediction", flush=True)
    held = pipeline(size) and held
    volume = HounsfieldWindow((-2000, 3000), (-1, 1))(volume)
    tiles, seconds, same = seconds_table(volume, regions, options.share)
    held = held and same and seconds >= 0.9 * tiles
    memory_table(size)
    beside_monai(volume, candidate, size)
    return 0 if held else 1


def _times(size: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in size)


if __name__ == "__main__":
    sys.exit(main())
