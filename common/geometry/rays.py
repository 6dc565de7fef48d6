"""Which voxels a ray meets, and which detector bins a voxel: rows to gather, and the weights to sum them with.

Written for tables whose rows are whole lines along the rotation axis: row a C + c holds the voxels (a, c). A bag is the
rows and the weights of one sum, as `torch.nn.functional.embedding_bag` takes them. The convention of coordinates stands
in projection.py. Positions are of double precision. How large a bag is follows from plain numbers alone, never from
the contents of a tensor, so that nothing waits for a device and everything can be scripted, traced and exported.
"""

from __future__ import annotations

import math

import torch

__all__ = ["cos_sin", "ray_groups", "ray_samples", "ray_voxels", "voxel_bins"]


def cos_sin(angle: float) -> tuple[float, float]:
    """Cosine and sine of degrees, exact at multiples of 90.

    >>> cos_sin(90.0)
    (0.0, 1.0)
    """
    quarters = int(round(angle / 90.0))
    if angle == 90.0 * quarters:
        values = [1.0, 0.0, -1.0, 0.0]
        return values[quarters % 4], values[(quarters + 3) % 4]
    return math.cos(math.radians(angle)), math.sin(math.radians(angle))


def ray_groups(width: int, at_once: int, device: torch.device) -> tuple[list[tuple[torch.Tensor, float]], torch.Tensor]:
    """Rays in groups of similar length, which falls with the distance from the centre.

    A group is some rays of the first half of the detector, from its border inwards, and their opposites: a ray at -s is
    the ray at s turned by 180 degrees, so that its voxels follow from those of the other and its weights are the same.

    Args:
        width: bins of the detector.
        at_once: bins of a group, opposites included.
        device: of all tensors.

    Returns:
        for every group its coordinates about the centre, shape (G,) float64, and the smallest distance among them;
        and for every bin, where in the results of all groups, 2 G each and one after the other, it stands, shape (W,).
    """
    half = torch.arange((width + 1) // 2, device=device)
    s = half.to(torch.float64) - (width - 1) / 2
    step = max(at_once // 2, 1)
    groups: list[tuple[torch.Tensor, float]] = []
    bins: list[torch.Tensor] = []
    for start in range(0, (width + 1) // 2, step):
        stop = min(start + step, (width + 1) // 2)
        groups.append((s[start:stop], (width - 1) / 2 - (stop - 1)))
        bins += [half[start:stop], width - 1 - half[start:stop]]
    return groups, torch.cat(bins)[:width].argsort()  # a central bin is its own opposite and stands there twice


def _run(
    s: torch.Tensor, innermost: float, limits: list[tuple[float, float, float]], offset: float
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """First and last whole n with abs(p s + q (n + offset)) <= h for every limit (p, q, h), and the longest run.

    The run at `innermost`, the smallest abs(s), is the longest, since all limits are symmetric about the origin.
    """
    slack = 1e-6  # a sample this little outside the outermost centres is rounding
    first, last = torch.full_like(s, -1e9), torch.full_like(s, 1e9)
    low, high = -1e9, 1e9
    for p, q, h in limits:
        if q == 0.0:
            last = last.masked_fill((s * p).abs() > h + slack, -2e9)
            high = high if abs(innermost * p) <= h + slack else -2e9
        else:
            centre, half = -p / q, h / abs(q)
            first, last = torch.maximum(first, s * centre - half), torch.minimum(last, s * centre + half)
            low, high = max(low, innermost * centre - half), min(high, innermost * centre + half)
    first, last = (first - (offset + slack)).ceil(), (last - (offset - slack)).floor()
    return first, last, max(int(math.floor(high - low + 4 * slack)), 0) + 1


def ray_samples(
    s: torch.Tensor, innermost: float, angle: float, size_a: int, size_c: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bilinear samples at unit steps along rays, within the hull of the voxel centres.

    The samples of a ray are one run. Shorter runs repeat their last sample up to the length L of the longest.

    Args:
        s: detector coordinates of a group of `ray_groups`, shape (G,).
        innermost: of that group.
        angle: degrees.
        size_a: voxels of axis a.
        size_c: voxels of axis c.
        dtype: of the weights.

    Returns:
        rows (2 G, L, 4) int32, their weights (2 G, L, 4), and which of the 2 G rays have a sample, (2 G, 1).
    """
    cos, sin = cos_sin(angle)
    half_a, half_c = (size_a - 1) / 2, (size_c - 1) / 2
    offset = 0.5 * ((size_a - 1) % 2)
    first, last, longest = _run(s, innermost, [(sin, cos, half_a), (cos, -sin, half_c)], offset)
    steps = torch.arange(longest, device=s.device, dtype=torch.float64) + offset
    t = torch.minimum(first[:, None] + steps, torch.maximum(first, last)[:, None] + offset)
    a = (t * cos).add_((s * sin + half_a)[:, None]).clamp_(0, size_a - 1)
    c = (t * -sin).add_((s * cos + half_c)[:, None]).clamp_(0, size_c - 1)
    a0, c0 = a.to(torch.int32).clamp_(max=max(size_a - 2, 0)), c.to(torch.int32).clamp_(max=max(size_c - 2, 0))
    share_a, share_c = (a - a0).to(dtype), (c - c0).to(dtype)
    weights_a, weights_c = torch.stack([1 - share_a, share_a], -1), torch.stack([1 - share_c, share_c], -1)
    weights = (weights_a[..., None] * weights_c[..., None, :]).flatten(2)
    next_a, next_c = size_c if size_a > 1 else 0, 1 if size_c > 1 else 0
    row = a0.mul_(size_c).add_(c0)
    rows = torch.stack([row, row + next_c, row + next_a, row + (next_a + next_c)], -1)
    rows = torch.cat([rows, size_a * size_c - 1 - rows])
    return rows, torch.cat([weights, weights]), torch.cat([last >= first, last >= first])[:, None]


def ray_voxels(
    s: torch.Tensor, innermost: float, angle: float, size_a: int, size_c: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """All voxels nearer than one bin to rays, with their linear share in the ray's bin: the transpose of `voxel_bins`.

    Along the axis that the ray follows more closely, every step has at most three such voxels.

    Args:
        s: as for `ray_samples`, and so all others.

    Returns:
        rows (2 G, 3 L) int32 and their weights (2 G, 3 L), 0 where a ray has fewer voxels.
    """
    cos, sin = cos_sin(angle)
    if abs(cos) >= abs(sin):
        size, beside, along, across, stride, stride_beside = size_a, size_c, sin, cos, size_c, 1
    else:
        size, beside, along, across, stride, stride_beside = size_c, size_a, cos, sin, 1, size_c
    half, half_beside = (size - 1) / 2, (beside - 1) / 2
    limits = [(0.0, 1.0, half), (1.0, -along, half_beside * abs(across) + 1)]
    first, _, longest = _run(s, innermost, limits, -half)
    step = first[:, None].clamp(0, size) + torch.arange(longest, device=s.device, dtype=torch.float64)
    beyond = (step - half) * along - s[:, None]
    lowest = (beyond / -across + (half_beside - 1 / abs(across))).ceil_().clamp_(-3, beside)
    distance = (beyond + (lowest - half_beside) * across).to(dtype)
    three = torch.arange(3, device=s.device, dtype=torch.int32)
    weights = (distance[..., None] + three.to(dtype) * across).abs_().neg_().add_(1).clamp_(min=0)
    others = lowest.to(torch.int32)[..., None] + three
    outside = (others < 0) | (others >= beside) | (step >= size)[..., None]
    rows = others.clamp_(0, beside - 1).mul_(stride_beside)
    rows += step.to(torch.int32).clamp_(max=size - 1).mul_(stride)[..., None]
    rows, weights = rows.flatten(1), weights.masked_fill_(outside, 0).flatten(1)
    return torch.cat([rows, size_a * size_c - 1 - rows]), torch.cat([weights, weights])


def _doubles(values: list[float]) -> torch.Tensor:
    """Numbers as float64; a script makes tensors of lists in single precision, but fills exactly."""
    if torch.jit.is_scripting():
        return torch.stack([torch.full([1], value, dtype=torch.float64) for value in values]).flatten()
    return torch.tensor(values, dtype=torch.float64)


def voxel_bins(
    start: int, stop: int, width: int, angles: list[float], size_a: int, size_c: int, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two bins that each voxel falls between, for every direction, with their linear shares.

    Args:
        start: first row a of the plane.
        stop: one beyond the last.
        width: W bins of the detector; a direction has W + 3 rows, one of zeros before them and two after.
        angles: degrees, D directions.
        size_a: voxels of axis a.
        size_c: voxels of axis c.
        like: its device and floating type are those of the weights.

    Returns:
        rows ((stop - start) C, 2 D) int32 and their weights, of the same shape.
    """
    cos = _doubles([cos_sin(angle)[0] for angle in angles]).to(like.device)
    sin = _doubles([cos_sin(angle)[1] for angle in angles]).to(like.device)
    a = torch.arange(start, stop, device=like.device, dtype=torch.float64) - (size_a - 1) / 2
    c = torch.arange(size_c, device=like.device, dtype=torch.float64) - (size_c - 1) / 2
    across = c[:, None] * cos + (width - 1) / 2
    s = ((a[:, None] * sin)[:, None] + across).clamp_(-1, width)
    low = s.floor()
    share = (s - low).to(like.dtype)
    rows = low.to(torch.int32)
    rows += torch.arange(len(angles), device=like.device, dtype=torch.int32) * (width + 3) + 1
    bags = [(stop - start) * size_c, 2 * len(angles)]
    return torch.stack([rows, rows + 1], -1).reshape(bags), torch.stack([1 - share, share], -1).reshape(bags)
