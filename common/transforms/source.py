"""What a transform was given: the volume, and what an error text calls it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor
from monai.utils import ImageMetaKey, convert_to_tensor

from ..checks import InputError, problem

__all__ = ["one_key", "single_volume", "source_of"]


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
