"""Volumes in HDF5 files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from ..checks import InputError, nearest, problem

h5py, _has_h5py = optional_import("h5py")

__all__ = ["HDF5_SUFFIXES", "IMAGE_KEYS", "LABEL_KEYS", "read_hdf5", "write_hdf5"]

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".ilp")
IMAGE_KEYS = ("raw", "image", "data", "volume", "exported_data")
LABEL_KEYS = ("label", "labels", "annotation", "segmentation", "exported_data")
_FEW = 4  # channels, where nothing says which axis they are


def read_hdf5(
    path: Path, spacing: Sequence[float] | None, key: str | None, prefer: Sequence[str]
) -> tuple[np.ndarray, tuple[float, ...], str, list[str]]:
    """A data set as X Y Z (C), its edges x, y, z, their unit, and what was taken for granted.

    Axes are Z Y X, or C Z Y X (Z Y X C where only the last is short enough), unless the attribute ``axistags`` of
    ilastik names them. The edges are those of the attribute ``element_size_um``, z, y, x.

    Args:
        path: the file.
        spacing: edges x, y, z instead of the file's.
        key: the data set; None takes the file's only volume, else the first of `prefer` that it has.
        prefer: names of data sets.

    Raises:
        InputError: a damaged file, no such data set or several to choose from, no volume.
    """
    if not _has_h5py:
        raise InputError(
            problem("the package h5py is not installed", "HDF5 files are read with it", "run: pip install h5py")
        )
    try:
        with h5py.File(path, "r") as stream:
            key, notes = _choose(stream, path, key, prefer)
            array, attributes = stream[key][()], dict(stream[key].attrs)
    except OSError as error:
        raise InputError(
            problem(f"'{path}' can not be read ({error})", "it must be a whole HDF5 file", "fetch or make it anew")
        ) from error
    array = _turned(array, attributes, f"'{key}' in '{path.name}'")
    edges, unit = _edges(attributes), "micron"
    if spacing is not None:
        return array, tuple(spacing), unit, notes
    if edges is None:
        notes.append(f"'{path.name}' states no voxel edges (element_size_um): they are taken to be equal.")
        return array, (1.0, 1.0, 1.0), "unknown", notes
    return array, edges, unit, notes


def write_hdf5(path: Path, array: np.ndarray, key: str, spacing: Sequence[float], unit: str) -> None:
    """Write X Y Z as a data set Z Y X, with its edges where they are known in micrometres.

    Args:
        path: the file.
        array: X Y Z.
        key: name of the data set.
        spacing: edges x, y, z, in `unit`.
        unit: of the edges.
    """
    with h5py.File(path, "w") as stream:
        data = stream.create_dataset(key, data=np.ascontiguousarray(array.T), compression="gzip", compression_opts=3)
        if unit == "micron":
            data.attrs["element_size_um"] = np.asarray(spacing[::-1], float)


def _choose(stream: Any, path: Path, key: str | None, prefer: Sequence[str]) -> tuple[str, list[str]]:
    """The data set's name, and a note where it was chosen among several."""
    found: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "biuf":
            found.append(name)

    stream.visititems(note)
    shown = ", ".join(found) or "none"
    if key is not None:
        if key.strip("/") in found:
            return key.strip("/"), []
        close = nearest(key, found)
        raise InputError(
            problem(
                f"'{path}' has no data set '{key}'",
                f"its volumes are: {shown}",
                f"pass --key {close}" if close else "name one of them",
            )
        )
    if len(found) == 1:
        return found[0], []
    for name in prefer:
        if name in found:
            return name, [f"Of the data sets of '{path.name}' ({shown}), '{name}' is read."]
    raise InputError(
        problem(f"'{path}' holds the data sets: {shown}", "one volume is read from it", "name it with --key")
    )


def _turned(array: np.ndarray, attributes: dict[str, Any], what: str) -> np.ndarray:
    """X Y Z or X Y Z C from the axes that the file names, or from their number."""
    axes = _tagged(attributes)
    if len(axes) != array.ndim:
        last = array.ndim == 4 and array.shape[-1] <= _FEW < array.shape[0]
        axes = {2: "yx", 3: "zyx", 4: "zyxc" if last else "czyx"}.get(array.ndim, "?" * array.ndim)
    for axis in reversed(range(array.ndim)):
        if array.shape[axis] == 1 and axes[axis] not in "xyz":
            array, axes = array.squeeze(axis), axes[:axis] + axes[axis + 1 :]
    if not {"x", "y"} <= set(axes) <= set("xyzc"):
        raise InputError(
            problem(
                f"{what} has shape {array.shape}" + (f" and the axes {axes}" if "?" not in axes else ""),
                "a volume is Z Y X or C Z Y X",
                "choose another with --key, or save one volume of it",
            )
        )
    array = array.transpose([axes.index(name) for name in "xyzc" if name in axes])
    return array if "z" in axes else np.expand_dims(array, 2)


def _tagged(attributes: dict[str, Any]) -> str:
    """The names of the axes that ilastik wrote, or an empty text."""
    try:
        return "".join(axis["key"] for axis in json.loads(attributes["axistags"])["axes"])
    except (KeyError, TypeError, ValueError):
        return ""


def _edges(attributes: dict[str, Any]) -> tuple[float, ...] | None:
    edges = attributes.get("element_size_um")
    if edges is None or np.size(edges) != 3 or not np.all(np.isfinite(edges)) or np.min(edges) <= 0:
        return None
    return tuple(float(edge) for edge in np.asarray(edges)[::-1])
