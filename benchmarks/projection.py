"""Projections from 60 directions and their back-projection, against loops of scipy.ndimage.rotate and of grid_sample.

    python benchmarks/projection.py                 # 96 x 288 x 224, float32, 60 directions, three rounds
    python benchmarks/projection.py --quick         # a volume of a 27th
    python benchmarks/projection.py --device cuda   # grid_sample on the GPU too, and time against bytes

Maxima: `rotate(order=1, reshape=False)` and then the maximum, plane by plane as SciPy does it, keeps 96 samples a ray
and so cuts the ends off long ones; grid_sample is run so too ("96 a ray"), and with as many as the longest ray needs
("whole rays", what `project` gives). Back-projection: an image repeated along axis a, turned back and added; by
grid_sample each voxel is read from the image itself, which is less work than to turn a volume.

All sides in turn in one process, once before the clock starts; medians of all rounds, elapsed and, on a processor,
seconds of all its cores together. Values are compared with SciPy in a margin wide enough for whole rays, and with
grid_sample on whole rays. Ends with status 1 where they differ by more than 1e-3 or a ratio of elapsed seconds misses
its goal; on a GPU also where the time is more than three times that of the bytes needed at the bandwidth of a copy.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while others work slow a shared machine

import torch
import torch.nn.functional as F
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.geometry.projection import back_project, direction_angles, project  # noqa: E402

DIRECTIONS = 60
GOALS = {"scipy": 10.0, "grid_sample": 3.0}  # theirs / ours, by the first word of their names
TOLERANCE = 1e-3


def vessels(size: tuple[int, int, int], device: str) -> torch.Tensor:
    """Smooth values that are 0 at the border, A B C: beyond it everybody then sees the same."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand([1, 1] + [max(n // 6, 4) for n in size], generator=generator)
    volume = F.interpolate(coarse, size, mode="trilinear")[0, 0]
    for axis, n in enumerate(size):
        line = (torch.minimum(torch.arange(n), torch.arange(n).flip(0)) / 4).clamp(max=1)
        volume = volume * line.reshape([-1 if other == axis else 1 for other in range(3)])
    return volume.to(device)


def turned_grid(angle: float, samples: int, width: int, size_a: int, size_c: int, device: str) -> torch.Tensor:
    """Places of `samples` samples on every ray, as grid_sample wants them: (1, samples, width, 2)."""
    turn = math.radians(angle)
    t = torch.arange(samples, device=device)[:, None] - (samples - 1) / 2
    s = torch.arange(width, device=device) - (width - 1) / 2
    a, c = s * math.sin(turn) + t * math.cos(turn), s * math.cos(turn) - t * math.sin(turn)
    return torch.stack([c * (2 / size_c), a * (2 / size_a)], -1)[None]


def maxima_by_scipy(volume: torch.Tensor, angles: list[float]) -> torch.Tensor:
    """SciPy's loop; D b W."""
    values = volume.numpy()
    turned = (ndimage.rotate(values, angle, axes=(0, 2), reshape=False, order=1) for angle in angles)
    return torch.stack([torch.from_numpy(one.max(0)) for one in turned])


def maxima_by_grid_sample(volume: torch.Tensor, angles: list[float], samples: int) -> torch.Tensor:
    """grid_sample's loop, the lines of the rotation axis as its batch, which is its fastest way; D b W."""
    size_a, length, size_c = volume.shape
    planes = volume.permute(1, 0, 2)[:, None].contiguous()
    images = []
    for angle in angles:
        grid = turned_grid(angle, samples, size_c, size_a, size_c, str(volume.device)).expand(length, -1, -1, -1)
        images.append(F.grid_sample(planes, grid, align_corners=False).amax(2)[:, 0])
    return torch.stack(images)


def sums_by_scipy(images: torch.Tensor, angles: list[float], size_a: int) -> torch.Tensor:
    """Every image repeated along a, turned back and added; A b C."""
    total = 0
    for image, angle in zip(images.numpy(), angles, strict=True):
        repeated = image[None].repeat(size_a, 0)
        total = total + ndimage.rotate(repeated, -angle, axes=(0, 2), reshape=False, order=1)
    return torch.from_numpy(total)


