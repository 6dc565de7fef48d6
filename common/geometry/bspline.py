"""Uniform cubic B-splines on a grid of voxels: a coarse grid of control points becomes a dense smooth field."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..checks import InputError, problem

__all__ = ["bspline_basis", "control_positions", "control_shape", "evaluate_bspline"]


def control_shape(size: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Number of control points per axis that a field of `size` voxels needs.

    One control point lies every `spacing` voxels, one before the first voxel and two beyond the last full cell, since
    every voxel is a sum over its four neighbours.

    Args:
        size: voxels per axis.
        spacing: voxels between control points, per axis.

    Raises:
        InputError: for a size below 1 or a spacing that is not positive.

    >>> control_shape((132, 132, 116), (32, 32, 32))
    (8, 8, 7)
    """
    for voxels, step in zip(size, spacing, strict=True):
        if voxels < 1 or not step > 0:
            raise InputError(
                problem(
                    f"a B-spline over {voxels} voxels with spacing {step}",
                    "both must be positive",
                    "give a size of at least 1 and a spacing above 0",
                )
            )
    return tuple(int((voxels - 1) // step) + 4 for voxels, step in zip(size, spacing, strict=True))


def control_positions(count: int, spacing: float) -> torch.Tensor:
    """Where the `count` control points of one axis lie, in voxels: -spacing, 0, spacing, ... (float64).

    Control points that hold their own position evaluate to the voxel's position, exactly: a linear map of the
    voxels can therefore be added to the control points instead of to the dense field.
    """
    return (torch.arange(count, dtype=torch.float64) - 1.0) * float(spacing)


def bspline_basis(size: int, spacing: float) -> torch.Tensor:
    """Matrix that turns the control points of one axis into its voxels.

    Args:
        size: voxels of the axis.
        spacing: voxels between control points.

    Returns:
        float64 matrix of shape (size, control points); each row has at most four entries, and they sum to one.
    """
    (count,) = control_shape((size,), (spacing,))
    position = torch.arange(size, dtype=torch.float64) / float(spacing)
    cell = position.floor()
    t = position - cell
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=1) / 6.0
    # rounding may put the last voxel into the next cell: with t = 0 its fourth weight is zero, so it may be clamped
    columns = (cell.long()[:, None] + torch.arange(4)).clamp_(max=count - 1)
    return torch.zeros(size, count, dtype=torch.float64).scatter_add_(1, columns, weights)


def evaluate_bspline(controls: torch.Tensor, bases: Sequence[torch.Tensor]) -> torch.Tensor:
    """Evaluate a three-dimensional tensor-product B-spline, axis after axis (three small matrix products).

    Args:
        controls: control points, shape (C, n0, n1, n2).
        bases: one matrix per axis as `bspline_basis` gives it (or some of its rows), shapes (S0, n0), (S1, n1),
            (S2, n2); brought to the type and device of `controls`.

    Returns:
        the dense field, shape (C, S0, S1, S2), type and device of `controls`.

    >>> bases = [bspline_basis(5, 2.0)] * 3
    >>> bool(torch.allclose(evaluate_bspline(torch.ones(1, 6, 6, 6), bases), torch.ones(1, 5, 5, 5)))
    True
    """
    first, second, third = (basis.to(controls) for basis in bases)
    field = controls @ third.T  # C n0 n1 S2
    field = second @ field  # C n0 S1 S2
    # the last product makes the large array, so it runs on rows as long as a plane
    return (first @ field.flatten(2)).unflatten(2, field.shape[2:])
