"""Classes of a whole volume from some annotated planes: signed distances on the planes, interpolated between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.utils import optional_import

from ..checks import InputError, problem
from .labels import check_labels, labelled_slices

ndimage, _ = optional_import("scipy.ndimage")

__all__ = ["interpolate_slices", "signed_distances"]

# the distance from a plane, in the smallest step, that stands for 0
_NEAREST = 1e-4


def signed_distances(
    plane: np.ndarray, num_classes: int, ignore_index: int, spacing: Sequence[float], absent: float
) -> np.ndarray:
    """For each class the distance to its outline in one annotated plane, positive inside.

    raya1990interpolation: the distance to the nearest point of the outline, with a sign. The outline runs between
    voxels, half way from centre to centre. For an unlabelled voxel of a plane that is labelled in part, the distance to
    the nearest voxel of another class less that to the nearest voxel of the class is taken: the zero lies half way.

    Args:
        plane: integer labels, H W, at least one of them a class.
        num_classes: K.
        ignore_index: label of unlabelled voxels.
        spacing: of the two axes, in any unit of length.
        absent: how far away a class lies that the plane does not show, in that unit; a class that fills the plane
            reaches as far.

    Returns:
        float32, K H W.

    >>> signed_distances(np.array([[0, 0, 1, 1, 1]]), 2, 9, (1.0, 1.0), 4.0)[1].tolist()
    [[-1.5, -0.5, 0.5, 1.5, 2.5]]
    """
    labelled = plane != ignore_index
    distances = np.empty((num_classes, *plane.shape), dtype=np.float32)
    for index in range(num_classes):
        inside = plane == index
        if not inside.any():
            distances[index] = -absent
        elif inside.sum() == labelled.sum():
            distances[index] = absent
        else:
            to_others = _distance_to(labelled & ~inside, spacing)
            distances[index] = to_others - _distance_to(inside, spacing)
    return distances


def _distance_to(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance from each voxel's centre to the nearest voxel of a mask H W, each voxel a rectangle; 0 within it."""
    # With points between the voxels, too, the nearest point of a rectangle is one of them.
    points = np.zeros([2 * size + 1 for size in mask.shape], dtype=bool)
    points[1::2, 1::2] = mask
    for along in (points, points.T):
        along[:-1:2] |= along[1::2]
        along[2::2] |= along[1::2]
    return ndimage.distance_transform_edt(~points, sampling=[step / 2 for step in spacing])[1::2, 1::2]


def interpolate_slices(
    labels: torch.Tensor,
    num_classes: int,
    ignore_index: int,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed distances to the classes for every voxel, from the annotated planes of all three axes.

    Shape-based interpolation: along an axis, raya1990interpolation and herman1992interpolation draw a line between the
    signed distances of two neighbouring planes. With z_1 and z_2 from a voxel to these planes, on which the distances
    straight across are d_1 and d_2, that is::

        d = (d_1 / z_1 + d_2 / z_2) s,    s = 1 / (1 / z_1 + 1 / z_2)

    and beyond the last plane d_1 is carried on, with s = z_1.

    Reading: planes of several axes are not treated there. A straight line misses a smooth outline by a length that
    grows as s^2, so the axes are joined with weights 1 / s^4, the inverse squares of that, in the manner of
    shepard1968interpolation. A class that a plane does not show may lie anywhere up to the next plane: it is put half a
    mean distance between annotated planes of this axis away. Where a plane is labelled in part, z is the distance to
    its nearest labelled voxel, the root of the squares of that to the plane and that within it.

    Args:
        labels: integer labels, D H W; planes are found by :func:`~common.geometry.labels.labelled_slices`, and what is
            labelled elsewhere is not used.
        num_classes: K.
        ignore_index: label of unlabelled voxels.
        spacing: of the three axes, in any unit of length.

    Returns:
        d, float32, K D H W, in the unit of `spacing`, minus infinity for a class that no plane shows; and the s of all
        axes together, (sum of 1 / s^4) to the power of -1/4, float32, D H W, 0 on the planes.

    Raises:
        InputError: when no plane is annotated, or a label is no class.
    """
    check_labels(labels, num_classes, ignore_index)
    planes = [labelled_slices(labels, ignore_index, axis) for axis in range(3)]
    if not any(planes):
        raise InputError(
            problem(
                "no plane of the seeds is annotated",
                "interpolation starts from whole slices, or parts of slices, that are labelled",
                "annotate a slice, or take the random walker, which starts from any voxels",
            )
        )
    sums = torch.zeros((num_classes, *labels.shape), dtype=torch.float32, device=labels.device)
    weights = torch.zeros(labels.shape, dtype=torch.float32, device=labels.device)
    seen = torch.zeros(num_classes, dtype=torch.bool, device=labels.device)
    unit = min(spacing)  # far from 1, the powers below would leave the range of float32
    steps = [step / unit for step in spacing]
    for axis, indices in enumerate(planes):
        if indices:
            distances, sharpness = _along(axis, indices, labels, num_classes, ignore_index, steps)
            weight = sharpness.pow_(4)
            weights += weight
            sums.addcmul_(distances, weight)
        for index in indices:
            shown = torch.arange(num_classes, device=labels.device).view(-1, 1, 1) == labels.select(axis, index)
            seen |= shown.any(dim=2).any(dim=1)
    sums *= unit / weights
    sums[~seen] = -torch.inf
    length = weights.pow_(-0.25)
    return sums, torch.where(length > 2 * _NEAREST, length * unit, 0.0)


def _along(
    axis: int,
    indices: Sequence[int],
    labels: torch.Tensor,
    num_classes: int,
    ignore_index: int,
    spacing: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed distances K D H W from the planes of one axis, and 1 / s, D H W."""
    size = labels.shape[axis]
    within = [step for across, step in enumerate(spacing) if across != axis]
    sums = torch.zeros((num_classes, *labels.shape), dtype=torch.float32, device=labels.device)
    weights = torch.zeros(labels.shape, dtype=torch.float32, device=labels.device)
    bounds = [-1, *indices, size]
    for index, before, after in zip(indices, bounds[:-2], bounds[2:], strict=True):
        plane = labels.select(axis, index).cpu().numpy()
        absent = 0.5 * size * spacing[axis] / len(indices)
        distances = signed_distances(plane, num_classes, ignore_index, within, absent)
        away = _distance_to(plane != ignore_index, within).astype(np.float32)
        distances, away = (torch.from_numpy(values).to(labels.device) for values in (distances, away))
        # all voxels from the plane before to the plane after this one, both without
        first, length = before + 1, after - before - 1
        z = spacing[axis] * (torch.arange(first, after, device=labels.device) - index).abs().float()
        z = torch.hypot(z.view([-1 if across == axis else 1 for across in range(3)]), away.unsqueeze(axis))
        # on the plane itself the weight is so large that nothing else counts
        weight = 1.0 / z.clamp_min(_NEAREST)
        sums.narrow(axis + 1, first, length).addcmul_(weight, distances.unsqueeze(axis + 1))
        weights.narrow(axis, first, length).add_(weight)
    return sums.div_(weights), weights