def sums_by_grid_sample(images: torch.Tensor, angles: list[float], size_a: int) -> torch.Tensor:
    """Every voxel read from every image; A b C."""
    width, device = images.shape[2], images.device
    a, c = torch.arange(size_a, device=device) - (size_a - 1) / 2, torch.arange(width, device=device) - (width - 1) / 2
    total = torch.zeros(images.shape[1], 1, size_a, width, device=device)
    for image, angle in zip(images, angles, strict=True):
        turn = math.radians(angle)
        s = c * math.cos(turn) + a[:, None] * math.sin(turn)
        grid = torch.stack([s * (2 / width), torch.zeros_like(s)], -1).expand(len(image), -1, -1, -1)
        total = total + F.grid_sample(image[:, None, None], grid, align_corners=False)
    return total[:, 0].permute(1, 0, 2)


def learn(images: torch.Tensor, angles: list[float], size_a: int) -> torch.Tensor:
    """Forward and backward of a back-projection."""
    images = images[None, :, None].detach().requires_grad_()
    volume = back_project(images, angles, size_a, images.shape[-1])
    volume.backward(torch.ones(volume.shape, device=volume.device))
    return images.grad


def tasks(volume: torch.Tensor, angles: list[float]) -> dict[str, dict[str, Callable[[], torch.Tensor]]]:
    """What is done, ours first, then the others."""
    size_a, _, size_c = volume.shape
    whole = math.ceil(math.hypot(size_a, size_c))
    whole += (whole - size_a) % 2
    batch = volume[None, None]
    images = project(batch, angles)[0, :, 0].contiguous()
    maxima = {
        "project": lambda: project(batch, angles)[0, :, 0],
        f"grid_sample, {size_a} a ray": lambda: maxima_by_grid_sample(volume, angles, size_a),
        "grid_sample, whole rays": lambda: maxima_by_grid_sample(volume, angles, whole),
    }
    sums = {
        "back_project": lambda: back_project(images[None, :, None], angles, size_a, size_c)[0, 0],
        "grid_sample": lambda: sums_by_grid_sample(images, angles, size_a),
    }
    if volume.device.type == "cpu":
        maxima[f"scipy, {size_a} a ray"] = lambda: maxima_by_scipy(volume, angles)
        sums["scipy"] = lambda: sums_by_scipy(images, angles, size_a)
    ours = {
        "sum projections": lambda: project(batch, angles, "sum")[0, :, 0],
        "back-projection, forward and backward": lambda: learn(images, angles, size_a),
        "the same, 12 directions": lambda: learn(images[::5], angles[::5], size_a),
    }
    return {"maxima": maxima, "back-projection": sums} | {name: {"": call} for name, call in ours.items()}


