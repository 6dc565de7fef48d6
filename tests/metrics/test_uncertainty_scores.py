"""How well uncertainty tells errors: against all pairs, all orders of ties, and scipy's rank test."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.stats import mannwhitneyu

from common.checks import InputError
from common.metrics import uncertainty_scores, uncertainty_text


def drawn(seed: int, voxels: int = 60, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainty of a few values, so that many voxels share one, and errors that it tells somewhat."""
    rng = np.random.default_rng(seed)
    unsure = rng.integers(0, steps, voxels) / steps
    return unsure.astype(np.float32), rng.random(voxels) < 0.1 + 0.5 * unsure


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_area_is_the_share_of_pairs_in_order(seed):
    unsure, wrong = drawn(seed)
    pairs = [(a > b) + 0.5 * (a == b) for a in unsure[wrong] for b in unsure[~wrong]]
    scores = uncertainty_scores(unsure, wrong)
    assert scores["auroc"] == pytest.approx(np.mean(pairs), abs=1e-12)
    ranks = mannwhitneyu(unsure[wrong], unsure[~wrong]).statistic
    assert scores["auroc"] == pytest.approx(ranks / wrong.sum() / (~wrong).sum(), abs=1e-12)
    assert (scores["voxels"], scores["errors"]) == (60, wrong.sum())


@pytest.mark.parametrize("share", [1 / 7, 2 / 7, 3 / 7, 6 / 7, 1.0])
@pytest.mark.parametrize("unsure", [[1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 1, 1, 1, 2], [3, 3, 3, 3, 3, 3, 3]])
def test_errors_found_are_the_mean_over_all_orders_of_what_is_as_certain(unsure, share):
    wrong = np.array([True, False, False, True, True, False, True])
    look = round(share * 7)
    found = []
    for order in itertools.permutations(range(7)):
        if all(unsure[a] >= unsure[b] for a, b in zip(order, order[1:])):
            found.append(wrong[list(order[:look])].sum() / 4)
    scores = uncertainty_scores(torch.tensor(unsure), wrong, share)
    assert scores["errors_found"] == pytest.approx(np.mean(found))
    assert scores["errors_found_at_best"] == min(1, look / 4) and scores["looked_at"] == share


def test_perfect_reversed_and_blind():
    wrong = torch.zeros(100, dtype=torch.bool)
    wrong[:5] = True
    told = wrong.float() + torch.rand(100, generator=torch.Generator().manual_seed(0)) / 2
    best, worst, blind = (uncertainty_scores(one, wrong) for one in (told, -told, torch.full((100,), 0.3)))
    assert best["auroc"] == best["errors_found"] == best["errors_found_at_best"] == 1.0
    assert worst["auroc"] == worst["errors_found"] == 0.0
    assert (blind["auroc"], blind["errors_found"]) == (0.5, pytest.approx(0.1))


def test_a_part_of_a_voxel_counts_as_a_part():
    """A tenth of 15 voxels is one and a half: the second one counts half."""
    wrong = torch.zeros(15, dtype=torch.bool)
    wrong[1] = True
    assert uncertainty_scores(-torch.arange(15.0), wrong)["errors_found"] == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [lambda u: 1000 * u - 3, lambda u: u**3, np.exp])
def test_its_order_alone_counts(scale):
    unsure, wrong = drawn(3)
    assert uncertainty_scores(scale(unsure.astype(float)), wrong) == uncertainty_scores(unsure, wrong)


def test_neither_form_nor_order_of_the_voxels_counts():
    unsure, wrong = drawn(4)
    expected = uncertainty_scores(unsure, wrong)
    order = np.random.default_rng(0).permutation(60)
    assert uncertainty_scores(unsure[order], wrong[order]) == expected
    volume = MetaTensor(torch.from_numpy(unsure).reshape(1, 3, 4, 5))
    assert uncertainty_scores(volume, wrong.reshape(1, 3, 4, 5)) == expected
    assert uncertainty_scores(torch.from_numpy(unsure).double(), torch.from_numpy(wrong)) == expected
    assert json.loads(json.dumps(expected)) == expected


def test_large_numbers_of_voxels_are_counted_exactly():
    """More pairs than single precision tells apart."""
    unsure, wrong = drawn(6, 300_001, 1000)
    scores = uncertainty_scores(unsure, wrong, 1 / 3)
    precise = unsure.astype(float)
    expected = mannwhitneyu(precise[wrong], precise[~wrong]).statistic / wrong.sum() / (~wrong).sum()
    assert scores["auroc"] == pytest.approx(expected, abs=1e-13)
    errors = wrong[np.argsort(-unsure, kind="stable")]
    # ties at the edge, here a thousandth of the voxels, count in proportion
    assert scores["errors_found"] == pytest.approx(errors[:100_000].mean() * 100_000 / wrong.sum(), abs=1e-3)


def test_what_is_not_defined_is_none():
    none = uncertainty_scores(np.ones(4), np.zeros(4, bool))
    assert (none["auroc"], none["errors_found"], none["errors_found_at_best"]) == (None, None, None)
    every = uncertainty_scores(np.ones(4), np.ones(4, bool))
    assert (every["auroc"], every["errors_found"], every["errors_found_at_best"]) == (None, 0.1, 0.1)
    empty = uncertainty_scores(np.ones(0), np.zeros(0, bool))
    assert (empty["voxels"], empty["errors"], empty["auroc"]) == (0, 0, None)


def test_in_words():
    unsure, wrong = np.arange(20.0), np.arange(20) > 15
    assert uncertainty_text(uncertainty_scores(unsure, wrong)) == (
        "4 of 20 voxels (20.0%) are wrong. The least certain 10% of the voxels hold 50% of the errors (50% at best, "
        "10% by chance); a wrong voxel is less certain than a right one in 100% of all pairs (50% by chance)."
    )
    assert "No right one is left" in uncertainty_text(uncertainty_scores(unsure, unsure > -1))
    assert uncertainty_text(uncertainty_scores(unsure, unsure > 20)).startswith("None of 20 voxels is wrong")


@pytest.mark.gpu
def test_gpu_agrees():
    unsure, wrong = map(torch.from_numpy, drawn(5))
    assert uncertainty_scores(unsure.cuda(), wrong.cuda()) == uncertainty_scores(unsure, wrong)


@pytest.mark.parametrize(
    ("unsure", "wrong", "share", "text"),
    [
        (
            np.ones((2, 3)),
            np.ones(6, bool),
            0.1,
            r"shape \(2, 3\) and errors of shape \(6,\): both must be of the same",
        ),
        (np.ones(3), np.ones(3), 0.1, "wrong is float64: it must be true or false"),
        (np.array([1.0, np.nan]), np.ones(2, bool), 0.1, "not finite everywhere.*leave such voxels out"),
        (np.ones(3), np.ones(3, bool), 0, "share is 0: it must be above 0"),
        (np.ones(3), np.ones(3, bool), 1.5, "share is 1.5"),
    ],
)
def test_wrong_input_is_named(unsure, wrong, share, text):
    with pytest.raises(InputError, match=text):
        uncertainty_scores(unsure, wrong, share)
