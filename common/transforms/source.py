"""What a transform was given: the volume, and what an error text calls it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor
from monai.utils import ImageMetaKey, convert_to_dst_type, convert_to_tensor

from ..checks import InputError, problem

__all__ = ["check_one_grid", "moved", "one_key", "single_volume", "source_of"]


def source_of(volume: Any, otherwise: str = "the label") -> str:
    """Base name, in quotes, of the file that `volume` was read from, or `otherwise` where it does not say.

    Folders are left out: they may name patients, and an error text goes where logs go.

    >>> import torch
    >>> source_of(MetaTensor(torch.zeros(1), meta={"filename_or_obj": "/data/case_1.nii.gz"}))
    "'case_1.nii.gz'"
    """
    file = volume.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(volume, MetaTensor) else None
    file = file[0] if isinstance(file, (list, tuple)) and file else file
    return f"'{Path(str(file)).name}'" if file else otherwise


def single_volume(volume: NdarrayOrTensor, what: str, rule: str, remedy: str) -> torch.Tensor:
    """A volume of one channel and three axes in space as a plain tensor.

    Args:
        volume: 1 and three axes.
        what: "image" or "label".
        rule, remedy: of the error's text.

    Raises:
        InputError: for another shape.
    """
    values = convert_to_tensor(volume, track_meta=False)
    if values.ndim != 4 or len(values) != 1:
        came = f"{what} {source_of(volume, 'in memory')} has shape {tuple(values.shape)}"
        raise InputError(problem(came, rule, remedy))
    return values


def one_key(keys: Sequence[Hashable], mask_key: str) -> None:
    """Refuse more than one image where the mask of one is put into `mask_key`.

    Raises:
        InputError: for more keys than one.
    """
    if len(keys) != 1:
        rule = f"the mask of one image is put into '{mask_key}'"
        raise InputError(problem(f"keys {keys} were given", rule, "give one key, such as image"))


def check_one_grid(volumes: Mapping[Hashable, torch.Tensor], label: torch.Tensor, what: str = "label") -> None:
    """Refuse volumes that are not (C, D, H, W) or not of the label's size.

    Args:
        volumes: the volumes by their keys, C D H W.
        label: C D H W.
        what: what an error text calls `label`.

    Raises:
        InputError: naming the first that is not.
    """
    for key, volume in volumes.items():
        if volume.ndim != 4 or volume.shape[1:] != label.shape[1:]:
            raise InputError(
                problem(
                    f"'{key}' from {source_of(volume, 'memory')} has shape {tuple(volume.shape)} and the {what} "
                    f"{source_of(label, 'in memory')} has {tuple(label.shape)}",
                    "both must be (channels, D, H, W) with one grid",
                    "resample one to the other's grid",
                )
            )


def moved(values: torch.Tensor, img: NdarrayOrTensor, place: np.ndarray | torch.Tensor) -> NdarrayOrTensor:
    """What was made of an image on another grid, of the image's type, with an affine that says where it lies.

    Such a step can not be inverted, so the record of operations applied before ends here.

    Args:
        values: C d h w.
        img: the image it was made of, whose metadata are copied.
        place: 4 x 4, voxels of the new grid to voxels of the image's.

    Returns:
        `values` as an array, a tensor or a `MetaTensor`, as `img` is.
    """
    if not isinstance(img, MetaTensor):
        return convert_to_dst_type(values, img, dtype=values.dtype)[0]
    affine = img.affine.to("cpu", torch.float64) @ torch.as_tensor(place, dtype=torch.float64, device="cpu")
    return MetaTensor(values, affine=affine, meta={k: deepcopy(v) for k, v in img.meta.items() if k != "affine"})
