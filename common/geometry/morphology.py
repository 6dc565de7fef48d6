"""Dilation and erosion of binary masks by a cube or a ball, on any device, without a copy to the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from ..checks import InputError, problem

__all__ = ["dilate", "erode"]

# voxels worked on at once: on the CPU a block and its intermediates stay in the cache; a GPU wants few launches
_BLOCK_CPU, _BLOCK_GPU = 2**19, 2**28

_SHAPES = ("cube", "ball")


def dilate(mask: torch.Tensor, radius: int, shape: str = "cube", spatial_dims: int = 3) -> torch.Tensor:
    """Add all voxels within `radius` voxels of the mask; outside the volume there is nothing (roth2017hierarchical).

    Args:
        mask: ``... D H W``, non-zero = inside; leading items (batch, channel) are dilated by themselves.
        radius: voxels along every axis, 0 for a copy.
        shape: "cube": the largest of the distances along the axes counts, as after `radius` rounds with a cube of
            3x3x3; "ball": the Euclidean distance does.
        spatial_dims: 3, or 2 for ``... H W``.

    Returns:
        bool mask of the same shape and device; of a MetaTensor a MetaTensor.

    Raises:
        InputError: for a radius that is negative or not whole, an unknown shape, or too few axes.

    Reading: the paper gives a "radius r" of the dilation without its shape; the released code uses the cube.

    >>> dilate(torch.tensor([[0, 0, 0, 1, 0]]), 1, spatial_dims=2).int().tolist()
    [[0, 0, 1, 1, 1]]
    """
    return _morph(mask, radius, shape, spatial_dims, torch.bitwise_or)


def erode(mask: torch.Tensor, radius: int, shape: str = "cube", spatial_dims: int = 3) -> torch.Tensor:
    """Take away all voxels within `radius` voxels of what is not in the mask (roth2017hierarchical).

    What lies outside the volume counts as inside, so a body that is cut by the border of the volume loses nothing
    there, and eroding and then dilating gives it back up to the border.

    Args:
        mask: ``... D H W``, non-zero = inside; leading items (batch, channel) are eroded by themselves.
        radius: voxels along every axis, 0 for a copy.
        shape: "cube" or "ball", see `dilate`.
        spatial_dims: 3, or 2 for ``... H W``.

    Returns:
        bool mask of the same shape and device; of a MetaTensor a MetaTensor.

    Raises:
        InputError: for a radius that is negative or not whole, an unknown shape, or too few axes.

    Deviation: the released code erodes from the border of the volume as well.

    >>> erode(torch.tensor([[1, 1, 1, 1, 0]]), 1, spatial_dims=2).int().tolist()
    [[1, 1, 1, 0, 0]]
    """
    return _morph(mask, radius, shape, spatial_dims, torch.bitwise_and)


def _morph(mask: torch.Tensor, radius: int, shape: str, spatial_dims: int, combine: Callable) -> torch.Tensor:
    """Combine every voxel with its neighbours inside the volume, by OR or by AND."""
    _check(mask, radius, shape, spatial_dims)
    mask = mask.detach()
    result = (mask.clone() if mask.dtype == torch.bool else mask != 0).contiguous()
    plain = result.as_subclass(torch.Tensor)
    if radius == 0 or plain.numel() == 0:
        return result
    if shape == "cube":
        for axis in range(plain.ndim - spatial_dims, plain.ndim):
            _spread(plain, axis, radius, combine)
    else:
        volumes = plain.view(-1, *((1,) * (3 - spatial_dims)), *plain.shape[plain.ndim - spatial_dims :])
        for volume in volumes:
            volume.copy_(_ball(volume, radius, combine))
    return result


def _check(mask: torch.Tensor, radius: int, shape: str, spatial_dims: int) -> None:
    if shape not in _SHAPES:
        raise InputError(problem(f"shape {shape!r}", "a mask is changed by a cube or a ball", "pass 'cube' or 'ball'"))
    if radius != int(radius) or radius < 0:
        raise InputError(
            problem(f"radius {radius}", "it counts whole voxels, 0 or more", "pass a number such as 3, without a unit")
        )
    if spatial_dims not in (2, 3) or mask.ndim < spatial_dims:
        raise InputError(
            problem(
                f"a mask of {tuple(mask.shape)} with spatial_dims={spatial_dims}",
                "a mask has 2 or 3 spatial axes, which come last",
                "pass ... D H W, or ... H W with spatial_dims=2",
            )
        )


def _block(mask: torch.Tensor) -> int:
    return _BLOCK_CPU if mask.device.type == "cpu" else _BLOCK_GPU


def _spread(mask: torch.Tensor, axis: int, radius: int, combine: Callable) -> None:
    """Combine, in place, every voxel of a contiguous mask with those up to `radius` before and behind it on one axis.

    Block by block, each with room for the window on both sides of the axis, filled with what changes nothing. Then a
    window that begins at a voxel grows by doubling: of width w at x and at x + w it makes one of width 2 w at x. A step
    along the axis is one fixed step through memory, so each of these is one pass over a run of memory; what it mixes
    in from the next line stays in the room behind a line.
    """
    length = mask.shape[axis]
    radius = min(int(radius), length - 1)
    if radius == 0:
        return
    nothing = combine is torch.bitwise_and
    for lines in _lines(mask, axis):
        before, _, after = lines.shape
        room = lines.new_full((before, length + 2 * radius, after), nothing)
        room[:, radius : radius + length] = lines
        window, width = room.view(-1), 1
        while width < 2 * radius + 1:
            step = min(width, 2 * radius + 1 - width)
            window = combine(window[: window.numel() - step * after], window[step * after :])
            width += step
        lines.copy_(window.as_strided(lines.shape, room.stride()))


def _lines(mask: torch.Tensor, axis: int) -> Iterator[torch.Tensor]:
    """Views ``before axis after`` of a contiguous mask that together cover it, each of about one block."""
    length = mask.shape[axis]
    lines = mask.view(mask.shape[:axis].numel(), length, mask.shape[axis + 1 :].numel())
    across = max(1, _block(mask) // length)
    for part in lines.split(max(1, across // lines.shape[2])):
        yield from part.split(across, dim=2)


def _ball(volume: torch.Tensor, radius: int, combine: Callable) -> torch.Tensor:
    """Combine every voxel of ``D H W`` with those at a distance of at most `radius`, a few planes at a time.

    A ball is a disc of runs along the last axis. Runs of equal length are one mask, grown from that of the next
    shorter ones, and joined once for each place that they have in the disc.
    """
    radius = int(radius)
    depth, height, _ = volume.shape
    runs: dict[int, list[tuple[int, int]]] = {}
    reach = range(-radius, radius + 1)
    for dz, dy in ((dz, dy) for dz in reach for dy in reach if dz * dz + dy * dy <= radius * radius):
        if abs(dz) < depth and abs(dy) < height:
            runs.setdefault(math.isqrt(radius * radius - dz * dz - dy * dy), []).append((dz, dy))
    result = volume.clone()
    planes = max(1, _block(volume) // volume[0].numel(), radius)
    for first in range(0, depth, planes):
        last = min(first + planes, depth)
        low = max(0, first - radius)
        run, length = volume[low : last + radius].clone(), 0
        for longer in sorted(runs):
            _spread(run, 2, longer - length, combine)
            length = longer
            for dz, dy in runs[longer]:
                start, stop = max(first, -dz), min(last, depth - dz)
                if start < stop:
                    target = result[start:stop, max(0, -dy) : height - max(0, dy)]
                    source = run[start + dz - low : stop + dz - low, max(0, dy) : height + min(0, dy)]
                    combine(target, source, out=target)
    return result
