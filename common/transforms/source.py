"""What an error text calls a volume."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

__all__ = ["source_of"]


def source_of(volume: torch.Tensor, otherwise: str = "the label") -> str:
    """The file that `volume` was read from, in quotes, or `otherwise` where it does not say.

    >>> source_of(MetaTensor(torch.zeros(1), meta={"filename_or_obj": "case_1.nii.gz"}))
    "'case_1.nii.gz'"
    """
    name = volume.meta.get("filename_or_obj") if isinstance(volume, MetaTensor) else None
    return f"'{name}'" if name else otherwise
