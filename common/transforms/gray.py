"""Grey values changed by a random smooth rising curve."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.interpolate import PchipInterpolator

from ..checks import InputError, problem

__all__ = ["RandGrayCurve", "RandGrayCurved"]

_TABLE = 512  # straight pieces the curve is drawn with


class RandGrayCurve(RandomizableTransform):
    """Map grey values in [0, 1] through a random smooth curve that never falls.

    cicek2016unet3d section 3 "Training" (grey value augmentation); ranges and construction after the authors' released
    layers, the paper gives none: black and white are drawn first, then the curve is halved again and again, each new
    point drawn uniformly among the heights that keep the slope on both its sides within `slope`.

    MONAI's ``RandHistogramShift`` also draws control points, but it pins the darkest and brightest value of each
    patch, so that black and white never move and the same tissue changes with what else is in the patch; its slopes
    are not bounded and its curve has corners; and all channels share one curve.

    Deviation: a monotone cubic joins the points (the layers smooth straight lines by a Gaussian), and values outside
    [0, 1] follow the curve's straight continuation (the layers cut them off).

    Args:
        prob: share of the calls that change anything.
        black: range of what 0 is mapped to.
        white: range of what 1 is mapped to.
        slope: range of the slope between neighbouring control points.
        control_points: their number, ends included: 2, 3, 5, 9, 17, ...
        per_channel: draw a curve for each channel, as the authors do; otherwise all channels share one.

    Raises:
        InputError: for ranges the wrong way round, slopes that no curve from black to white can keep, or a number of
            control points that halving does not give.
    """

    def __init__(
        self,
        prob: float = 1.0,
        black: Sequence[float] = (-0.02, 0.02),
        white: Sequence[float] = (0.9, 1.1),
        slope: Sequence[float] = (0.7, 1.3),
        control_points: int = 9,
        per_channel: bool = True,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        self.black, self.white, self.slope = (tuple(float(v) for v in pair) for pair in (black, white, slope))
        self.control_points, self.per_channel = int(control_points), bool(per_channel)
        for name, pair in (("black", self.black), ("white", self.white), ("slope", self.slope)):
            if len(pair) != 2 or pair[0] > pair[1]:
                raise InputError(
                    problem(f"{name} {pair} was given", "it must be two numbers, the lower one first", f"change {name}")
                )
        rises = (self.white[0] - self.black[1], self.white[1] - self.black[0])
        if self.slope[0] < 0 or rises[0] < self.slope[0] or rises[1] > self.slope[1]:
            raise InputError(
                problem(
                    f"slope {self.slope} was given with black {self.black} and white {self.white}",
                    f"it must not be negative and must span every rise from black to white, {rises[0]:g} to "
                    f"{rises[1]:g}",
                    "widen slope or narrow the other two",
                )
            )
        pieces = self.control_points - 1
        if pieces < 1 or pieces & (pieces - 1):
            raise InputError(
                problem(
                    f"control_points {self.control_points} was given",
                    "it must be 2, 3, 5, 9, 17, ...",
                    "take one of these",
                )
            )
        self.curves: np.ndarray | None = None

    def randomize(self, channels: int) -> None:
        """Draw whether to act, and the heights of the control points: (channels or 1, control_points)."""
        super().randomize(None)
        if self._do_transform:
            self.curves = np.stack([self._curve() for _ in range(channels if self.per_channel else 1)])

    def _curve(self) -> np.ndarray:
        heights = np.array([self.R.uniform(*self.black), self.R.uniform(*self.white)])
        while len(heights) < self.control_points:
            low, high = self.slope[0] / len(heights[1:]) / 2, self.slope[1] / len(heights[1:]) / 2
            left, right = heights[:-1], heights[1:]
            # both limits hold at once wherever the slope of the whole piece lies within them
            between = self.R.uniform(np.maximum(left + low, right - high), np.minimum(left + high, right - low))
            finer = np.empty(2 * len(heights) - 1)
            finer[::2], finer[1::2] = heights, between
            heights = finer
        return heights

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Change `img`, shape (C, spatial axes), floating values; returns the same shape and type."""
        if randomize:
            self.randomize(len(img))
        if not self._do_transform:
            return img
        values = convert_to_tensor(img, track_meta=False)
        if not values.is_floating_point():
            raise InputError(
                problem(
                    f"the image has type {values.dtype}",
                    "grey values must be floating, 0 to 1",
                    "scale the intensities first, for instance by ScaleIntensityRangePercentilesd",
                )
            )
        if self.per_channel and len(self.curves) < len(values):
            raise InputError(
                problem(
                    f"the image has {len(values)} channels, curves were drawn for {len(self.curves)}",
                    "each channel needs its curve",
                    "use one transform for each of these images",
                )
            )
        out = torch.empty_like(values)
        for channel in range(len(values)):
            curve = self.curves[channel if self.per_channel else 0]
            _apply(values[channel], curve, out[channel])
        return convert_to_dst_type(out, dst=img)[0]


def _apply(values: torch.Tensor, heights: np.ndarray, out: torch.Tensor) -> None:
    """Write the curve's values to `out`: straight between the entries of a fine table, and beyond its ends."""
    knots = np.linspace(0.0, 1.0, _TABLE + 1)
    table = PchipInterpolator(np.linspace(0.0, 1.0, len(heights)), heights)(knots)
    slopes = np.diff(table) * _TABLE
    # value = intercept + slope * grey value, so that two look-ups and one product are all that a voxel costs
    intercepts = torch.from_numpy(table[:-1] - slopes * knots[:-1]).to(values)
    piece = (values * _TABLE).clamp_(0, _TABLE - 1).long()
    torch.mul(torch.from_numpy(slopes).to(values)[piece], values, out=out)
    out += intercepts[piece]


class RandGrayCurved(RandomizableTransform, MapTransform):
    """Dictionary form of :class:`RandGrayCurve`; all keys of a case go through the same curves.

    cicek2016unet3d section 3 "Training" (grey value augmentation).

    Args:
        keys: images of shape (C, spatial axes), floating values in [0, 1].
        prob, black, white, slope, control_points, per_channel: see :class:`RandGrayCurve`.
        allow_missing_keys: pass over keys that a case does not have.

    Raises:
        InputError: see :class:`RandGrayCurve`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        black: Sequence[float] = (-0.02, 0.02),
        white: Sequence[float] = (0.9, 1.1),
        slope: Sequence[float] = (0.7, 1.3),
        control_points: int = 9,
        per_channel: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.curve = RandGrayCurve(1.0, black, white, slope, control_points, per_channel)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandGrayCurved:
        """Seed this transform."""
        super().set_random_state(seed, state)
        self.curve.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, Any]:
        """Change every key's image."""
        changed = dict(data)
        images = {key: changed[key] for key in self.key_iterator(changed)}
        self.randomize(None)
        if self._do_transform and images:
            self.curve.randomize(max(len(image) for image in images.values()))
            for key, image in images.items():
                changed[key] = self.curve(image, randomize=False)
        return changed
