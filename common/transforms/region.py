"""Reading of the regions that an earlier stage has left: body and candidate region of each image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, convert_to_dst_type

from ..checks import InputError, problem
from ..files import case_name
from .source import source_of

__all__ = ["LoadRegion", "LoadRegionD", "LoadRegionDict", "LoadRegiond", "region_path"]

_REMEDY = "run the bundle's `regions` first (run ids `run`, or `train_stage2`)"


def region_path(folder: str | os.PathLike[str], image_path: str | os.PathLike[str]) -> Path:
    """Where the region map of an image lies: its own name, and by a few letters the folder that it was read from.

    Args:
        folder: of the maps.
        image_path: file of the image; two images of one name in different folders have different maps.

    >>> region_path("regions", "/data/imagesTr/case_1.nii.gz").name
    'case_1_02563c8c.nii.gz'
    """
    path = os.path.abspath(os.path.expanduser(image_path))
    return Path(folder) / f"{case_name(path)}_{hashlib.sha256(path.encode()).hexdigest()[:8]}.nii.gz"


class LoadRegion(Transform):
    """Body (C1) and candidate region (C2) of an image, from the map that `RegionMaps` has written for it.

    The map (roth2017hierarchical, sec. 2: what stage 1 hands over is a mask, no crop) holds 0 outside, 1 in C1 and 2 in
    C2. It lies on the grid of the image as it stands here: oriented and subsampled.

    Reading: where stage 1 found nothing there is no candidate region, and in a scan without any of the organs no
    reference either, so that stage 2 would have nothing to train on. Such a case is given its body for C2.

    Args:
        folder: where the maps are.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = str(folder)

    def __call__(self, img: MetaTensor) -> tuple[MetaTensor, MetaTensor]:
        """The two regions of `img`.

        Args:
            img: 1 X Y Z, with the name of its file.

        Returns:
            C1 and C2, bool, 1 X Y Z, with the metadata of `img`; C2 lies in C1.

        Raises:
            InputError: when the image does not say where it was read from, or there is no map of it, a broken one or
                one of another grid.
        """
        path = region_path(self.folder, _file_of(img))
        region, affine = _read(path, source_of(img))
        if region.shape != tuple(img.shape[1:]):
            came = f"the region map of {source_of(img)} has {_times(region.shape)} voxels"
            raise InputError(problem(came, f"the image has {_times(img.shape[1:])} where it is used", _REMEDY))
        # corners apart by a tenth of the smallest voxel are no rounding of the header
        wanted = img.affine.cpu().numpy()
        sizes = np.linalg.norm(wanted[:3, :3], axis=0)
        if (np.abs((affine - wanted)[:3]) @ np.array([*region.shape, 1.0])).max() > 0.1 * sizes.min():
            came = f"the region map of {source_of(img)} lies elsewhere or is turned"
            raise InputError(problem(came, "it must be on the grid of the image where it is used", _REMEDY))
        body, candidate = region >= 1, region == 2
        both = (body, candidate if candidate.any() else body)
        return tuple(convert_to_dst_type(one[None], img, dtype=torch.bool)[0] for one in both)


class LoadRegiond(MapTransform):
    """Dictionary form of `LoadRegion`; to be placed where the image stands on the grid of its map.

    Args:
        keys: the image.
        folder: where the maps are.
        body_key: entry for C1.
        region_key: entry for C2.
        allow_missing_keys: do not raise when the image is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        folder: str | os.PathLike[str],
        body_key: str = "body",
        region_key: str = "region",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.body_key, self.region_key = body_key, region_key
        self.load = LoadRegion(folder)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add both regions, bool, 1 X Y Z."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.body_key], result[self.region_key] = self.load(result[key])
        return result


LoadRegionD = LoadRegionDict = LoadRegiond


def _file_of(img: Any) -> str:
    file = img.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(img, MetaTensor) else None
    file = file[0] if isinstance(file, (list, tuple)) and file else file
    if not file:
        came = "an image does not say from which file it was read"
        raise InputError(problem(came, "its region map is found by that name", "load it by LoadImaged"))
    return str(file)


def _read(path: Path, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Values X Y Z and affine of a map."""
    try:
        file = nibabel.load(path)
        return np.asarray(file.dataobj), file.affine
    except FileNotFoundError as error:
        came = f"there is no region map of {source} in '{path.parent}'"
        raise InputError(problem(came, "stage 2 is trained inside the region that stage 1 leaves", _REMEDY)) from error
    except Exception as error:  # nibabel, gzip and zlib each have their own for a file that is cut short
        came = f"the region map of {source} can not be read ({type(error).__name__})"
        raise InputError(problem(came, "it must be a whole NIfTI file", f"delete '{path}' and {_REMEDY}")) from error


def _times(size: Any) -> str:
    return "x".join(str(n) for n in size)
