"""Intensities standardised inside the body: one range for scans of any scanner."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type

from ..checks import InputError, parse_flag, problem
from ..geometry.otsu import otsu_body
from .source import one_key, single_volume, source_of

__all__ = ["StandardiseBody", "StandardiseBodyd"]

_logger = logging.getLogger(__name__)

_TOP = 255.0  # of a prepared volume, which is 8 bit
_REACHED = 5.0  # a prepared volume comes this near to 0 and to the top
_CLIPPED = 0.01  # share of a prepared volume that lies at its maximum: a normal distribution has 0.16 above +1
_SLAB = 4  # planes of which products are held at a time


class StandardiseBody(Transform):
    """Subtract the mean and divide by the standard deviation, both of the body only (huang2021runet, preprocessing).

    Volumes that were standardised, clipped and stored as 8 bit before, as the method's authors publish theirs
    ("prepared"), are only divided by 255, and all of such a volume is body.

    Reading: the paper clips nothing; the released code clips to [-4, 1] standard deviations, which spends the range on
    dark tissue, where tumours are, and stretches what is left to the whole of 8 bit. So here: the darkest of the
    clipped volume, air, becomes 0, which is also what convolutions pad with, and the upper bound becomes 1.
    Deviation: the released code means to take mean and deviation of the ten central slices, but reads ten others; here
    they are those of the whole body.

    Args:
        otsu_factor: share of Otsu's threshold at which the body begins, see :func:`common.geometry.otsu.otsu_body`.
        clip: lowest and highest value in standard deviations; the volume's own minimum, or the lowest value where that
            is below it, becomes 0, and the highest becomes 1. None clips and scales nothing.
        prepared: whether volumes are prepared; "auto" takes those for it that hold whole numbers from about 0 to about
            255, of which more than 1 % lie at the maximum, where they were clipped, and says so once in the log.
        closing: mm by which the body is closed within slices, so that dark muscle is in it, see
            :func:`common.geometry.otsu.otsu_body`; the released code closes by 10 voxels of 1 mm.

    Raises:
        InputError: for arguments out of their range.
    """

    def __init__(
        self,
        otsu_factor: float = 0.5,
        clip: Sequence[float] | None = (-4.0, 1.0),
        prepared: bool | str = "auto",
        closing: float = 10.0,
    ) -> None:
        self.otsu_factor = float(otsu_factor)
        if not 0 < self.otsu_factor <= 1:
            rule = "it must be above 0 (the minimum) and at most 1 (Otsu's threshold)"
            raise InputError(problem(f"otsu_factor {otsu_factor} was given", rule, "take 0.5"))
        self.clip = None if clip is None else tuple(float(bound) for bound in clip)
        if self.clip is not None and not (len(self.clip) == 2 and self.clip[0] < self.clip[1]):
            rule = "it must be two numbers of standard deviations, the lower one first, or null"
            raise InputError(problem(f"clip {self.clip} was given", rule, "take [-4, 1]"))
        self.prepared = _auto_or_flag(prepared)
        self.closing = float(closing)
        if not (self.closing >= 0 and math.isfinite(self.closing)):
            rule = "it must be a length in mm, 0 for none"
            raise InputError(problem(f"closing {closing} was given", rule, "take 10"))
        self._told = False

    def __call__(self, img: NdarrayOrTensor) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Standardise a volume.

        Args:
            img: 1 D H W in any unit, any dtype, D from feet to head or back.

        Returns:
            the volume, float32, a new array, and the body as a bool mask, both of the same shape with the image's
            metadata.

        Raises:
            InputError: for an image of another shape, a constant one or one with NaN, one whose body is constant, and
                one of values outside 0 to 255 where `prepared` is true.
        """
        source = source_of(img, "in memory")
        values = single_volume(img, "image", "it must be (1, D, H, W)", "load it with one channel in front")
        values = values.contiguous()  # turned axes lie scattered in memory, and most steps go plane by plane
        low, high = (float(bound) for bound in torch.aminmax(values))
        if not (low < high and math.isfinite(high - low)):
            came = f"image {source} holds values from {low:g} to {high:g}"
            rule = "they must be finite and differ, or nothing can be standardised"
            raise InputError(problem(came, rule, "check how the file was made"))
        if self._is_prepared(values, low, high, source):
            result = values.to(torch.float32) / _TOP
            mask = torch.ones(values.shape, dtype=torch.bool, device=values.device)
        else:
            mask = otsu_body(values, self.otsu_factor, axis=0, closing=self._radii(img))
            result = self._standardise(values, low, *_moments(values, mask, source))
        return (
            convert_to_dst_type(result, img, dtype=result.dtype)[0],
            convert_to_dst_type(mask, img, dtype=mask.dtype)[0],
        )

    def _radii(self, img: NdarrayOrTensor) -> list[int]:
        """Voxels along the two axes of a slice; where the image does not say its spacing, it is 1 mm."""
        spacing = img.pixdim.tolist()[1:] if isinstance(img, MetaTensor) else (1.0, 1.0)
        return [round(self.closing / edge) for edge in spacing]

    def _is_prepared(self, values: torch.Tensor, low: float, high: float, source: str) -> bool:
        """Whether to divide by 255 only."""
        if self.prepared is True and not 0 <= low < high <= _TOP:
            came = f"image {source} holds values from {low:g} to {high:g}"
            rule = "prepared volumes hold 0 to 255"
            raise InputError(problem(came, rule, "set prepared to auto or false, so that it is standardised"))
        if self.prepared != "auto":
            return self.prepared
        if not (0 <= low <= _REACHED and _TOP - _REACHED <= high <= _TOP):
            return False
        if values.is_floating_point() and not all(torch.equal(plane, plane.round()) for plane in values[0]):
            return False
        if int((values == high).sum()) <= _CLIPPED * values.numel():
            return False
        if not self._told:
            text = "image %s holds whole numbers from %g to %g, clipped at the top: taken for prepared, as all such"
            _logger.info(
                f"{text}, and only divided by 255. To standardise them, set prepared to false.", source, low, high
            )
            self._told = True
        return True

    def _standardise(self, values: torch.Tensor, minimum: float, mean: float, deviation: float) -> torch.Tensor:
        """Scale and clip in one pass, into a new float32 volume."""
        low, high = self.clip or (0.0, 1.0)
        if self.clip is not None and low < (darkest := (minimum - mean) / deviation) < high:
            low = darkest
        factor = 1 / (deviation * (high - low))
        # a 0-dimensional tensor on the host goes with any device
        offset = torch.tensor(-mean * factor - low / (high - low), dtype=torch.float32)
        result = torch.empty_like(values, dtype=torch.float32, memory_format=torch.contiguous_format)
        whole = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        torch.add(offset, whole, alpha=factor, out=result)
        return result if self.clip is None else result.clamp_(0, 1)


