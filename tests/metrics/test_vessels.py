"""Scores of vessels against loops over voxels, and by hand where something is empty."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.checks import InputError
from common.metrics.vessels import VESSEL_METRICS, soft_dice_loss, vessel_scores

OVERLAPS = ("mean_accuracy", "mean_iou", "dice")


def volumes(seed, shape=(6, 7, 5), classes=3, filled=0.4):
    rng = np.random.default_rng(seed)
    pred, label = (rng.integers(1, classes + 1, shape) * (rng.random(shape) < filled) for _ in range(2))
    return torch.from_numpy(pred)[None], torch.from_numpy(label)[None]


def counted(pred, label, k):
    """TP, FP, FN, TN by a loop."""
    found = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for place in itertools.product(*map(range, label.shape[1:])):
        found[bool(pred[0][place] == k), bool(label[0][place] == k)] += 1
    return found[True, True], found[True, False], found[False, True], found[False, False]


@pytest.mark.parametrize("seed", range(4))
def test_overlap_is_that_of_the_paper(seed):
    pred, label = volumes(seed)
    for k, row in zip((1, 3), vessel_scores(pred, label, [1, 3]), strict=True):
        tp, fp, fn, tn = counted(pred, label, k)
        assert min(tp, fp, fn, tn) > 0
        assert row["mean_accuracy"] == pytest.approx((tn / (tn + fp) + tp / (tp + fn)) / 2)
        assert row["mean_iou"] == pytest.approx((tn / (tn + fp + fn) + tp / (tp + fn + fp)) / 2)
        assert row["dice"] == pytest.approx(2 * tp / (2 * tp + fn + fp))
        assert (row["pred_voxels"], row["label_voxels"], row["status"]) == (tp + fp, tp + fn, "scored")
        assert math.isnan(row["dice_loss"])
        parts = [ndimage.label(volume[0].numpy() == k, np.ones((3, 3, 3)))[1] for volume in (pred, label)]
        assert [row["pred_components"], row["label_components"]] == parts
        assert row["betti0_error"] == abs(parts[0] - parts[1])


def test_the_loss_is_of_the_class_of_its_channel():
    pred, label = volumes(0, classes=2)
    probability = torch.rand(2, *label.shape[1:], generator=torch.Generator().manual_seed(0))
    rows = vessel_scores(pred, label, [2, 1], probability)
    for k, row in zip((2, 1), rows, strict=True):
        both = total = 0.0
        for place in itertools.product(*map(range, label.shape[1:])):
            p, y = float(probability[k - 1][place]), float(label[0][place] == k)
            both, total = both + p * y, total + p + y
        assert row["dice_loss"] == pytest.approx(1 - 2 * both / total, rel=1e-6)


def test_the_loss_of_a_mask_is_one_less_dice():
    pred, label = volumes(1, classes=1)
    for dtype in (torch.float16, torch.float32, torch.uint8):
        (row,) = vessel_scores(pred, label, [1], (pred == 1).to(dtype))
        assert row["dice_loss"] == pytest.approx(1 - row["dice"])
    # more voxels than a sum in half precision could hold
    assert soft_dice_loss(torch.ones(100_000, dtype=torch.float16), torch.ones(100_000)) == 0.0


def tubes():
    """Three tubes of 3 x 3 x 20 voxels along the last axis, in a volume each by itself."""
    found = torch.zeros(3, 24, 24, 24, dtype=torch.uint8)
    for number, start in enumerate((2, 9, 16)):
        found[number, start : start + 3, start : start + 3, 2:22] = 1
    return found


def test_centre_lines():
    first, second, third = tubes()
    (same,) = vessel_scores(first[None], first[None], [1])
    assert same["cldice"] == same["topology_precision"] == same["topology_sensitivity"] == 1.0
    # one of two tubes is found, and one that is none: half of each centre line is right
    (row,) = vessel_scores((first | third)[None], (first | second)[None], [1])
    assert row["topology_precision"] == row["topology_sensitivity"] == row["cldice"] == 0.5
    assert row["betti0_error"] == 0
    # all of the centre line of a thin prediction lies in the tube, and the tube's lies in a thick one
    thin = torch.zeros_like(first)
    thin[3, 3, 2:22] = 1
    (row,) = vessel_scores(thin[None], first[None], [1])
    assert row["cldice"] == 1.0 and row["dice"] == pytest.approx(2 * 20 / (20 + 180))
    # two of three: precision 1, sensitivity 2 / 3
    (row,) = vessel_scores((first | second)[None], (first | second | third)[None], [1])
    assert (row["topology_precision"], row["topology_sensitivity"]) == (1.0, pytest.approx(2 / 3))
    assert row["cldice"] == pytest.approx(0.8) and row["betti0_error"] == 1


def test_a_gap_costs_connection_more_than_overlap():
    whole = tubes()[0]
    broken = whole.clone()
    broken[:, :, 11:13] = 0
    (row,) = vessel_scores(broken[None], whole[None], [1])
    assert row["dice"] > 0.9 and (row["pred_components"], row["betti0_error"]) == (2, 1)
    corner = torch.zeros(1, 1, 2, 2)
    corner[0, 0, 0, 0] = corner[0, 0, 1, 1] = 1
    assert vessel_scores(corner, corner, [1])[0]["label_components"] == 1  # they touch at an edge


@pytest.mark.parametrize(
    ("pred", "label", "wanted"),
    [
        ("...", "...", {"status": "absent"}),
        # recall of the background 1, of the vessel 0; the background's IoU is 2 / 3
        ("...", "#..", {"status": "missed", "mean_accuracy": 1 / 2, "mean_iou": 1 / 3, "betti0_error": 1}),
        ("#..", "...", {"status": "false find", "mean_accuracy": 1 / 3, "mean_iou": 1 / 3, "betti0_error": 1}),
        # no background: found so, and not
        ("###", "###", {"status": "scored", "mean_accuracy": 1, "mean_iou": 1, "dice": 1, "cldice": 1}),
        ("##.", "###", {"status": "scored", "mean_accuracy": 1 / 3, "mean_iou": 1 / 3, "dice": 0.8}),
        ("###", "...", {"status": "false find", "mean_accuracy": 0, "mean_iou": 0}),
        ("...", "###", {"status": "missed", "mean_accuracy": 0, "mean_iou": 0}),
    ],
)
def test_what_is_empty(pred, label, wanted):
    pred, label = (torch.tensor([[[[mark == "#" for mark in text]]]]).int() for text in (pred, label))
    (row,) = vessel_scores(pred, label, [1], probability=torch.full((1, 1, 1, 3), 0.25))
    assert {name: row[name] for name in wanted} == {
        name: value if isinstance(value, str) else pytest.approx(value) for name, value in wanted.items()
    }
    if row["status"] == "absent":
        assert all(math.isnan(row[name]) for name in VESSEL_METRICS)
    else:
        assert all(math.isfinite(row[name]) for name in VESSEL_METRICS)
    if row["status"] in ("missed", "false find"):
        assert all(row[name] == 0 for name in ("dice", "cldice", "topology_precision", "topology_sensitivity"))


def test_a_soft_loss_of_nothing_is_undefined():
    assert math.isnan(soft_dice_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)))


def test_scores_do_not_depend_on_what_lies_around():
    """Masks are cropped to the box around them; only the background grows with the volume."""
    pred, label = volumes(2, classes=1, filled=0.5)
    (small,) = vessel_scores(pred, label, [1])
    around = (1, 1, 2, 3, 4, 0)
    (large,) = vessel_scores(*(torch.nn.functional.pad(volume, around) for volume in (pred, label)), [1])
    for name in ("dice", "cldice", "betti0_error", "pred_components", "label_components"):
        assert large[name] == small[name]
    assert large["mean_iou"] > small["mean_iou"]


def test_what_does_not_fit_is_refused():
    pred, label = volumes(0)
    with pytest.raises(InputError, match="prediction and reference have 2 channels: scores of vessels are of class"):
        vessel_scores(torch.cat((pred, pred)), torch.cat((label, label)), [1])
    with pytest.raises(InputError, match=r"prediction \(1, 6, 7, 5\) against reference \(1, 6, 7, 4\)"):
        vessel_scores(pred, label[..., :4], [1])
    with pytest.raises(InputError, match=r"probability \(1, 6, 7, 5\) .*classes \[1, 2\]: each class from 1 on has"):
        vessel_scores(pred, label, [1, 2], torch.zeros(1, 6, 7, 5))
    with pytest.raises(InputError, match=r"probability \(1, 6, 7, 4\) against .*bring the probability to the grid"):
        vessel_scores(pred, label, [1], torch.zeros(1, 6, 7, 4))
