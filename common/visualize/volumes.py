"""Volumes of a case as pictures need them: on one grid, turned to RAS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.utils import convert_to_numpy, optional_import

from ..checks import InputError, problem

nib, _ = optional_import("nibabel")

__all__ = ["CaseVolumes", "ras_volumes"]


class CaseVolumes(NamedTuple):
    """A case turned to RAS.

    Args:
        channels: intensities, X Y Z each.
        found: class indices of the prediction, X Y Z.
        reference: class indices, X Y Z, or None.
        region: where the method has looked, X Y Z, not zero inside; or None.
        spacing: mm along X, Y, Z.
        anatomical: whether the axes are known to be those of the patient.
    """

    channels: Sequence[np.ndarray]
    found: np.ndarray
    reference: np.ndarray | None
    region: np.ndarray | None
    spacing: np.ndarray
    anatomical: bool

    @property
    def size(self) -> np.ndarray:
        """Lengths along X, Y, Z in mm."""
        return np.array(self.found.shape) * self.spacing


def ras_volumes(image: Any, pred: Any, label: Any = None, region: Any = None, affine: Any = None) -> CaseVolumes:
    """Volumes of a case on one grid, turned to RAS.

    Args:
        image: C D H W.
        pred: class indices, 1 D H W or D H W.
        label: class indices of the reference, or None.
        region: not zero where the method has looked more closely, or None.
        affine: 4 x 4, voxel to RAS mm; identity, and no word about the patient's sides, when None.

    Raises:
        InputError: when they are not on one grid.
    """
    scan, found = convert_to_numpy(image), _without_channel(pred)
    reference, region = (None if one is None else _without_channel(one) for one in (label, region))
    shapes = {scan.shape[1:], *(one.shape for one in (found, reference, region) if one is not None)}
    if len(shapes) != 1 or found.ndim != 3:
        reference, region = (None if one is None else one.shape for one in (reference, region))
        raise InputError(
            problem(
                f"image {scan.shape}, prediction {found.shape}, reference {reference}, candidate region {region}",
                "a picture needs them on one grid, C D H W and D H W",
                "invert the preprocessing, or reload the image",
            )
        )
    matrix = np.eye(4) if affine is None else np.asarray(convert_to_numpy(affine), dtype=float)
    turn = nib.orientations.io_orientation(matrix)
    reference, region = (
        None if one is None else nib.orientations.apply_orientation(one, turn) for one in (reference, region)
    )
    return CaseVolumes(
        channels=[nib.orientations.apply_orientation(channel, turn) for channel in scan],
        found=nib.orientations.apply_orientation(found, turn).astype(np.int16),
        reference=reference,
        region=region,
        spacing=np.linalg.norm(matrix[:3, :3], axis=0)[np.argsort(turn[:, 0])],
        anatomical=affine is not None,
    )


def _without_channel(volume: Any) -> np.ndarray:
    array = convert_to_numpy(volume)
    return array[0] if array.ndim == 4 else array
