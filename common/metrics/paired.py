"""Whether one way does better than another, from runs of both that share all else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.utils import optional_import

student, _ = optional_import("scipy.stats", name="t")

__all__ = ["PairedDifference", "paired_difference"]


@dataclass(frozen=True)
class PairedDifference:
    """Mean of paired differences, with the interval that has its true value in 95 of 100 such experiments.

    Args:
        mean: of the differences.
        low: lower end of the interval; NaN for fewer than two pairs.
        high: upper end of the interval.
        pairs: number of pairs.
        margin: differences up to this do not matter.
    """

    mean: float
    low: float
    high: float
    pairs: int
    margin: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``as good`` (the whole interval within the margin) or ``undecided``."""
        if math.isnan(self.low):
            return "undecided"
        if -self.margin <= self.low and self.high <= self.margin:
            return "as good"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "undecided"


def paired_difference(
    values: Sequence[float], others: Sequence[float], margin: float = 0.0, confidence: float = 0.95
) -> PairedDifference:
    """Mean of `values` less `others`, pair by pair, with Student's interval (student1908probable).

    With a handful of pairs a bootstrap interval is too narrow, since it can not reach beyond what was seen; Student's,
    which takes differences for normally distributed, is wide then, as it must be.

    Args:
        values: scores of one way.
        others: scores of the other on the same cases, in the same order; pairs with NaN are left out.
        margin: differences up to this do not matter, from 0 on.
        confidence: coverage aimed at.

    >>> paired_difference([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]).verdict
    'better'
    """
    differences = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    differences = differences[np.isfinite(differences)]
    number = len(differences)
    mean = float(differences.mean()) if number else math.nan
    if number < 2:
        return PairedDifference(mean, math.nan, math.nan, number, margin)
    half = float(student.ppf((1 + confidence) / 2, number - 1) * differences.std(ddof=1) / math.sqrt(number))
    return PairedDifference(mean, mean - half, mean + half, number, margin)
