"""What an error text calls a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.utils import ImageMetaKey

__all__ = ["source_of"]


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