def difference(name: str, volume: torch.Tensor, angles: list[float]) -> float:
    """Largest difference from the references, of a few oblique directions and beside the border."""
    some = angles[1 :: max(len(angles) // 5, 1)]
    size_a, _, size_c = volume.shape
    if name == "maxima":
        ours = project(volume[None, None], some)[0, :, 0]
        margin = (math.ceil(math.hypot(size_a, size_c)) - size_a) // 2 + 1
        others = [maxima_by_grid_sample(volume, some, size_a + 2 * margin)]
        if volume.device.type == "cpu":
            others.append(maxima_by_scipy(F.pad(volume, [0, 0, 0, 0, margin, margin]), some))
        return max((ours - other).abs().max().item() for other in others)
    images = project(volume[None, None], some)[0, :, 0]
    images = images * (torch.arange(size_c, device=volume.device) - (size_c - 1) / 2).abs().lt(size_c / 2 - 4)
    ours, cut = back_project(images[None, :, None], some, size_a, size_c)[0, 0], size_a // 4
    found = (ours - sums_by_grid_sample(images, some, size_a)).abs().max().item()
    if volume.device.type == "cpu":  # what SciPy turns ends where the volume does: compare the middle
        other = sums_by_scipy(images, some, size_a)
        radius = min(size_a, size_c) // 2 - 2
        a, c = torch.arange(size_a) - (size_a - 1) / 2, torch.arange(size_c) - (size_c - 1) / 2
        near = (a[:, None].square() + c.square() < min(radius, 2 * cut) ** 2)[:, None]
        found = max(found, ((ours - other) * near).abs().max().item())
    return found / len(some)


def timed(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds elapsed, and of all cores."""
    if device != "cpu":
        torch.cuda.synchronize()
    start, used = time.perf_counter(), time.process_time()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - used


def bytes_needed(volume: torch.Tensor, directions: int) -> dict[str, int]:
    """Bytes that must move: a direction reads the volume and writes its image; all images make one volume."""
    size_a, length, size_c = volume.shape
    voxels, image = size_a * length * size_c * 4, length * size_c * 4
    return {"maxima": directions * (voxels + image), "back-projection": directions * image + voxels}


def bandwidth(device: str) -> float:
    """Bytes a second of a copy, read and written."""
    source = torch.zeros(2**28, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    spent = [timed(lambda: target.copy_(source), device)[0] for _ in range(5)]
    return 2 * source.numel() * 4 / min(spent)


def table(name: str, calls: dict[str, Callable[[], torch.Tensor]], options: argparse.Namespace) -> tuple[bool, float]:
    """Print the lines of one task; whether all goals hold, and the seconds of ours."""
    spent: dict[str, list[tuple[float, float]]] = {side: [] for side in calls}
    for call in calls.values():
        call()
    for _ in range(options.rounds):
        for side, call in calls.items():
            spent[side].append(timed(call, options.device))
    ours, held = next(iter(calls)), True
    for side, times in spent.items():
        elapsed, cores = (statistics.median(column) for column in zip(*times, strict=True))
        line = f"{name if side == ours else '':38}{side:28}{elapsed:9.3f}{cores:9.3f}"
        if side != ours:
            ratios = sorted(his[0] / mine[0] for his, mine in zip(times, spent[ours], strict=True))
            by_cores = statistics.median(his[1] / mine[1] for his, mine in zip(times, spent[ours], strict=True))
            goal = GOALS[side.split(",")[0]]
            held = held and statistics.median(ratios) >= goal
            spread = f"({ratios[0]:.1f}-{ratios[-1]:.1f})"
            line += f"{statistics.median(ratios):8.1f} {spread:14}{by_cores:8.1f}{goal:6.0f}"
        print(line, flush=True)
    return held, statistics.median(elapsed for elapsed, _ in spent[ours])


def main() -> int:
    """Print the tables; the exit status says whether the goals hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small volume, for a look in a few seconds")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--threads", type=int, default=2, help="of torch; SciPy uses one")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = (32, 96, 74) if options.quick else (96, 288, 224)
    volume, angles = vessels(size, options.device), direction_angles(DIRECTIONS)
    needed = bytes_needed(volume, DIRECTIONS)
    speed = bandwidth(options.device) if options.device != "cpu" else 0.0
    where = f"{options.threads} thread(s)" if options.device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}, {size}, {DIRECTIONS} directions, median of {options.rounds} rounds")
    print(f"{'':66}{'elapsed':>9}{'cores':>9}{'theirs / ours, elapsed':>23}{'cores':>8}{'goal':>6}")
    held = True
    for name, calls in tasks(volume, angles).items():
        kept, seconds = table(name, calls, options)
        held = held and kept
        if name in needed:
            apart = difference(name, volume, angles)
            held = held and apart <= TOLERANCE
            line = f"  largest difference {apart:.1e}; {needed[name] / 1e6:.0f} MB needed"
            line += f": {needed[name] / seconds / 1e9:.1f} GB/s"
            if speed:
                held = held and seconds <= 3 * needed[name] / speed
                line += f", {seconds * speed / needed[name]:.1f} times as long as a copy of them"
            print(line)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
