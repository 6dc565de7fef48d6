"""Body mask, components and dilation of a whole CT, against the same steps by scipy.ndimage and scikit-image.

    python benchmarks/body_mask.py             # 512 x 512 x 600, int16, three rounds
    python benchmarks/body_mask.py --quick     # a volume of a 27th

The volume: a torso with lungs and bowel gas, noise, a table below it and bright specks in the air, along X Y Z. Both
borders along Z cut the torso. There the reference, too, erodes nothing (`border_value=1`), so that both give the same
mask; with SciPy's own default it would lose, and then regain, what lies next to these borders.

Time: both sides in turn in one process, the medians of all rounds. Memory: each side in a process of its own, the
highest resident set while it runs, less the one before, in which the volume already is. Ends with status 1 where
results differ, or where body mask or components are less than four times as fast.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from skimage import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.geometry.body import body_mask  # noqa: E402
from common.geometry.components import connected_components, keep_largest  # noqa: E402
from common.geometry.morphology import dilate  # noqa: E402

THRESHOLD, OPENING, RADIUS = -500.0, 2, 3
GOALS = {"body mask": 4.0, "largest component": 4.0, "all components, boxes": 4.0}  # seconds, theirs / ours
CUBE = np.ones((3, 3, 3), dtype=bool)
BALL = np.square(np.indices((2 * RADIUS + 1,) * 3) - RADIUS).sum(0) <= RADIUS**2


def torso(quick: bool) -> torch.Tensor:
    """A CT of a torso on its table in HU, X Y Z, int16."""
    size = (171, 171, 200) if quick else (512, 512, 600)
    x, y = torch.linspace(-1, 1, size[0])[:, None], torch.linspace(-1, 1, size[1])
    plain = torch.where((x / 0.8) ** 2 + (y / 0.55) ** 2 < 1, 40, -1000).to(torch.int16)
    lungs = ((x.abs() - 0.38) / 0.25) ** 2 + (y / 0.35) ** 2 < 1
    gas = ((x - 0.2) / 0.08) ** 2 + ((y + 0.2) / 0.1) ** 2 < 1
    table = (x.abs() < 0.7) & ((y - 0.66).abs() < 0.02)
    chest, belly = plain.clone(), plain.clone()
    chest[lungs], belly[gas] = -850, -900
    generator = torch.Generator().manual_seed(0)
    volume = torch.empty(size, dtype=torch.int16)
    for place in range(size[0]):
        lines = torch.empty(size[1:], dtype=torch.int16)
        half = size[2] // 2
        lines[:, :half], lines[:, half:] = belly[place, :, None], chest[place, :, None]
        lines[table[place]] = 150
        lines[torch.rand(lines.shape, generator=generator) < 1e-4] = 0
        volume[place] = lines + (25 * torch.randn(lines.shape, generator=generator)).to(torch.int16)
    return volume


def reference_body(volume: torch.Tensor) -> torch.Tensor:
    """The obvious steps."""
    mask = ndimage.binary_erosion(volume.numpy() >= THRESHOLD, CUBE, iterations=OPENING, border_value=1)
    mask = ndimage.binary_dilation(reference_largest(torch.from_numpy(mask)).numpy(), CUBE, iterations=OPENING)
    for plane in range(mask.shape[2]):
        mask[..., plane] = ndimage.binary_fill_holes(mask[..., plane])
    return torch.from_numpy(mask)


def reference_largest(mask: torch.Tensor) -> torch.Tensor:
    """The largest component by scikit-image."""
    labels = measure.label(mask.numpy(), connectivity=3)
    return torch.from_numpy(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def reference_components(mask: torch.Tensor) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Voxels and boxes of all components, by scikit-image's numbers and SciPy's boxes."""
    labels = measure.label(mask.numpy(), connectivity=3)
    sizes = np.bincount(labels.ravel())
    return sorted(
        (int(sizes[index]), tuple(part.start for part in box), tuple(part.stop for part in box))
        for index, box in enumerate(ndimage.find_objects(labels), start=1)
    )


def our_components(mask: torch.Tensor) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """The same of this package."""
    return sorted((part.voxels, part.box.start, part.box.stop) for part in connected_components(mask)[1])


def tasks(quick: bool) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name, ours and the reference."""
    volume = torso(quick)
    mask = volume >= int(THRESHOLD)
    # a region of about a tenth of the grid of the network, half that of the file
    organs = (volume[::2, ::2, ::2] > 60).contiguous()
    near = torch.zeros_like(organs)
    near[tuple(slice(size // 4, -size // 4) for size in near.shape)] = True
    organs &= near

    def by_scipy(structure: np.ndarray, rounds: int) -> torch.Tensor:
        return torch.from_numpy(ndimage.binary_dilation(organs.numpy(), structure, iterations=rounds))

    return {
        "body mask": (lambda: body_mask(volume, THRESHOLD, OPENING), lambda: reference_body(volume)),
        "largest component": (lambda: keep_largest(mask), lambda: reference_largest(mask)),
        "all components, boxes": (lambda: our_components(mask), lambda: reference_components(mask)),
        "dilation, cube of 3": (lambda: dilate(organs, RADIUS), lambda: by_scipy(CUBE, RADIUS)),
        "dilation, ball of 3": (lambda: dilate(organs, RADIUS, "ball"), lambda: by_scipy(BALL, 1)),
    }


def peak() -> int:
    """Highest resident set of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux's ru_maxrss would begin with the parent's size; this line is the process's own
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Begin the highest resident set anew (Linux), for making the volume takes more than holding it."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def memory(name: str, side: int, quick: bool) -> int:
    """Bytes above what was there before, in a fresh process."""
    command = [sys.executable, __file__, "--child", json.dumps([name, side, quick])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def same(ours: object, theirs: object) -> bool:
    """Whether two results are equal."""
    return torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def main() -> int:
    """Print the table; the exit status says whether the target holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small volume, for a look in a few seconds")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side for the times")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the rest uses one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        name, side, quick = json.loads(options.child)
        run = tasks(quick)[name][side]
        forget_peak()
        before = peak()
        run()
        print(peak() - before)
        return 0
    both = tasks(options.quick)
    print(f"torch {torch.__version__}, {options.threads} thread(s), median of {options.rounds} rounds")
    print(f"{'':24}{'ours s':>9}{'theirs s':>10}{'theirs / ours':>15}{'(range)':>14}{'MiB':>12}{'ratio':>7}  same")
    held = True
    for name, sides in both.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        equal = True
        for _ in range(options.rounds):
            results = []
            for run, times in zip(sides, seconds, strict=True):
                start = time.perf_counter()
                results.append(run())
                times.append(time.perf_counter() - start)
            equal = equal and same(*results)
        del results
        ratios = sorted(theirs / ours for ours, theirs in zip(*seconds, strict=True))
        ratio, spread = statistics.median(ratios), f"{ratios[0]:.1f}-{ratios[-1]:.1f}"
        mine, theirs = (memory(name, side, options.quick) / 2**20 for side in (0, 1))
        held = held and equal and (name not in GOALS or ratio >= GOALS[name])
        line = f"{name:24}{statistics.median(seconds[0]):9.2f}{statistics.median(seconds[1]):10.2f}{ratio:15.1f}"
        print(f"{line}{spread:>14}{f'{mine:.0f}/{theirs:.0f}':>12}{mine / max(theirs, 1):7.2f}  {equal}", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
