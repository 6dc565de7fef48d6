from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from common.metrics.paired import paired_difference


@pytest.mark.parametrize("pairs", [2, 3, 12])
def test_the_interval_is_that_of_the_paired_t_test(pairs):
    random = np.random.default_rng(pairs)
    values, others = random.random((2, pairs))
    interval = stats.ttest_rel(values, others).confidence_interval(0.95)
    found = paired_difference(values, others)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx((values - others).mean()) and found.pairs == pairs


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [paired_difference(random.normal(0.3, 1, 4), np.zeros(4)) for _ in range(1000)]
    assert 0.93 < np.mean([one.low < 0.3 < one.high for one in found]) < 0.97


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ([0.3, 0.31, 0.29], 0.02, "better"),
        ([-0.3, -0.31, -0.29], 0.02, "worse"),
        ([0.01, 0.011, 0.012], 0.02, "as good"),  # better, but by what does not matter
        ([0.01, 0.011, 0.012], 0.0, "better"),
        ([0.3, -0.3, 0.1], 0.02, "undecided"),
        ([0.3], 0.02, "undecided"),
        ([], 0.02, "undecided"),
        ([0.0, 0.0], 0.0, "as good"),
    ],
)
def test_verdicts(values, margin, verdict):
    assert paired_difference(values, [0.0] * len(values), margin).verdict == verdict


def test_pairs_without_a_value_are_left_out():
    found = paired_difference([0.1, math.nan, 0.3], [0.0, 0.5, 0.1])
    assert found.pairs == 2 and found.mean == pytest.approx(0.15)
