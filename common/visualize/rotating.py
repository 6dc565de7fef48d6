"""A prediction that turns: maximum projections from all sides as an animated GIF."""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import
from torch.nn.functional import adaptive_max_pool3d, interpolate

from ..checks import InputError, problem
from ..files import atomic_path
from ..geometry.projection import direction_angles, project
from .palette import background_classes, class_colour
from .volumes import CaseVolumes, ras_volumes

Image, has_pillow = optional_import("PIL.Image")
ImageDraw, _ = optional_import("PIL.ImageDraw")

__all__ = ["rotating_projections"]

logger = logging.getLogger(__name__)

_LONGEST = 224  # voxels a side that are projected, and about the pixels of a frame
_HIT = 0.2  # a lone voxel gives 0.25 where it lies between four samples
_RED, _WHITE = 254, 255  # in the palette, above the greys and the colours of classes
_LINE = 14  # pixels


def rotating_projections(
    image: torch.Tensor | np.ndarray,
    pred: torch.Tensor | np.ndarray,
    path: str | os.PathLike[str],
    affine: torch.Tensor | np.ndarray | None = None,
    class_names: Sequence[str] = ("background", "foreground"),
    warning: str | None = None,
    directions: int = 36,
    milliseconds: int = 100,
) -> bool:
    """Write a GIF, repeated for ever, of a turn about the patient's long axis that begins with the view from the front.

    Every frame is a maximum projection of the image, with the prediction over it in the class's colour and the image's
    brightness; of several classes on a ray the one with the smallest volume shows. Volumes are brought to cubic voxels
    first, so that the proportions are those of the body; the frame is wide enough for every direction.

    Args:
        image: C D H W, any intensity; several channels are shown as the mean of their scaled projections.
        pred: class indices, 1 D H W or D H W, on the image's grid.
        path: where to write the GIF; a frame is at most 224 pixels high and 317 wide.
        affine: 4 x 4, voxel to RAS mm; identity when None.
        class_names: names in class order; a class named "background" is not painted.
        warning: a line to print loudly across the top.
        directions: frames of a whole turn, even: the projection from behind is the mirror image of that from the front.
        milliseconds: how long a frame is shown.

    Returns:
        whether a GIF was written: without Pillow there is none, and a warning in the log.

    Raises:
        InputError: when the volumes are not on one grid, the number of directions is odd, or the file can not be
            written.
    """
    if directions < 2 or directions % 2:
        raise InputError(
            problem(
                f"{directions} directions came for a whole turn",
                "the second half turn is the mirror image of the first: their number must be even",
                "give an even number of at least 2, such as 36",
            )
        )
    if not has_pillow:
        logger.warning("Pillow is not installed: no rotating picture was written. Install it with: pip install pillow")
        return False
    case = ras_volumes(image, pred, affine=affine)
    painted = [index for index in range(len(class_names)) if index not in background_classes(class_names)]
    angles = direction_angles(directions // 2)
    grey = _projected_image(case, angles)
    seen = _projected_classes(case, painted, angles)
    colours = list(dict.fromkeys(class_colour(k) for k in np.unique(seen) if k >= 0))
    levels = min(64, _RED // (len(colours) + 1))
    pixels = np.rint(grey * (levels - 1)).astype(np.uint8)
    for slot, colour in enumerate(colours, start=1):
        here = np.isin(seen, [k for k in painted if class_colour(k) == colour])
        pixels[here] += np.uint8(slot * levels)
    pixels = np.concatenate((pixels, pixels[:, :, ::-1]))
    frames = _frames(pixels, _palette(colours, levels), warning)
    with atomic_path(path) as temporary:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return True


def _cubic(volume: np.ndarray, case: CaseVolumes, smooth: bool) -> torch.Tensor:
    """A volume in cubic voxels, 1 1 Y Z X: rays of angle 0 run along Y. Nothing bright is lost where it shrinks."""
    edge = max(float(case.spacing.min()), float(case.size.max()) / _LONGEST)
    shape = [max(1, round(float(length) / edge)) for length in case.size]
    tensor = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
    tensor = adaptive_max_pool3d(tensor, [min(old, new) for old, new in zip(volume.shape, shape, strict=True)])
    if list(tensor.shape[2:]) != shape:
        tensor = interpolate(tensor, shape, mode="trilinear" if smooth else "nearest-exact")
    return tensor.permute(0, 1, 3, 4, 2)


def _projected(volume: torch.Tensor, angles: list[float]) -> np.ndarray:
    """Projections as seen by who stands before the patient: directions, rows from the top, columns from the right."""
    return project(volume, angles, detector="full")[0, :, 0].flip((1, 2)).numpy()


def _projected_image(case: CaseVolumes, angles: list[float]) -> np.ndarray:
    """Mean over channels of the scaled maximum projections, in 0..1; black where a ray meets nothing."""
    total: Any = 0.0
    for channel in case.channels:
        low, high = np.percentile(channel.max(axis=1), (1, 99.8))
        # scaled first: a ray that meets nothing gives 0, which must be the darkest
        scaled = np.clip((channel.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
        total = total + _projected(_cubic(scaled, case, smooth=True), angles)
    return np.clip(total / len(case.channels), 0, 1)


def _projected_classes(case: CaseVolumes, painted: Sequence[int], angles: list[float]) -> np.ndarray:
    """Class that every ray shows, -1 for none."""
    volumes = {k: int(np.count_nonzero(case.found == k)) for k in painted}
    seen: np.ndarray | None = None
    for k in sorted((k for k in painted if volumes[k]), key=volumes.__getitem__, reverse=True):
        hit = _projected(_cubic(case.found == k, case, smooth=False), angles) > _HIT
        seen = np.full(hit.shape, -1, dtype=np.int16) if seen is None else seen
        seen[hit] = k
    return np.full(1, -1, dtype=np.int16) if seen is None else seen


def _palette(colours: Sequence[str], levels: int) -> list[int]:
    """256 colours: the greys, as many shades of each class, black, and at the end those of the warning."""
    shades = np.linspace(0, 1, levels)[:, None]
    parts = [np.repeat(shades * 255, 3, axis=1)]
    for colour in colours:
        rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
        parts.append((0.4 + 0.6 * shades) * rgb)
    table = np.zeros((256, 3))
    used = np.concatenate(parts)
    table[: len(used)] = used
    table[_RED], table[_WHITE] = (176, 0, 32), (255, 255, 255)
    return [int(value) for value in np.rint(table).ravel()]


def _frames(pixels: np.ndarray, palette: list[int], warning: str | None) -> list[Any]:
    """Images of a palette; small ones enlarged, below the warning."""
    _, height, width = pixels.shape
    factor = max(1, _LONGEST // max(height, width))
    height, width = height * factor, width * factor
    lines = textwrap.wrap(f"WARNING: {warning}", max(10, width // 7)) if warning else []
    head = _LINE * len(lines) + 6 if lines else 0
    frames = []
    for plane in pixels:
        frame = Image.new("P", (width, head + height))
        frame.putpalette(palette)
        frame.paste(Image.fromarray(plane.repeat(factor, 0).repeat(factor, 1)), (0, head))
        if lines:
            pen = ImageDraw.Draw(frame)
            pen.rectangle((0, 0, width, head - 1), fill=_RED)
            for number, line in enumerate(lines):
                pen.text((4, 2 + _LINE * number), line, fill=_WHITE)
        frames.append(frame)
    return frames
