"""Maxima and sums along rays, and sums over directions, of tables whose rows are lines along the rotation axis.

A row of weights that is the same for a whole line of voxels turns the work into the gathering of long rows, which every
device does at the speed of its memory. A processor's caches hold the pieces that are worked on at a time.
"""

from __future__ import annotations

import torch
from torch.nn.functional import embedding_bag, pad

from .rays import ray_groups, ray_samples, ray_voxels, voxel_bins

__all__ = [
    "SharedSum",
    "SpreadSum",
    "highest_samples",
    "on_accelerator",
    "recorded",
    "shared_sum",
    "spread_sum",
]


def recorded() -> bool:
    """Whether the operations are being recorded, which a gradient written by hand prevents."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def on_accelerator(device: torch.device) -> bool:
    """Whether work goes to the device in one piece, or to a processor in pieces that its caches hold."""
    return device.type != "cpu"


def highest_samples(table: torch.Tensor, size_a: int, size_c: int, width: int, angles: list[float]) -> torch.Tensor:
    """Maximum of bilinear samples along every ray; table (A C, N), result (D, W, N).

    On a processor, pieces of 64 columns serve six directions each while they are in a cache. Whole multiples of 32
    columns let the maximum be taken in vectors.
    """
    together, columns = on_accelerator(table.device), table.shape[1]
    groups, order = ray_groups(width, width + 1 if together else 56, table.device)
    padded = table if together else pad(table, [0, -columns % 32])
    pieces = [piece.contiguous() for piece in padded.split(columns if together else 64, 1)]
    images: list[torch.Tensor] = []
    for start in range(0, len(angles), 6):
        bags: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for angle in angles[start : start + 6]:
            bags += [ray_samples(s, innermost, angle, size_a, size_c, table.dtype) for s, innermost in groups]
        parts: list[torch.Tensor] = []
        for piece in pieces:
            found = torch.cat([_highest(piece, rows, weights, met) for rows, weights, met in bags])
            parts.append(found.reshape(-1, width + width % 2, piece.shape[1]))
        images.append(torch.cat(parts, 2)[:, order, :columns])
    return torch.cat(images)


def _highest(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, met: torch.Tensor) -> torch.Tensor:
    """Maximum over the samples of every ray, 0 without any; rows and weights (G, L, 4), met (G, 1), result (G, N)."""
    samples = embedding_bag(rows.flatten(0, 1), table, mode="sum", per_sample_weights=weights.flatten(0, 1))
    samples = samples.reshape(rows.shape[0], rows.shape[1], table.shape[1])
    if samples.requires_grad and not torch.jit.is_tracing():
        highest = samples.max(1)[0]  # keeps for its gradient where the maxima were, not the samples
    else:
        highest = samples.amax(1)
    return highest.masked_fill(~met, 0)


def shared_sum(table: torch.Tensor, size_a: int, size_c: int, width: int, angles: list[float]) -> torch.Tensor:
    """Sum of the voxels' shares in every bin; table (A C, N), result (D, W, N)."""
    groups, order = ray_groups(width, width + 1 if on_accelerator(table.device) else 56, table.device)
    images: list[torch.Tensor] = []
    for angle in angles:
        parts: list[torch.Tensor] = []
        for s, innermost in groups:
            rows, weights = ray_voxels(s, innermost, angle, size_a, size_c, table.dtype)
            parts.append(embedding_bag(rows, table, mode="sum", per_sample_weights=weights))
        images.append(torch.cat(parts)[order])
    return torch.stack(images)


def spread_sum(images: torch.Tensor, size_a: int, size_c: int, angles: list[float]) -> torch.Tensor:
    """Sum over directions of the detector's value at every voxel; images (D, W, N), result (A C, N)."""
    directions, width, columns = images.shape
    table = pad(images, [0, 0, 1, 2]).reshape(directions * (width + 3), columns)
    at_once = max((1 << 23 if on_accelerator(images.device) else 1 << 19) // (2 * directions * size_c), 1)
    planes: list[torch.Tensor] = []
    for start in range(0, size_a, at_once):
        rows, weights = voxel_bins(start, min(start + at_once, size_a), width, angles, size_a, size_c, table)
        planes.append(embedding_bag(rows, table, mode="sum", per_sample_weights=weights))
    return torch.cat(planes)


class SharedSum(torch.autograd.Function):
    """`shared_sum`, whose gradient is `spread_sum`: nothing is kept but the angles, and no bag is sorted."""

    @staticmethod
    def forward(ctx, table: torch.Tensor, size_a: int, size_c: int, width: int, angles: list[float]) -> torch.Tensor:
        ctx.geometry = (size_a, size_c, angles)
        return shared_sum(table, size_a, size_c, width, angles)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return SpreadSum.apply(gradient.contiguous(), *ctx.geometry), None, None, None, None


class SpreadSum(torch.autograd.Function):
    """`spread_sum`, whose gradient is `shared_sum`."""

    @staticmethod
    def forward(ctx, images: torch.Tensor, size_a: int, size_c: int, angles: list[float]) -> torch.Tensor:
        ctx.geometry = (size_a, size_c, images.shape[1], angles)
        return spread_sum(images, size_a, size_c, angles)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return SharedSum.apply(gradient.contiguous(), *ctx.geometry), None, None, None
