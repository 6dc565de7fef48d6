"""Projections of a volume from fixed directions, made once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

from ..checks import InputError, problem
from ..geometry.projection import direction_angles, project

__all__ = ["ProjectVolume", "ProjectVolumed"]

_PROJECTIONS, _DETECTORS = ("max", "sum"), ("cropped", "full")


class ProjectVolume(Transform):
    """Project a volume along evenly spread directions across its second axis (angermann2019random25d, operator M).

    The directions are k * 180 / `directions` degrees, see :func:`common.geometry.projection.project` for where a voxel
    falls. What is projected has another geometry than the volume: the result carries no metadata.

    Args:
        directions: m, their number.
        projection: "max" or "sum".
        detector: "cropped", as wide as the third axis, or "full", wide enough for every direction.

    Raises:
        InputError: for no directions, or another projection or detector.
    """

    def __init__(self, directions: int = 60, projection: str = "max", detector: str = "cropped") -> None:
        self.angles = direction_angles(directions)
        for name, value, known in (("projection", projection, _PROJECTIONS), ("detector", detector, _DETECTORS)):
            if value not in known:
                rule = f"it must be one of {', '.join(known)}"
                raise InputError(problem(f"{name} is {value!r}", rule, f"use {known[0]!r}, the paper's"))
        self.projection, self.detector = projection, detector

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Project a volume.

        Args:
            img: C A B C (voxels), any real dtype, the rotation axis in the middle; computed in float32 or wider.

        Returns:
            m C b W, a plain tensor on the volume's device.

        Raises:
            InputError: for another number of axes.
        """
        if len(img.shape) != 4:
            rule = "projections are those of one volume, (channels, a, b, c)"
            raise InputError(
                problem(
                    f"the image has shape {tuple(img.shape)}", rule, "put EnsureChannelFirstd before the projection"
                )
            )
        volume = convert_to_tensor(img, track_meta=False)
        volume = volume.to(torch.promote_types(volume.dtype, torch.float32))
        with torch.no_grad():
            return project(volume[None], self.angles, self.projection, self.detector)[0].contiguous()


class ProjectVolumed(MapTransform):
    """Dictionary form of :class:`ProjectVolume`: the projections come to lie beside the volume, which stays.

    Where a dataset caches, they are made once for each volume, as long as no random transform stands before.

    Args:
        keys: volumes.
        directions: see :class:`ProjectVolume`.
        projection: see :class:`ProjectVolume`.
        detector: see :class:`ProjectVolume`.
        postfix: the projections of KEY are ``KEY_postfix``.
        allow_missing_keys: do not raise when a volume is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        directions: int = 60,
        projection: str = "max",
        detector: str = "cropped",
        postfix: str = "projections",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.project = ProjectVolume(directions, projection, detector)
        self.postfix = postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the projections."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[f"{key}_{self.postfix}"] = self.project(data[key])
        return result
