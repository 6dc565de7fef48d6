"""Connected components of a binary mask: the largest, the n largest, their boxes, and the holes in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

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

# voxels of a map of numbers, and slices, that are handled at a time
_RUN, _SLICES = 2**20, 64


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
    labels, found = _label(_to_numpy(mask).reshape(mask.shape[mask.ndim - spatial_dims :]), connectivity)
    return torch.from_numpy(labels).to(mask.device).reshape(mask.shape), _describe(labels, found)


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
        labels, found = _label(volume, connectivity, compact=True)
        if found <= count:
            return volume
        return _among(labels, _by_size(labels, _sizes(labels, found))[:count], found)

    inside = _each(mask, kept, spatial_dims)
    if mask.dtype == torch.bool:
        return mask & inside
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
        return _filled(volume) if axis is None else _filled_slices(volume, axis)

    inside = _each(mask, filled, spatial_dims)
    if mask.dtype == torch.bool:
        return mask | inside
    return torch.where(inside & (mask == 0), torch.ones((), dtype=mask.dtype, device=mask.device), mask)


def _to_numpy(mask: torch.Tensor) -> np.ndarray:
    """The mask as a boolean array on the host, of a boolean mask on the host its own memory: not to be written to."""
    plain = mask.detach().as_subclass(torch.Tensor)
    return (plain if plain.dtype == torch.bool else plain != 0).cpu().numpy()


def _each(mask: torch.Tensor, function: Callable[[np.ndarray], np.ndarray], spatial_dims: int) -> torch.Tensor:
    """Apply `function`, boolean array to boolean array, to every leading item of a mask."""
    volumes = _to_numpy(mask).reshape(-1, *mask.shape[mask.ndim - spatial_dims :])
    found = [function(volume) for volume in volumes]
    # one volume, the usual case, is not copied
    inside = np.ascontiguousarray(found[0]) if len(found) == 1 else np.stack(found)
    return torch.from_numpy(inside.reshape(mask.shape)).to(mask.device)


def _label(volume: np.ndarray, connectivity: int | None, compact: bool = False) -> tuple[np.ndarray, int]:
    """Component numbers of a boolean volume, 1 .. n without gaps, and n.

    The numbers are int32, or with `compact` of whatever unsigned or signed type the library finds wide enough.
    """
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
        labels, found = cc3d.connected_components(
            np.ascontiguousarray(volume).view(np.uint8),
            connectivity=_NEIGHBOURS[volume.ndim, connectivity],
            out_dtype=None if compact else np.uint32,
            return_N=True,
        )
        labels = np.ascontiguousarray(labels)
        return (labels if compact else labels.view(np.int32)), int(found)
    if has_measure:
        labels, found = measure.label(volume, connectivity=connectivity, return_num=True)
    else:
        structure = ndimage.generate_binary_structure(volume.ndim, connectivity)
        labels, found = ndimage.label(volume, structure=structure)
    return (labels if compact else labels.astype(np.int32)), int(found)


def _describe(labels: np.ndarray, found: int) -> list[Component]:
    """The components in a map of numbers 1 .. n, largest first."""
    sizes = _sizes(labels, found)
    boxes = ndimage.find_objects(labels)
    parts = []
    for index in _by_size(labels, sizes).tolist():
        box = Box(*(tuple(int(getattr(part, end)) for part in boxes[index - 1]) for end in ("start", "stop")))
        parts.append(Component(index, int(sizes[index]), box))
    return parts


def _runs(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """A map of numbers piece by piece in memory order, so that no intermediate is as large as the map."""
    flat = labels.reshape(-1)
    for start in range(0, flat.size, _RUN):
        yield start, flat[start : start + _RUN]


def _sizes(labels: np.ndarray, found: int) -> np.ndarray:
    """Voxels of every number 0 .. n."""
    sizes = np.zeros(found + 1, dtype=np.int64)
    for _, run in _runs(labels):
        counts = np.bincount(run)
        sizes[: counts.size] += counts
    return sizes


def _among(labels: np.ndarray, chosen: np.ndarray, found: int) -> np.ndarray:
    """Where a map of numbers 0 .. n holds one of those chosen."""
    if len(chosen) == 1:
        return labels == chosen[0]
    wanted = np.zeros(found + 1, dtype=bool)
    wanted[chosen] = True
    inside = np.empty(labels.size, dtype=bool)
    for start, run in _runs(labels):
        inside[start : start + run.size] = wanted[run]
    return inside.reshape(labels.shape)


def _by_size(labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers 1 .. n by falling size, of equal ones first the one whose first voxel comes first in memory."""
    _, place, repeats = np.unique(sizes[1:], return_inverse=True, return_counts=True)
    tied = np.flatnonzero(repeats[place] > 1) + 1
    first = np.zeros(len(sizes), dtype=np.int64)
    first[tied] = _first_voxels(labels, tied, len(sizes))
    return np.lexsort((first[1:], -sizes[1:])) + 1


def _first_voxels(labels: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """Position in memory order of the first voxel of some numbers, so that no backend's numbering decides a tie."""
    first = np.full(count, labels.size, dtype=np.int64)
    missing = np.zeros(count, dtype=bool)
    missing[wanted] = True
    for start, run in _runs(labels):
        if not missing.any():
            break
        places = np.flatnonzero(missing[run])[::-1]
        # of repeated indices the last assignment stays: going backwards leaves the first voxel
        first[run[places]] = start + places
        missing[run[places]] = False
    return first[wanted]


def _box(volume: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box around the True voxels of an array, None where there are none."""
    box = []
    for axis in range(volume.ndim):
        filled = np.flatnonzero(volume.any(axis=tuple(other for other in range(volume.ndim) if other != axis)))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _filled(volume: np.ndarray) -> np.ndarray:
    """The volume or slice with its holes; `volume` itself where it has none.

    Beyond the smallest box around the mask all background is joined to the border, so a rim of background around the
    box stands for it, and every other component of background is a hole.
    """
    box = _box(volume)
    if box is None:
        return volume
    background = np.pad(~volume[box], 1, constant_values=True)
    labels, found = _label(background, connectivity=1, compact=True)
    if found == 1:
        return volume
    filled = volume.copy()
    filled[box] = (labels != labels.flat[0])[(slice(1, -1),) * volume.ndim]
    return filled


def _filled_slices(volume: np.ndarray, axis: int) -> np.ndarray:
    """The volume with the holes of its slices across one axis."""
    result = volume.copy()
    slices = np.moveaxis(result, axis, 0)
    box = _box(slices.any(axis=0))
    for start in range(0, len(slices) if box else 0, _SLICES):
        # slices across the last axis lie scattered in memory: fetched and put back many at a time
        part = slices[(slice(start, start + _SLICES), *box)]
        whole = np.array(part, order="C")
        for index, plane in enumerate(whole):
            whole[index] = _filled(plane)
        part[...] = whole
    return result
