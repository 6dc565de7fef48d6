"""What an image is, and how it differs from the images that a bundle was made for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data.utils import affine_to_spacing
from monai.utils import convert_to_tensor

from ..files import sha256

__all__ = ["content_hash", "input_facts", "input_warnings", "slice_axis", "stated_modality"]

PERCENTILES = (1, 50, 99)
_SAMPLED = 64  # voxels per axis that percentiles are taken of
_SLACK = 0.05  # by which a size may pass a bound: figures of papers are rounded
_ALIKE = 1.02  # voxels whose edges differ by less are cubes
_MODALITY = "modality="  # in the description of a NIfTI header that was made of a DICOM series
_SPLIT = (".mhd", ".nhdr", ".hdr", ".img")  # formats of two files, of which one alone tells nothing of the other


def input_facts(volume: torch.Tensor, affine: torch.Tensor | np.ndarray, modality: str | None = None) -> dict[str, Any]:
    """What an image is, for a report and for `input_warnings`.

    Args:
        volume: C X Y Z, values as in the file.
        affine: 4 x 4, voxels to mm.
        modality: as DICOM calls it; None where it is not known.

    Returns:
        ``modality``, ``shape`` and ``spacing_mm`` (X Y Z), ``slice_axis``, ``field_of_view_mm`` (X Y Z) and
        ``intensity``: percentiles 1, 50 and 99 of a sample of the voxels of all channels; empty where none is finite.

    >>> facts = input_facts(torch.ones(1, 4, 4, 2), np.diag([1, 1, 3, 1]))
    >>> facts["field_of_view_mm"], facts["slice_axis"]
    ([4.0, 4.0, 6.0], 2)
    """
    shape = list(volume.shape[1:])
    spacing = [float(edge) for edge in affine_to_spacing(np.asarray(affine, np.float64))]
    steps = [slice(None, None, -(-size // _SAMPLED)) for size in shape]
    sample = convert_to_tensor(volume[(slice(None), *steps)], track_meta=False).to("cpu", torch.float64).numpy()
    values = np.percentile(sample[np.isfinite(sample)], PERCENTILES) if np.isfinite(sample).any() else ()
    return {
        "modality": modality,
        "shape": shape,
        "spacing_mm": [round(edge, 9) for edge in spacing],
        "slice_axis": slice_axis(affine),
        "field_of_view_mm": [round(size * edge, 6) for size, edge in zip(shape, spacing, strict=True)],
        "intensity": {
            f"percentile_{share}": round(float(value), 6) for share, value in zip(PERCENTILES, values, strict=False)
        },
    }


def slice_axis(affine: torch.Tensor | np.ndarray) -> int:
    """The axis that slices are counted along: the one whose edge is unlike the two others.

    Voxels that are cubes do not tell: then it is the axis from foot to head, as in CT.

    Args:
        affine: 4 x 4, voxels to mm.

    >>> slice_axis(np.diag([4, 1, 1, 1])), slice_axis(np.diag([0.7, 0.7, 0.5, 1]))
    (0, 2)
    """
    matrix = np.asarray(affine, np.float64)[:3, :3]
    edges = np.linalg.norm(matrix, axis=0)
    if edges.max() < _ALIKE * edges.min():
        return int(np.abs(matrix[2]).argmax())
    logs = np.log(edges)
    return min((2, 1, 0), key=lambda axis: abs(logs[axis - 1] - logs[axis - 2]))


def stated_modality(path: str | os.PathLike[str]) -> str | None:
    """The modality of a NIfTI file that was made of a DICOM series, from the description in its header.

    Returns:
        such as ``"CT"``; None for other files.
    """
    if not Path(path).name.lower().endswith((".nii", ".nii.gz")) or not Path(path).is_file():
        return None
    text = bytes(nibabel.load(path).header["descrip"].tobytes()).rstrip(b"\0 ").decode("ascii", "replace")
    return text.removeprefix(_MODALITY) or None if text.startswith(_MODALITY) else None


def content_hash(path: str | os.PathLike[str]) -> str | None:
    """SHA-256 of the file of an image; None for a folder and for formats that keep voxels in a file of their own."""
    path = Path(path)
    return sha256(path) if path.is_file() and path.suffix.lower() not in _SPLIT else None


def input_warnings(expected: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """In what an image differs from those that a bundle was made for; each difference is a sentence.

    Sizes may pass a bound by 5 %. What is not known, or not said of the bundle, is not compared.

    Args:
        expected: ``expected_input`` of the bundle's metadata: ``modality``, a list; ``spacing_mm`` and
            ``field_of_view_mm``, each with bounds ``in_plane`` and ``through_plane``; ``intensity``, bounds of
            percentiles and their ``unit``. A bound is two numbers, of which one may be None.
        facts: by `input_facts`.

    >>> facts = input_facts(torch.ones(1, 4, 4, 2), np.diag([1, 1, 3, 1]), "MR")
    >>> input_warnings({"modality": ["CT"], "spacing_mm": {"through_plane": [0.5, 1.0]}}, facts)
    ['it is MR; the bundle expects CT', 'its slices are 3 mm apart; the bundle expects 0.5 to 1 mm']
    """
    found = []
    wanted = expected.get("modality")
    if wanted and facts.get("modality") and facts["modality"] not in wanted:
        found.append(f"it is {facts['modality']}; the bundle expects {' or '.join(wanted)}")
    axis = facts["slice_axis"]
    for entry, in_plane, through in (
        ("spacing_mm", "its pixels are {} mm", "its slices are {} mm apart"),
        ("field_of_view_mm", "it shows {} mm in plane", "it shows {} mm across the slices"),
    ):
        sizes, bounds = facts[entry], expected.get(entry) or {}
        found += _beyond(in_plane, [size for k, size in enumerate(sizes) if k != axis], bounds.get("in_plane"))
        found += _beyond(through, [sizes[axis]], bounds.get("through_plane"))
    intensity = expected.get("intensity") or {}
    unit = " HU" if intensity.get("unit") == "HU" else ""
    for name, value in facts["intensity"].items():
        low, high = intensity.get(name) or (None, None)
        if (low is not None and value < low) or (high is not None and value > high):
            share = f"its {name.removeprefix('percentile_')}th percentile".replace(" 1th", " 1st")
            found.append(f"{share} is {value:.4g}{unit}; the bundle expects {_bounds_text(low, high)}{unit}")
    return found


def _beyond(sentence: str, sizes: Sequence[float], bounds: Sequence[float | None] | None) -> list[str]:
    """A sentence where a size is out of bounds."""
    low, high = bounds or (None, None)
    too_small = low is not None and min(sizes) < low * (1 - _SLACK)
    if not too_small and (high is None or max(sizes) <= high * (1 + _SLACK)):
        return []
    came = sentence.format(" x ".join(f"{size:.3g}" for size in sizes))
    return [f"{came}; the bundle expects {_bounds_text(low, high)} mm"]


def _bounds_text(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
