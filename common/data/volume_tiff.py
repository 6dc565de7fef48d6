"""Volumes in TIFF files: ImageJ's, OME's and plain stacks of pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from monai.utils import optional_import

from ..checks import InputError, problem

tifffile, _has_tifffile = optional_import("tifffile")

__all__ = ["TIFF_SUFFIXES", "read_tiff", "write_tiff"]

TIFF_SUFFIXES = (".tif", ".tiff")
# what a unit's name means: our name and how many of it
_UNITS = {
    "nm": ("micron", 1e-3),
    "um": ("micron", 1.0),
    "µm": ("micron", 1.0),
    "μm": ("micron", 1.0),
    "\\u00b5m": ("micron", 1.0),
    "micron": ("micron", 1.0),
    "microns": ("micron", 1.0),
    "micrometer": ("micron", 1.0),
    "mm": ("mm", 1.0),
    "cm": ("mm", 10.0),
}
_IMAGEJ = (np.uint8, np.uint16, np.float32)


def read_tiff(path: Path, spacing: Sequence[float] | None) -> tuple[np.ndarray, tuple[float, ...], str, list[str]]:
    """A stack as X Y Z (C), its edges x, y, z, their unit, and what was taken for granted.

    Edges are those of ImageJ's or OME's metadata. A plain TIFF states dots per inch for a printer: not taken.

    Args:
        path: the file.
        spacing: edges x, y, z instead of the file's.

    Raises:
        InputError: a damaged file, one in a compression that needs another package, one that is no volume.
    """
    if not _has_tifffile:
        raise InputError(
            problem("the package tifffile is not installed", "TIFF files are read with it", "run: pip install tifffile")
        )
    try:
        with tifffile.TiffFile(path) as stream:
            series = stream.series[0]
            axes, array, count = series.axes, series.asarray(), len(stream.series)
            edges, unit = _stated(stream)
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, tifffile.TiffFileError) as error:
        remedy = "run pip install imagecodecs" if "imagecodecs" in str(error) else "save it anew as a TIFF stack"
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            problem(f"'{path}' can not be read ({first})", "it must be a whole TIFF stack", remedy)
        ) from error
    notes = [f"'{path.name}' holds {count} series of images: the first is read."] if count > 1 else []
    array = _turned(array, axes, path, notes)
    if spacing is not None:
        return array, tuple(spacing), unit if edges is not None else "unknown", notes
    if edges is None:
        notes.append(f"'{path.name}' states no voxel edges: they are taken to be equal.")
        return array, (1.0, 1.0, 1.0), "unknown", notes
    return array, edges, unit, notes


def write_tiff(path: Path, array: np.ndarray, spacing: Sequence[float], unit: str) -> None:
    """Write X Y Z as a stack Z Y X, as ImageJ's with voxel edges where it knows the dtype.

    Args:
        path: the file.
        array: X Y Z.
        spacing: edges x, y, z, in `unit`.
        unit: of the edges; ``"unknown"`` states none.
    """
    stack = np.ascontiguousarray(array.T)
    metadata: dict[str, Any] = {"axes": "ZYX"}
    options: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib"}
    if unit != "unknown":
        metadata |= {"spacing": float(spacing[2]), "unit": unit}
        options["resolution"] = (1 / spacing[0], 1 / spacing[1])
    tifffile.imwrite(path, stack, imagej=stack.dtype in _IMAGEJ, metadata=metadata, **options)


def _turned(array: np.ndarray, axes: str, path: Path, notes: list[str]) -> np.ndarray:
    """X Y Z or X Y Z C from the axes that the file names."""
    names = list(axes.upper())
    for axis in reversed(range(len(names))):
        if array.shape[axis] == 1 and names[axis] not in "XYZ":
            array = array.squeeze(axis)
            del names[axis]
    others = [name for name in names if name not in "XY"]
    if "Z" not in others:
        depth = [name for name in others if name not in "CS"] or [
            name for name in others if name == "C" and array.shape[names.index(name)] > 4
        ]
        if len(depth) == 1:
            if depth[0] in "CT":
                what = {"C": "channels", "T": "time points"}[depth[0]]
                notes.append(f"'{path.name}' calls its slices {what}: they are read as z.")
            names[names.index(depth[0])] = "Z"
    others = [name for name in names if name not in "XYZ"]
    if len(others) > 1 or (others and others[0] not in "CS") or "X" not in names or "Y" not in names:
        raise InputError(
            problem(
                f"'{path.name}' has the axes {axes} ({' x '.join(map(str, array.shape))})",
                "a volume has the axes x, y, z and at most one of channels",
                "save one volume of it, in ImageJ as a stack of slices (Image > Properties)",
            )
        )
    order = [names.index(name) for name in "XYZ" if name in names] + [names.index(name) for name in others]
    array = array.transpose(order)
    return array if "Z" in names else np.expand_dims(array, 2)


def _stated(stream: Any) -> tuple[tuple[float, ...] | None, str]:
    """Edges x, y, z and their unit; None where the file states none."""
    if stream.is_ome:
        return _ome(stream.ome_metadata)
    if not stream.is_imagej:
        return None, "unknown"
    metadata, tags = stream.imagej_metadata or {}, stream.pages[0].tags
    name, factor = _UNITS.get(str(metadata.get("unit", "")).strip().lower(), (None, 1.0))
    if name is None or "XResolution" not in tags or "YResolution" not in tags:
        return None, "unknown"
    edges = [_inverse(tags["XResolution"].value), _inverse(tags["YResolution"].value), metadata.get("spacing")]
    edges[2] = abs(float(edges[2])) if edges[2] else edges[0]
    if None in edges:
        return None, "unknown"
    return tuple(float(edge) * factor for edge in edges), name


def _inverse(ratio: Sequence[int]) -> float | None:
    dots, per = ratio
    return per / dots if dots and per else None


def _ome(text: str) -> tuple[tuple[float, ...] | None, str]:
    try:
        pixels = next(
            element for element in ElementTree.fromstring(text).iter() if element.tag.rpartition("}")[2] == "Pixels"
        )
        found = []
        for axis in "XYZ":
            name, factor = _UNITS[pixels.get(f"PhysicalSize{axis}Unit", "µm").strip().lower()]
            found.append((float(pixels.get(f"PhysicalSize{axis}", "nan")) * factor, name))
    except (ElementTree.ParseError, StopIteration, KeyError, ValueError):
        return None, "unknown"
    in_mm = {"mm": 1.0, "micron": 1e-3}
    unit = found[0][1]
    edges = tuple(edge * in_mm[name] / in_mm[unit] for edge, name in found)
    return (edges, unit) if np.all(np.isfinite(edges)) and min(edges) > 0 else (None, "unknown")
