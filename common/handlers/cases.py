"""What handlers ask of a case: where it was read from, and its labels as class indices."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import CommonKeys, ImageMetaKey

from ..files import write_json

__all__ = ["affine_in_mm", "class_indices", "image_source", "without_paths", "write_failures"]

# NIfTI's xyzt_units, its lowest three bits
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}


def image_source(item: Any) -> str:
    """The path that a case's image was read from, or an empty string.

    Args:
        item: a case or a batch of one, as a dictionary with ``image``; or a list whose first item is one.
    """
    if isinstance(item, list):
        item = item[0] if item else None
    image = item.get(CommonKeys.IMAGE) if isinstance(item, Mapping) else None
    source = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(image, MetaTensor) else None
    while isinstance(source, (list, tuple)):
        source = source[0] if source else None
    return str(source) if source else ""


def affine_in_mm(volume: Any) -> torch.Tensor:
    """Voxel to world in mm, whatever the unit of the file: microscopy files in micrometres say so in their header.

    Args:
        volume: as read by ``LoadImage``; without a NIfTI header its unit is taken for mm, as MONAI does.

    Returns:
        4 x 4, float64, on the processor; identity for a tensor without metadata.
    """
    if not isinstance(volume, MetaTensor):
        return torch.eye(4, dtype=torch.float64)
    affine = torch.as_tensor(volume.affine).detach().cpu().double().reshape(-1, 4, 4)[0].clone()
    affine[:3] *= _MILLIMETRES.get(int(volume.meta.get("xyzt_units", 2)) & 7, 1.0)
    return affine


def class_indices(volume: torch.Tensor) -> torch.Tensor:
    """Class indices of a decollated volume, for reports and pictures.

    Args:
        volume: class indices, 1 D H W, or one-hot, K D H W with no channel set where unlabelled.

    Returns:
        integers, D H W; -1 where unlabelled.
    """
    plain = torch.as_tensor(volume).as_subclass(torch.Tensor)
    if plain.shape[0] == 1:
        return plain[0].long()
    return torch.where(plain.bool().any(dim=0), plain.to(torch.uint8).argmax(dim=0), -1)


def without_paths(content: Any) -> Any:
    """`content` with every absolute path in it cut down to its last part: folders may name people."""
    if isinstance(content, Mapping):
        return {key: without_paths(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_paths(value) for value in content]
    return os.path.basename(content) if isinstance(content, str) and os.path.isabs(content) else content


def write_failures(folder: Path, failures: Sequence[Mapping[str, str]]) -> None:
    """Write ``failures.json``; without failures, remove that of an earlier run, since what failed then is done now.

    Args:
        folder: where results go.
        failures: of :class:`~common.engines.case_evaluator.CaseEvaluator`.

    Raises:
        InputError: when it can not be written.
    """
    listed = folder / "failures.json"
    if failures:
        write_json(listed, list(failures))
    else:
        listed.unlink(missing_ok=True)
