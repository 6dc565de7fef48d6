"""Lesions counted and matched, against a search through all pairings."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.metrics.lesions import detection, lesion_counts


def line(text):
    """A mask along the last axis: ``"##.#"`` is inside, inside, outside, inside."""
    return torch.tensor([mark == "#" for mark in text])[None, None]


def most_pairs(found, true, threshold):
    """The largest number of one-to-one pairs with an IoU above the threshold, by trying every choice of pairs."""
    (ours, count), (theirs, total) = (ndimage.label(mask.numpy()) for mask in (found, true))
    pairs = []
    for i, j in itertools.product(range(1, count + 1), range(1, total + 1)):
        first, second = ours == i, theirs == j
        if (first & second).sum() / (first | second).sum() > threshold:
            pairs.append((i, j))
    best = 0
    for number in range(1, min(count, total) + 1):
        for chosen in itertools.combinations(pairs, number):
            if all(len(set(side)) == number for side in zip(*chosen)):
                best = number
    return total, count, best


@pytest.mark.parametrize(
    ("true", "found", "counts"),
    [
        ("##..##", "##..##", (2, 2, (2, 2))),
        ("##..##", "######", (2, 1, (1, 0))),  # one predicted lesion over two: one of them is found
        ("######", "##.###", (1, 2, (1, 0))),  # and the other way round; 3 / 6 is not above a half
        ("######", "##.#..", (1, 2, (1, 0))),
        ("#######", "####.##", (1, 2, (1, 1))),
        ("##....", "....##", (1, 1, (0, 0))),
        ("......", "##...#", (0, 2, (0, 0))),
        ("##...#", "......", (2, 0, (0, 0))),
        ("......", "......", (0, 0, (0, 0))),
        ("####.#", "#.####", (2, 2, (2, 0))),  # the large pair is given up for two pairs
    ],
)
def test_counts_on_a_line(true, found, counts):
    assert tuple(lesion_counts(line(found), line(true))) == counts


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5])
def test_matching_is_the_best_of_all_pairings(seed):
    generator = torch.Generator().manual_seed(seed)
    found, true = (torch.rand(3, 5, 6, generator=generator) < 0.22 for _ in range(2))
    true |= found & (torch.rand(3, 5, 6, generator=generator) < 0.6)
    thresholds = (0.0, 0.2, 0.5)
    counts = lesion_counts(found, true, thresholds)
    for threshold, matched in zip(thresholds, counts.matched, strict=True):
        assert (counts.reference, counts.predicted, matched) == most_pairs(found, true, threshold)
    assert counts.matched[0] >= 3  # there was something to match


def test_numbers_of_components_may_be_large():
    """300 lesions by 300: the codes of pairs are beyond what the maps of components hold in 16 bits."""
    true = torch.zeros(2, 60, 80, dtype=torch.bool)
    true[0, ::4, ::4] = True
    assert lesion_counts(true, true) == (300, 300, (300, 300))


@pytest.mark.parametrize(("connectivity", "lesions"), [(1, 2), (2, 1)])
def test_lesions_that_touch_at_an_edge(connectivity, lesions):
    mask = torch.zeros(4, 6, 6, dtype=torch.bool)
    mask[1:3, 1:3, 1:3] = mask[1:3, 3:5, 3:5] = True
    assert lesion_counts(mask, mask, connectivity=connectivity).reference == lesions


def test_touching_lesions_are_one():
    """Two lesions that share a face can not be told apart in a map of labels: one in the reference, one found."""
    mask = torch.zeros(4, 6, 8, dtype=torch.bool)
    mask[1:3, 1:3, 1:4] = mask[1:3, 2:4, 4:7] = True
    part = mask.clone()
    part[..., 4:] = False
    assert lesion_counts(mask, mask) == (1, 1, (1, 1))
    assert lesion_counts(part, mask) == (1, 1, (1, 0))


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ((4, 3, 2), (2 / 3, 0.5, 4 / 7)),
        ((0, 3, 0), (0.0, None, 0.0)),
        ((4, 0, 0), (None, 0.0, 0.0)),
        ((0, 0, 0), (None, None, None)),
    ],
)
def test_detection(counts, wanted):
    found = detection(*counts)
    assert [value is None for value in found] == [value is None for value in wanted]
    assert all(one is None or math.isclose(one, other) for one, other in zip(found, wanted))
    assert not any(isinstance(value, np.generic) for value in found)


@pytest.mark.gpu
def test_counts_on_a_device():
    mask = line("##..##.#")
    assert lesion_counts(mask.cuda(), line("######.#").cuda()) == lesion_counts(mask, line("######.#"))
