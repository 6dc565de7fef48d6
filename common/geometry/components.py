"""Connected components of a binary mask: the largest, the n largest, their boxes, and the holes in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import optional_import

from ..checks import InputError, problem
from .boxes import Box

cc3d, has_cc3d = optional_import("cc3d")
measure, has_measure = optional_import("skimage.measure")
ndimage, _ = optional_import("scipy.ndimage")

__all__ = ["Component", "connected_components", "fill_holes", "keep_largest"]

# neighbours of a voxel, by number of axes and number of axes along which a neighbour may differ
_NEIGHBOURS = {(2, 1): 4, (2, 2): 8, (3, 1): 6, (3, 2): 18, (3, 3): 26}


class Component(NamedTuple):
    """One connected component: its number in the map of components, its voxels and its box."""

    index: int
    voxels: int
    box: Box


def connected_components(
    mask: torch.Tensor, connectivity: int | None = None, spatial_dims: int = 3
) -> tuple[torch.Tensor, list[Component]]:
    """Number the connected components of a mask and list them by falling size.

    Args:
        mask: ``D H W`` (leading axes of length 1 are allowed), non-zero = inside.
        connectivity: along how many axes a neighbour may differ, 1 (faces) to `spatial_dims` (corners, the default).
        spatial_dims: 3, or 2 for ``H W``.

    Returns:
        the map of component numbers, int32, of the mask's shape and device, 0 = outside; and the components,
        largest first, of equal ones first the one that comes first in memory.

    >>> [part.voxels for part in connected_components(torch.tensor([[1, 1, 0, 1]]), spatial_dims=2)[1]]
    [2, 1]
    """
    if mask.shape[: mask.ndim - spatial_dims].numel() != 1:
        raise InputError(
            problem(
                f"a mask of {tuple(mask.shape)}",
                f"components are those of one volume of {spatial_dims} axes",
                "pass one channel of one case",
            )
        )
    labels = _label(_to_numpy(mask).reshape(mask.shape[mask.ndim - spatial_dims :]), connectivity)
    found = _describe(labels)
    return torch.from_numpy(labels).to(mask.device).reshape(mask.shape), found


def keep_largest(
    mask: torch.Tensor, count: int = 1, connectivity: int | None = None, spatial_dims: int = 3
) -> torch.Tensor:
    """Keep the `count` largest connected components of every leading item (batch, channel) by itself.

    Args:
        mask: ``... D H W``, non-zero = inside.
        count: how many components stay; fewer where there are fewer.
        connectivity: see `connected_components`.
        spatial_dims: 3, or 2 for ``... H W``.

    Returns:
        mask with all other components set to 0, of the same shape, dtype and device.
    """

    def kept(volume: np.ndarray) -> np.ndarray:
        labels = _label(volume, connectivity)
        sizes = np.bincount(labels.ravel())
        if len(sizes) - 1 <= count:
            return labels > 0
        chosen = np.zeros(len(sizes), dtype=bool)
        chosen[[part.index for part in _describe(labels)[:count]]] = True
        return chosen[labels]

    inside = _each(mask, kept, spatial_dims)
    return torch.where(inside, mask, torch.zeros((), dtype=mask.dtype, device=mask.device))


def fill_holes(mask: torch.Tensor, axis: int | None = None, spatial_dims: int = 3) -> torch.Tensor:
    """Fill background that is not connected, face to face, with the border of the volume or slice.

    Args:
        mask: ``... D H W``, non-zero = inside; leading items are filled by themselves.
        axis: fill slice by slice across this spatial axis (0 = D); None fills cavities of the whole volume.
        spatial_dims: 3, or 2 for ``... H W``.

    Returns:
        mask with the holes set to 1, of the same shape, dtype and device.
    """

    def filled(volume: np.ndarray) -> np.ndarray:
        if axis is None:
            return ndimage.binary_fill_holes(volume)
        planes = np.moveaxis(volume, axis, 0)
        out = planes.copy()
        for index in np.flatnonzero(planes.any(axis=tuple(range(1, planes.ndim)))):
            out[index] = ndimage.binary_fill_holes(planes[index])
        return np.moveaxis(out, 0, axis)

    inside = _each(mask, filled, spatial_dims)
    return torch.where(inside & (mask == 0), torch.ones((), dtype=mask.dtype, device=mask.device), mask)


def _to_numpy(mask: torch.Tensor) -> np.ndarray:
    return torch.Tensor.numpy((mask != 0).detach().cpu().as_subclass(torch.Tensor))


def _each(mask: torch.Tensor, function: Any, spatial_dims: int) -> torch.Tensor:
    """Apply `function`, boolean array to boolean array, to every leading item of a mask."""
    volumes = _to_numpy(mask).reshape(-1, *mask.shape[mask.ndim - spatial_dims :])
    inside = np.stack([np.ascontiguousarray(function(volume)) for volume in volumes])
    return torch.from_numpy(inside.reshape(mask.shape)).to(mask.device)


def _label(volume: np.ndarray, connectivity: int | None) -> np.ndarray:
    """Component numbers of a boolean volume, 1 .. n without gaps, int32."""
    connectivity = volume.ndim if connectivity is None else connectivity
    if not 1 <= connectivity <= volume.ndim:
        raise InputError(
            problem(
                f"connectivity {connectivity}",
                f"it counts the axes along which a neighbour may differ, 1 to {volume.ndim} here",
                "pass a number in that range",
            )
        )
    if has_cc3d and (volume.ndim, connectivity) in _NEIGHBOURS:
        neighbours = _NEIGHBOURS[volume.ndim, connectivity]
        volume = np.ascontiguousarray(volume).view(np.uint8)
        labels = cc3d.connected_components(volume, connectivity=neighbours, out_dtype=np.uint32)
        return np.ascontiguousarray(labels).view(np.int32)
    if has_measure:
        return measure.label(volume, connectivity=connectivity).astype(np.int32)
    structure = ndimage.generate_binary_structure(volume.ndim, connectivity)
    return ndimage.label(volume, structure=structure)[0].astype(np.int32)


def _describe(labels: np.ndarray) -> list[Component]:
    """The components in a map of numbers 1 .. n, largest first."""
    sizes = np.bincount(labels.ravel())
    first = _first_voxels(labels, len(sizes))
    found = []
    for index, slices in enumerate(ndimage.find_objects(labels), start=1):
        box = Box(tuple(part.start for part in slices), tuple(part.stop for part in slices))
        found.append(Component(index, int(sizes[index]), box))
    return sorted(found, key=lambda part: (-part.voxels, first[part.index]))


def _first_voxels(labels: np.ndarray, count: int) -> np.ndarray:
    """Position in memory order of the first voxel of every number, so that no backend's numbering decides a tie."""
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    first = np.full(count, flat.size, dtype=np.int64)
    # of repeated indices the last assignment stays: going backwards leaves the first voxel
    first[flat[inside[::-1]]] = inside[::-1]
    return first
