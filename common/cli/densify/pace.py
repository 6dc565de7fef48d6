"""How long a training and a prediction will take, from one step of each that is tried."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple_rep

from .steps import Line, as_read

__all__ = ["Pace", "minutes_text", "pace_of", "tiles_of"]

_STARTING = 12.0  # seconds that a process takes to import and to read what it works on
_BESIDES = 1.3  # of a step: augmentation, loss, the optimiser
_TRIES = 1


@dataclass(frozen=True)
class Pace:
    """What was tried.

    Args:
        step: seconds of a step of training.
        tile: seconds of a tile of a prediction.
    """

    step: float
    tile: float

    def training(self, steps: int, validations: int = 0, tiles: int = 0) -> float:
        """Seconds of a training, at most."""
        return _STARTING + _BESIDES * steps * self.step + validations * tiles * self.tile

    def prediction(self, tiles: int) -> float:
        """Seconds of a prediction."""
        return _STARTING + tiles * self.tile


def pace_of(line: Line) -> Pace | None:
    """Try the network of a line on random numbers, on its device; None where that fails, as a training would say.

    Args:
        line: of a training.
    """
    parser = ConfigParser()
    parser.read_config([str(path) for path in line.files])
    for name, value in line.overrides().items():
        parser[name] = as_read(value)
    try:
        network, device = parser.get_parsed_content("network"), torch.device(parser.get_parsed_content("device"))
        size = (parser["in_channels"], *parser["patch_size"])
        batch = torch.rand(parser["batch_size"], *size, device=device)

        def step() -> None:
            network(batch).float().mean().backward()

        def tile() -> None:
            with torch.no_grad():
                network(batch[:1])

        return Pace(_seconds(step, device), _seconds(tile, device))
    except (RuntimeError, ValueError, TypeError, KeyError):
        return None
    finally:
        if torch.cuda.is_initialized():  # the lines run in processes of their own, and need the memory
            torch.cuda.empty_cache()


def tiles_of(size: Sequence[int], patch: Sequence[int], overlap: float) -> int:
    """About how many tiles a prediction has."""
    steps = [max(1.0, length * (1 - share)) for length, share in zip(patch, ensure_tuple_rep(overlap, 3), strict=True)]
    pairs = zip(size, patch, steps, strict=True)
    return math.prod(1 + max(0, math.ceil((voxels - length) / step)) for voxels, length, step in pairs)


def minutes_text(seconds: float) -> str:
    """A duration as a reader wants it.

    >>> minutes_text(40), minutes_text(400), minutes_text(9000)
    ('40 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """The shortest of the tries after one that warms up."""
    times = []
    for _ in range(1 + _TRIES):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])
