"""Connected components of a binary mask: the largest, the n largest, their boxes, and the holes in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_dst_type, optional_import

from ..checks import InputError, problem
from .boxes import Box

cc3d, has_cc3d = optional_import("cc3d")
measure, has_measure = optional_import("skimage.measure")
ndimage, _ = optional_import("scipy.ndimage")

__all__ = ["Component", "connected_components", "fill_holes", "keep_largest"]

# neighbours of a voxel, by number of axes and number of axes along which a neighbour may differ
_NEIGHBOURS = {(2, 1): 4, (2, 2): 8, (3, 1): 6, (3, 2): 18, (3, 3): 26}

# voxels of a map of numbers, and slices, that are handled at a time, so that intermediates stay small
_PIECE, _SLICES = 2**18, 64


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
        return _among(labels, _measure(labels, found).by_size()[:count], found)

    inside = _each(mask, kept, spatial_dims)
    if mask.dtype == torch.bool:
        return convert_to_dst_type(inside, mask)[0]
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
        return convert_to_dst_type(inside, mask)[0]
    return torch.where(inside & (mask == 0), torch.ones((), dtype=mask.dtype, device=mask.device), mask)


def _to_numpy(mask: torch.Tensor) -> np.ndarray:
    """The mask as a boolean array on the host, of a boolean mask on the host its own memory: not to be written to."""
    plain = mask.detach().as_subclass(torch.Tensor)
    return (plain if plain.dtype == torch.bool else plain != 0).cpu().numpy()


def _each(mask: torch.Tensor, function: Callable[[np.ndarray], np.ndarray], spatial_dims: int) -> torch.Tensor:
    """Apply `function`, boolean array to boolean array, to every leading item of a mask; the result has its own memory.

    `function` writes nothing to what it gets, but may hand it back.
    """
    volumes = _to_numpy(mask).reshape(-1, *mask.shape[mask.ndim - spatial_dims :])
    found = [function(volume) for volume in volumes]
    # one volume, the usual case, is copied only where it came back or lies otherwise in memory
    alone = len(found) == 1 and not np.may_share_memory(found[0], volumes)
    inside = np.ascontiguousarray(found[0]) if alone else np.stack(found)
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


class _Measures(NamedTuple):
    """Of the numbers 1 .. n of a map: voxels, position of the first voxel in memory, and the box. Row 0 is unused."""

    voxels: np.ndarray
    first: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def by_size(self) -> np.ndarray:
        """The numbers by falling size, of equal ones first the one that begins first: no backend decides a tie."""
        return np.lexsort((self.first[1:], -self.voxels[1:])) + 1


def _measure(labels: np.ndarray, found: int) -> _Measures:
    """Measure the components in a map of numbers 0 .. n.

    Run by run, a run being equal numbers along the last axis: there are far fewer of them than voxels.
    """
    voxels, first = np.zeros(found + 1, np.int64), np.full(found + 1, labels.size)
    start = np.full((labels.ndim, found + 1), max(labels.shape))
    stop = np.zeros_like(start)
    length = labels.shape[-1]
    lines = labels.reshape(-1, length)
    for begin in range(0, len(lines), max(1, _PIECE // length)):
        part = lines[begin : begin + max(1, _PIECE // length)]
        edge = np.ones(part.shape, dtype=bool)
        np.not_equal(part[:, 1:], part[:, :-1], out=edge[:, 1:])
        places = np.flatnonzero(edge)
        numbers, lengths = part.reshape(-1)[places], np.diff(places, append=part.size)
        inside = numbers > 0
        numbers, lengths, places = numbers[inside], lengths[inside], places[inside] + begin * length
        np.add.at(voxels, numbers, lengths)
        np.minimum.at(first, numbers, places)
        for axis, index in enumerate(np.unravel_index(places, labels.shape)):
            np.minimum.at(start[axis], numbers, index)
            np.maximum.at(stop[axis], numbers, index + (lengths if axis == labels.ndim - 1 else 1))
    return _Measures(voxels, first, start.T, stop.T)


def _describe(labels: np.ndarray, found: int) -> list[Component]:
    """The components in a map of numbers 0 .. n, largest first."""
    measures = _measure(labels, found)
    order = measures.by_size()
    voxels, start, stop = (values[order].tolist() for values in (measures.voxels, measures.start, measures.stop))
    return [Component(*row[:2], Box(*map(tuple, row[2:]))) for row in zip(order.tolist(), voxels, start, stop)]


def _among(labels: np.ndarray, chosen: np.ndarray, found: int) -> np.ndarray:
    """Where a map of numbers 0 .. n holds one of those chosen."""
    if len(chosen) == 1:
        return labels == chosen[0]
    wanted = np.zeros(found + 1, dtype=bool)
    wanted[chosen] = True
    inside = np.empty(labels.size, dtype=bool)
    flat = labels.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        # an index of another type than the machine's own is copied to it
        inside[start : start + _PIECE] = wanted[flat[start : start + _PIECE]]
    return inside.reshape(labels.shape)


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