class StandardiseBodyd(MapTransform):
    """Dictionary form of :class:`StandardiseBody`.

    Args:
        keys: the image.
        mask_key: entry that the mask of the body is put in.
        otsu_factor, clip, prepared, closing: see :class:`StandardiseBody`.
        allow_missing_keys: do not raise when the image is missing.

    Raises:
        InputError: see :class:`StandardiseBody`; also for more than one key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str = "body",
        otsu_factor: float = 0.5,
        clip: Sequence[float] | None = (-4.0, 1.0),
        prepared: bool | str = "auto",
        closing: float = 10.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        one_key(self.keys, mask_key)
        self.mask_key = mask_key
        self.standardise = StandardiseBody(otsu_factor, clip, prepared, closing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Standardise the image and add the mask."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key], result[self.mask_key] = self.standardise(data[key])
        return result


def _moments(values: torch.Tensor, mask: torch.Tensor, source: str) -> tuple[float, float]:
    """Mean and standard deviation inside the mask."""
    count = int(mask.sum())
    mean = _sum_inside(values, mask, 0.0, 1) / max(count, 1)
    squares = _sum_inside(values, mask, mean, 2)
    if not squares > 0:
        came = f"the body that was found in image {source} has {count} voxels of one value"
        rule = "its values must differ, or nothing can be standardised"
        raise InputError(problem(came, rule, "give the scan itself; a mask or a label map is none"))
    return mean, math.sqrt(squares / count)


def _sum_inside(values: torch.Tensor, mask: torch.Tensor, centre: float, power: int) -> float:
    """Sum of ``(values - centre) ** power`` inside the mask, in float64, a few planes at a time."""
    total = torch.zeros((), dtype=torch.float64, device=values.device)
    for part, inside in zip(values.split(_SLAB, dim=-3), mask.split(_SLAB, dim=-3)):
        # multiplying is several times faster than picking
        total += ((part.float() - centre) * inside).pow_(power).sum(dtype=torch.float64)
    return float(total)


def _auto_or_flag(prepared: bool | str) -> bool | str:
    if str(prepared).strip().lower() == "auto":
        return "auto"
    try:
        return parse_flag(prepared, "prepared")
    except InputError:
        rule = "it must be auto, true or false"
        raise InputError(problem(f"prepared is {prepared!r}", rule, "pass --prepared auto")) from None
