"""CT in Hounsfield units: whether it is, and a window of them as a network's input."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..checks import InputError, parse_flag, problem
from .source import source_of

__all__ = ["CheckHounsfield", "CheckHounsfieldd", "HounsfieldWindow", "HounsfieldWindowd"]

_logger = logging.getLogger(__name__)

_RULE = "a CT must be in Hounsfield units, with air at about -1000, fat at -100 and water at 0"
_SAMPLED = 48  # voxels per axis that are looked at one by one
_SLAB = 16  # planes of which products are held at a time
# Scanners pad with -2000, -3024 or -8192, and metal goes to tens of thousands; beyond these lie only other units.
_LOWEST, _HIGHEST = -10000.0, 100000.0


class CheckHounsfield(Transform):
    """Refuse an image that cannot be a CT in HU, say why, and return it unchanged otherwise.

    roth2017hierarchical finds the body and scales the input by fixed HU: an image in other units would give an empty or
    a meaningless answer without any error. What a CT in HU can be passes: cropped to the body, padded, with metal.
    What is odd but possible is logged as a warning. Constant images and values that are not finite are the matter of
    :class:`CheckVolume`.
    """

    def __call__(self, img: NdarrayOrTensor, name: str = "image") -> NdarrayOrTensor:
        """Check `img`.

        Args:
            img: C H W D in HU.
            name: what messages call it where it carries no file name.

        Returns:
            `img`, unchanged.

        Raises:
            InputError: naming the file, the values found, the rule and the remedy.
        """
        source = source_of(img, f"'{name}'")
        values = convert_to_tensor(img, track_meta=False)
        low, high = torch.stack(torch.aminmax(values)).tolist()
        steps = [slice(None, None, -(-size // _SAMPLED)) for size in values.shape[-3:]]
        sample = values[(..., *steps)].to("cpu", torch.float64)
        fault = _fault(low, high, sample)
        if fault:
            raise InputError(problem(f"image {source} holds values from {low:g} to {high:g}", _RULE, fault))
        for doubt in _doubts(low, high, sample):
            _logger.warning("image %s holds values from %g to %g: %s", source, low, high, doubt)
        return img


class CheckHounsfieldd(MapTransform):
    """Dictionary form of :class:`CheckHounsfield`: to be placed right after loading.

    Args:
        keys: the images.
        allow_missing_keys: do not raise when one is missing.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckHounsfield()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the entries and return them unchanged, in a new dictionary."""
        for key in self.key_iterator(data):
            self.check(data[key], name=str(key))
        return dict(data)


def _fault(low: float, high: float, sample: torch.Tensor) -> str:
    """What to do about values that no CT in HU has; empty where there are none."""
    if low >= -20 and high <= 20:
        return "give the CT itself, as it was before it was normalised"
    if low >= 0 and high <= 255:
        return "give the CT itself instead of a grey picture of one window of it (8 bit)"
    if low >= 0 and high > 500:
        return (
            "apply the rescale slope and intercept of the DICOM header, which were left out (most often: subtract 1024)"
            ", and leave out what is no CT (MR has no such units)"
        )
    if high < -300:
        return "give a scan of a body (this one holds nothing but air) and apply the rescale intercept only once"
    if _share_beyond(low, sample) > 0.01:
        return "undo its scaling: voxels by the percent lie where no tissue, no metal and no padding does"
    return ""


def _share_beyond(low: float, sample: torch.Tensor) -> float:
    """Share of the voxels whose values nothing real has."""
    deep = sample < _LOWEST
    # mostly one value over and over: padding, the rest being its edge, blurred by interpolation
    padded = bool(2 * (sample[deep] == low).sum() >= deep.sum())
    beyond = sample > _HIGHEST if padded else deep | (sample > _HIGHEST)
    return float(beyond.double().mean())


def _doubts(low: float, high: float, sample: torch.Tensor) -> list[str]:
    """What is odd about values that may be a CT in HU after all."""
    doubts = []
    if low < _LOWEST or high > _HIGHEST:
        doubts.append("the extremes are taken for padding or metal; if they are not, its scaling is wrong")
    if low > -30:
        doubts.append("nothing is as dark as fat (-100 HU); is it in Hounsfield units?")
    elif low > -500 and float((sample == low).double().mean()) > 0.05:
        doubts.append(f"much of it is {low:g}, as if cut to a window; air can not be told from the body then")
    if float((sample > 500).double().mean()) > 0.25:
        doubts.append("more than a quarter of it is as dense as bone; was the rescale intercept left out?")
    if float((sample > -300).double().mean()) < 0.005:
        doubts.append("hardly anything is denser than air; was the rescale intercept applied twice?")
    return doubts


class HounsfieldWindow(Transform):
    """Map a window of HU linearly to a network's input range and cut off what lies outside.

    Reading: roth2017hierarchical gives no windows. The authors' released code uses [-500, 500] to [0, 1] less the mean
    inside the body for stage 1, and [-2000, 3000] to [-1, 1] for stage 2.

    Deviation: that code stretches the extremes of the clipped volume to the range instead of the window's bounds, so
    that equal tissue differs between a volume with air and one without; the bounds are equal wherever both occur.

    Args:
        window: lowest and highest HU.
        scaled: what these two become.
        centred: subtract the mean inside a mask afterwards.

    Raises:
        InputError: for a window or range that is not two rising numbers.

    >>> HounsfieldWindow((-500, 500), (0, 1))(torch.tensor([-1000.0, 0.0, 250.0])).tolist()
    [0.0, 0.5, 0.75]
    """

    def __init__(self, window: Sequence[float], scaled: Sequence[float] = (0.0, 1.0), centred: bool = False) -> None:
        self.window, self.scaled = _rising(window, "window"), _rising(scaled, "scaled")
        self.centred = parse_flag(centred, "centred")

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> NdarrayOrTensor:
        """Window a volume.

        Args:
            img: C D H W (or B 1 D H W) in HU, any dtype.
            mask: same shape, or 1 in front; where it is not 0 the mean is taken, for each entry of the first axis by
                itself. Needed where `centred`, otherwise without effect. An empty mask subtracts nothing.

        Returns:
            float32 of the same shape, a new array; metadata survive.

        Raises:
            InputError: for a missing mask or one of another shape.
        """
        values = convert_to_tensor(img, track_meta=False)
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()  # below, halves would be computed as halves
        (low, high), (first, last) = self.window, self.scaled
        factor = (last - first) / (high - low)
        result = torch.empty_like(values, dtype=torch.float32, memory_format=torch.contiguous_format)
        offset = torch.tensor(first - low * factor, dtype=torch.float32)
        # one pass reads, converts and scales; a 0-dimensional tensor on the host goes with any device
        torch.add(offset, values, alpha=factor, out=result)
        result.clamp_(first, last)
        if self.centred:
            result -= self._mean(result, mask, img)
        return convert_to_dst_type(result, img, dtype=result.dtype)[0]

    def _mean(self, result: torch.Tensor, mask: NdarrayOrTensor | None, img: NdarrayOrTensor) -> torch.Tensor:
        """Mean inside the mask for each entry of the first axis, shape (C, 1, ...)."""
        shape = None if mask is None else tuple(mask.shape)
        if shape not in (tuple(result.shape), (1, *result.shape[1:])):
            came = f"a mask of shape {shape} came with image {source_of(img, 'in memory')} of {tuple(result.shape)}"
            came = f"no mask came with image {source_of(img, 'in memory')}" if mask is None else came
            rule = "where centred is set, the mean is taken inside a mask of the image's shape"
            raise InputError(problem(came, rule, "make one (common.transforms.BodyMaskd), or set centred to false"))
        inside = convert_to_tensor(mask, track_meta=False).to(result.device)
        axes = tuple(range(1, result.ndim))
        total = torch.zeros(len(result), dtype=torch.float64, device=result.device)
        count = torch.zeros(len(inside), dtype=torch.int64, device=result.device)
        # in slabs: no second volume is needed, and nothing is read back that an accelerator would be waited for
        for part, chosen in zip(result.split(_SLAB, dim=-3), inside.split(_SLAB, dim=-3)):
            chosen = chosen != 0
            total += (part * chosen).sum(axes, dtype=torch.float64)
            count += chosen.sum(axes)
        return (total / count.clamp(min=1)).to(result.dtype).reshape(-1, *(1 for _ in axes))


class HounsfieldWindowd(MapTransform):
    """Dictionary form of :class:`HounsfieldWindow`.

    Args:
        keys: the images.
        window, scaled, centred: see :class:`HounsfieldWindow`.
        mask_key: entry with the mask; needed where `centred`, otherwise not looked at.
        allow_missing_keys: do not raise when an image is missing.

    Raises:
        InputError: see :class:`HounsfieldWindow`; also where `centred` comes without `mask_key`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        window: Sequence[float],
        scaled: Sequence[float] = (0.0, 1.0),
        centred: bool = False,
        mask_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.windowed = HounsfieldWindow(window, scaled, centred)
        self.mask_key = mask_key
        if self.windowed.centred and mask_key is None:
            rule = "the mean is taken inside a mask"
            raise InputError(problem("centred was given without mask_key", rule, "name the mask's entry, such as body"))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Window the images."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.windowed(data[key], data[self.mask_key] if self.windowed.centred else None)
        return result


def _rising(pair: Sequence[float], name: str) -> tuple[float, float]:
    values = tuple(float(value) for value in pair)
    if len(values) != 2 or not values[0] < values[1]:
        rule = "it must be two numbers, the lower one first"
        raise InputError(problem(f"{name} {values} was given", rule, f"change {name}, for instance to (-500, 500)"))
    return values
