"""What handlers ask of a case: where it was read from, and its labels as class indices."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from monai.utils import CommonKeys, ImageMetaKey

from ..checks import InputError, problem
from ..files import write_json

__all__ = [
    "affine_in_mm",
    "chosen_classes",
    "class_indices",
    "closing_notes",
    "entry",
    "figures",
    "figures_text",
    "image_on_grid",
    "image_source",
    "inferer_report",
    "without_paths",
    "write_failures",
]

logger = logging.getLogger(__name__)

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
        integers, D H W; -1 where unlabelled. Integers of one channel stay of their type: a whole CT as 64 bit integers
        takes gigabytes.
    """
    plain = torch.as_tensor(volume).as_subclass(torch.Tensor)
    if plain.shape[0] == 1:
        return plain[0].to(torch.int16) if plain.is_floating_point() or plain.dtype == torch.bool else plain[0]
    return torch.where(plain.bool().any(dim=0), plain.to(torch.uint8).argmax(dim=0), -1)


def image_on_grid(
    item: Mapping[str, Any], volume: torch.Tensor, loaded: torch.Tensor | None = None
) -> torch.Tensor | None:
    """The image of a case on the grid of a volume that was brought back to that of the file, for pictures.

    Args:
        item: a decollated case; its image is on the grid of the network or of the file.
        volume: C D H W, on the grid of the file.
        loaded: C D H W, the image as the file has it, where it was read again already.

    Returns:
        the image in memory where it is on that grid, else as the file has it; None, with a warning in the log, where
        that is on another grid too.
    """
    image = item[CommonKeys.IMAGE]
    if not _same_grid(image, volume) and loaded is not None:
        image = loaded
    elif not _same_grid(image, volume):
        source = image_source(item)
        image = LoadImage(image_only=True, ensure_channel_first=True)(source) if source else image
    if image.shape[1:] == volume.shape[1:]:
        return image
    logger.warning("image %s and volume %s are on different grids: no picture", tuple(image.shape), tuple(volume.shape))
    return None


def _same_grid(image: Any, volume: Any) -> bool:
    return image.shape[1:] == volume.shape[1:] and torch.allclose(
        affine_in_mm(image), affine_in_mm(volume), rtol=1e-4, atol=1e-6
    )


def chosen_classes(class_names: Sequence[str], classes: Sequence[int] | None) -> list[int]:
    """The numbers of the classes that a report is about.

    Args:
        class_names: one name a class, in class order.
        classes: their numbers; None for all.

    Raises:
        InputError: when there is none, or one that has no name.
    """
    chosen = list(range(len(class_names))) if classes is None else [int(k) for k in classes]
    if not chosen or any(not 0 <= k < len(class_names) for k in chosen):
        raise InputError(
            problem(
                f"classes are {chosen}",
                f"at least one of 0 to {len(class_names) - 1} is needed, the numbers of class_names",
                "name the classes to score, or None for all",
            )
        )
    return chosen


def entry(item: Mapping[str, Any], key: str) -> torch.Tensor:
    """What a case holds under `key`.

    Raises:
        InputError: when the postprocessing has left nothing there.
    """
    if key not in item:
        raise InputError(
            problem(
                f"a case has no '{key}' (it has {', '.join(sorted(map(str, item)))})",
                "the report needs every stage's prediction, and the candidate region",
                "let the inferer return them as channels and split these in the postprocessing (SplitDimd)",
            )
        )
    return item[key]


def inferer_report(engine: Any) -> dict[str, Any] | None:
    """What an evaluator's inferer tells of its last call (``inferer.report``), or None where it tells nothing."""
    report = getattr(getattr(engine, "inferer", None), "report", None)
    return without_paths(report) if isinstance(report, Mapping) and report else None


def figures(report: Mapping[str, Any] | None) -> dict[str, float]:
    """The numbers of a report by name, those of nested reports by both names.

    >>> figures({"c1_share": 0.4, "seconds": {"body": 2}, "mode": "constant"})
    {'c1_share': 0.4, 'seconds body': 2}
    """
    found: dict[str, float] = {}
    for name, value in (report or {}).items():
        if isinstance(value, Mapping):
            found |= {f"{name} {inner}": number for inner, number in figures(value).items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[str(name)] = value
    return found


def figures_text(report: Mapping[str, Any] | None) -> str:
    """The numbers of a report in a line for the log.

    >>> figures_text({"c1_share": 0.41234, "seconds": {"body": 2}})
    'c1_share 0.412, seconds body 2'
    """
    return ", ".join(f"{name} {value:.3g}" for name, value in figures(report).items())


def without_paths(content: Any) -> Any:
    """`content` with every absolute path in it cut down to its last part: folders may name people."""
    if isinstance(content, Mapping):
        return {key: without_paths(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_paths(value) for value in content]
    return os.path.basename(content) if isinstance(content, str) and os.path.isabs(content) else content


def closing_notes(warning: str | None, failed: Sequence[str]) -> list[str]:
    """The last paragraphs of a report, for people: what its weights warn of, and which cases are not in it."""
    notes = [f"**Warning:** {warning}"] if warning else []
    return [*notes, *([f"Failed, and not counted: {', '.join(failed)}."] if failed else [])]


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
