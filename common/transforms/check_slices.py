"""A CT's slices: at right angles, each of its own, none left out, of a possible size."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from ..checks import InputError, problem
from .source import single_volume, source_of

__all__ = ["CheckSlices", "CheckSlicesd"]

_logger = logging.getLogger(__name__)

_SHEAR = 1.0  # degrees between axes and a right angle: beyond what headers round, below what gantries are tilted by
_SAMPLED = 64  # voxels per axis of a slice that are looked at
_WINDOW = (-200.0, 300.0)  # HU between which neighbouring slices are compared: metal and air say little
# In whole scans a step from slice to slice is up to 1.2 times the largest around; three missing slices make it 1.8.
_JUMP, _AROUND = 1.75, 3
_REPEATED = 0.5  # share of the slices: every slice twice is no scan, some copies are a flaw of one
_THICK, _THIN, _COARSE = 10.0, 0.1, 8.0  # mm: slices above and below, voxels within slices above
_FIELD, _HEIGHT = (80.0, 1000.0), 2500.0  # mm within slices, and across them


class CheckSlices(Transform):
    """Refuse a CT whose slices can not be those of a scan at right angles, and return it unchanged otherwise.

    A method that works in voxels sees a tilted gantry's volume as a sheared body, and one with each slice twice as a
    stretched one; both give a wrong answer without any error. What is odd but can be used is logged as a warning: some
    copies of slices, a jump between neighbours that looks like missing ones, thickness or field of view beyond any
    scanner's. Padding, slices of one value, is none of these.

    The slices' axis is that of the array's axes which is nearest to that from feet to head; the last one without an
    affine.
    """

    def __call__(self, img: NdarrayOrTensor, name: str = "image") -> NdarrayOrTensor:
        """Check `img`.

        Args:
            img: 1 and three axes in HU, in any orientation; where it is a `MetaTensor`, its affine counts, in mm.
            name: what messages call it where it carries no file name.

        Returns:
            `img`, unchanged.

        Raises:
            InputError: naming the file, what was found, the rule and the remedy.
        """
        source = source_of(img, f"'{name}'")
        values = single_volume(img, "image", "it must be one channel and three axes", "check it by CheckVolume before")
        axis = 2
        if isinstance(img, MetaTensor):
            affine = img.affine.to("cpu", torch.float64).numpy()[:3, :3]
            spacing = np.linalg.norm(affine, axis=0).round(6)  # headers and rotations round, too
            axis = _slice_axis(affine, spacing, source)
            for doubt in _sizes(values.shape[1:], spacing, axis):
                _logger.warning("image %s %s", source, doubt)
        self._check_content(values[0].movedim(axis, 0), source)
        return img

    def _check_content(self, slices: torch.Tensor, source: str) -> None:
        """Look for copies and jumps among the slices, the first axis."""
        steps = [slice(None, None, -(-size // _SAMPLED)) for size in slices.shape[1:]]
        sample = slices[(slice(None), *steps)].to(torch.float32).clamp(*_WINDOW)
        copies = [at for at in _alike(slices, sample) if slices[at].min() < slices[at].max()]
        if copies and len(copies) >= _REPEATED * (len(slices) - 1):
            came = f"image {source} has {len(copies)} of {len(slices)} slices that are copies of the one before"
            rule = "a scan has every slice once, since noise makes each its own"
            remedy = "convert the scan anew, each of its slices once, or interpolate linearly where it was resampled"
            raise InputError(problem(came, rule, remedy))
        if copies:
            text = "image %s has %d slices that are copies of the one before (number %s, from 0): were some missing?"
            _logger.warning(text, source, len(copies), _listed([at + 1 for at in copies]))
        if jumps := _jumps(sample):
            text = "image %s changes much more after slice %s (from 0) than around: are slices missing?"
            _logger.warning(text, source, _listed(jumps))


class CheckSlicesd(MapTransform):
    """Dictionary form of :class:`CheckSlices`: to be placed before the orientation is changed.

    Args:
        keys: the images.
        allow_missing_keys: do not raise when one is missing.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckSlices()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the entries and return them unchanged, in a new dictionary."""
        for key in self.key_iterator(data):
            self.check(data[key], name=str(key))
        return dict(data)


def _slice_axis(affine: np.ndarray, spacing: np.ndarray, source: str) -> int:
    """The array axis nearest to that from feet to head, of axes that stand at right angles."""
    if not (np.isfinite(affine).all() and spacing.min() > 0):
        came = f"image {source} has voxels of {_lengths(spacing)} mm"
        raise InputError(problem(came, "every axis needs a length above 0", "convert the scan anew, with its header"))
    axes = affine / spacing
    tilt = max(math.degrees(math.asin(min(abs(axes[:, a] @ axes[:, b]), 1.0))) for a, b in ((0, 1), (0, 2), (1, 2)))
    if tilt > _SHEAR:
        came = f"image {source} has axes that are {tilt:.1f} degrees off a right angle (a tilted gantry)"
        remedy = "resample it to slices at right angles; dcm2niix, for one, writes such a volume beside the tilted one"
        raise InputError(problem(came, "the slices' axis must stand upright on the slices", remedy))
    return int(np.abs(axes[2]).argmax())


def _sizes(shape: torch.Size, spacing: np.ndarray, axis: int) -> list[str]:
    """What is odd about voxels and field of view."""
    thickness, within = float(spacing[axis]), np.delete(spacing, axis)
    field = np.delete(spacing * np.array(shape), axis)
    doubts = []
    if not _THIN <= thickness <= _THICK:
        doubts.append(f"has slices of {thickness:g} mm, and {_THIN:g} to {_THICK:g} are usual; is its header right?")
    if within.max() > _COARSE:
        doubts.append(f"has voxels of {_lengths(within)} mm within slices; what is small is lost in them")
    if field.min() < _FIELD[0] or field.max() > _FIELD[1] or shape[axis] * thickness > _HEIGHT:
        whole = _lengths(spacing * np.array(shape))
        doubts.append(f"is {whole} mm large; is that a body, in mm, or was it cut?")
    return doubts


def _alike(slices: torch.Tensor, sample: torch.Tensor) -> list[int]:
    """Numbers of the slices that equal the next one; samples are compared first."""
    candidates = (sample[1:] == sample[:-1]).flatten(1).all(1).nonzero().flatten().tolist()
    return [at for at in candidates if torch.equal(slices[at], slices[at + 1])]


def _jumps(sample: torch.Tensor) -> list[int]:
    """Numbers of the slices after which more changes than `_JUMP` times the most that changes around."""
    steps = (sample[1:] - sample[:-1]).abs().flatten(1).mean(1).cpu().numpy()
    flat = (sample.flatten(1).amin(1) == sample.flatten(1).amax(1)).cpu().numpy()
    scanned = np.flatnonzero(~(flat[1:] | flat[:-1]))  # steps to padding are none of the scan
    if len(scanned) <= 2 * _AROUND:
        return []
    steps = steps[scanned]
    around = np.lib.stride_tricks.sliding_window_view(np.pad(steps, _AROUND, mode="reflect"), 2 * _AROUND + 1)
    usual = np.delete(around, _AROUND, axis=1).max(axis=1)
    return scanned[(steps > _JUMP * usual) & (usual > 0)].tolist()


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _lengths(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
