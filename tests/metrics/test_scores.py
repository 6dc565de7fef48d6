"""Scores against values worked out by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou, compute_surface_dice

from common.checks import InputError
from common.metrics.scores import METRICS, case_scores, region_recall
from common.transforms.one_hot import LabelledOneHot


def box(low, high, shape=(16, 16, 16)):
    volume = torch.zeros(shape, dtype=torch.bool)
    volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return volume


def two_classes(mask):
    return torch.stack((~mask, mask))


# A cube of 6 voxels a side has 6^3 - 4^3 = 152 surface voxels. Shifted by one voxel, the far face (36 voxels) lies one
# step off, and of the near face the inner 4 x 4 lie inside the other cube: one step from its face, or 1 (12 voxels) and
# 2 (4 voxels) lateral voxels from its sides, whichever is nearer; all else coincides.
CUBE = box((4, 4, 4), (10, 10, 10))
SHIFTED = box((4, 4, 5), (10, 10, 11))


@pytest.mark.parametrize(
    "spacing, assd, hd95",
    [
        ((1.0, 1.0, 1.0), (36 * 1 + 16 * 1) / 152, 1.0),
        ((1.0, 1.0, 3.0), (36 * 3 + 12 * 1 + 4 * 2) / 152, 3.0),
        ((2.0, 2.0, 1.0), (36 * 1 + 16 * 1) / 152, 1.0),
        ((1, 1, 3.0), (36 * 3 + 12 * 1 + 4 * 2) / 152, 3.0),
    ],
)
def test_shifted_cube_in_mm(spacing, assd, hd95):
    scores = case_scores(two_classes(SHIFTED), two_classes(CUBE), spacing)[1]
    assert scores["dice"] == pytest.approx(5 / 6)
    assert scores["iou"] == pytest.approx(5 / 7)
    assert scores["assd_mm"] == pytest.approx(assd)
    assert scores["hd95_mm"] == pytest.approx(hd95)
    assert (scores["pred_voxels"], scores["label_voxels"], scores["status"]) == (216, 216, "scored")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scores_follow_the_axis_that_is_coarse(axis):
    """The same shift along any axis, with the spacing turned along, gives the same distances."""
    order = [2, 2, 2]
    order[axis], order[2] = 2, axis
    swap = lambda volume: volume.transpose(axis, 2)  # noqa: E731
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 3.0
    scores = case_scores(two_classes(swap(SHIFTED)), two_classes(swap(CUBE)), spacing)[1]
    assert scores["assd_mm"] == pytest.approx(128 / 152)


@pytest.mark.parametrize("tolerance, all_met", [(2.9, False), (3.0, True)])
def test_nsd_tolerance_is_in_mm(tolerance, all_met):
    scores = case_scores(two_classes(SHIFTED), two_classes(CUBE), (1.0, 1.0, 3.0), nsd_tolerance=tolerance)[1]
    assert (scores["nsd"] == pytest.approx(1.0)) == all_met
    # 36 of 216 mm^2 of each cube's faces are the far face, so what is unmet stays below that share and its rim
    assert scores["nsd"] > 1 - 2 * 36 / 216


def test_nsd_weighs_surface_by_area():
    """A plate of 12 x 12 voxels whose one broad face is 2 mm off: the unmet part grows with the in-plane voxel size."""
    plate, thicker = box((2, 2, 4), (14, 14, 6)), box((2, 2, 4), (14, 14, 8))
    fine = case_scores(two_classes(thicker), two_classes(plate), (0.25, 0.25, 1.0))[1]["nsd"]
    coarse = case_scores(two_classes(thicker), two_classes(plate), (4.0, 4.0, 1.0))[1]["nsd"]
    assert coarse == pytest.approx(0.5, abs=0.08)
    assert fine > coarse + 0.05


def test_identical():
    scores = case_scores(two_classes(CUBE), two_classes(CUBE), (0.7, 0.7, 5.0))
    for row in scores:
        assert [row[name] for name in METRICS] == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "pred, label, status, overlap",
    [
        (False, False, "absent", math.nan),
        (True, False, "false find", 0.0),
        (False, True, "missed", 0.0),
    ],
)
def test_empty_classes(pred, label, status, overlap):
    empty = torch.zeros_like(CUBE)
    row = case_scores(two_classes(CUBE if pred else empty), two_classes(CUBE if label else empty), (1, 1, 1))[1]
    assert row["status"] == status
    assert [row[name] for name in METRICS] == pytest.approx([overlap] * 3 + [math.nan] * 2, nan_ok=True)


def test_unlabelled_voxels_never_count():
    """Whatever is predicted where nothing is labelled, overlap is that of the labelled slice; no surface."""
    generator = torch.Generator().manual_seed(0)
    pred, label = (torch.randint(0, 3, (9, 8, 7), generator=generator) for _ in range(2))
    labelled = torch.zeros(9, 8, 7, dtype=torch.bool)
    labelled[4] = True
    one_hot = [torch.stack([(volume == k) & labelled for k in range(3)]) for volume in (pred, label)]
    for k, row in enumerate(case_scores(*one_hot, (1, 1, 1))):
        found, true = pred[4] == k, label[4] == k
        both, either = (found & true).sum().item(), (found | true).sum().item()
        assert row["iou"] == pytest.approx(both / either)
        assert row["dice"] == pytest.approx(2 * both / (found.sum() + true.sum()).item())
        assert all(np.isnan(row[name]) for name in ("nsd", "hd95_mm", "assd_mm"))


def test_surface_left_out_where_it_means_nothing():
    rows = case_scores(two_classes(SHIFTED), two_classes(CUBE), (1, 1, 1), without_surface=(0,))
    assert math.isnan(rows[0]["assd_mm"]) and rows[0]["dice"] > 0.9 and rows[1]["assd_mm"] > 0


def test_float_and_byte_inputs_agree():
    wanted = case_scores(two_classes(SHIFTED), two_classes(CUBE), (1, 1, 3))
    for dtype in (torch.uint8, torch.float32):
        assert case_scores(two_classes(SHIFTED).to(dtype), two_classes(CUBE).to(dtype), (1, 1, 3)) == wanted


def test_refusals():
    with pytest.raises(
        InputError, match=r"prediction \(2, 16, 16, 16\) against reference \(1, 16, 16, 16\).*LabelledOneHotd"
    ):
        case_scores(two_classes(CUBE), CUBE[None], (1, 1, 1))
    with pytest.raises(InputError, match="three positive lengths in mm"):
        case_scores(two_classes(CUBE), two_classes(CUBE), (1, 1, 0))
    with pytest.raises(InputError, match="one channel: class indices do not tell how many classes.*pass classes"):
        case_scores(CUBE[None], CUBE[None], (1, 1, 1))
    with pytest.raises(InputError, match=r"classes are \[0, 2\]: the channels are 0 to 1"):
        case_scores(two_classes(CUBE), two_classes(CUBE), (1, 1, 1), classes=[0, 2])
    with pytest.raises(InputError, match=r"\(1, 16, 16, 16\) against reference \(1, 16, 16, 8\)"):
        region_recall(CUBE[None], CUBE[None, ..., :8], [1])


def organs(seed, shape=(17, 12, 9), count=6):
    """Class indices of overlapping boxes, some of them at the border, some one voxel thick; class 5 is nowhere."""
    generator = np.random.default_rng(seed)
    volume = np.zeros(shape, dtype=np.uint8)
    for k in range(1, count - 1):
        low = [int(generator.integers(0, size - 2)) for size in shape]
        high = [int(generator.integers(a + 1, size + 1)) for a, size in zip(low, shape, strict=True)]
        volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = k
    return torch.from_numpy(volume)[None]


def assert_same(found, wanted):
    assert [row["status"] for row in found] == [row["status"] for row in wanted]
    for name in (*METRICS, "pred_voxels", "label_voxels"):
        assert [row[name] for row in found] == pytest.approx([row[name] for row in wanted], nan_ok=True), name


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("unlabelled", [False, True])
def test_class_indices_are_scored_as_one_hot(seed, dtype, unlabelled):
    pred, label, spacing = organs(seed), organs(seed + 100), (0.7, 1.0, 2.5)
    if unlabelled:
        label[:, :, 3:5] = 255
    one_hot = LabelledOneHot(6, 255)(pred, label)
    wanted = case_scores(*one_hot, spacing, 1.0, without_surface=(0,))
    found = case_scores(pred, label.to(dtype), spacing, 1.0, (0,), classes=range(6), ignore_index=255)
    assert_same(found, wanted)
    some = [4, 5, 2]
    assert_same(case_scores(pred, label, spacing, 1.0, classes=some, ignore_index=255), [wanted[k] for k in some])
    assert_same(case_scores(*one_hot, spacing, 1.0, classes=some), [wanted[k] for k in some])


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_monai_on_whole_volumes(seed):
    """MONAI over all classes of the uncropped volume at once, class masks touching its border included."""
    pred, label, spacing = organs(seed), organs(seed + 100), (0.7, 1.0, 2.5)
    one_hot = [torch.stack([volume[0] == k for k in range(6)])[None].float() for volume in (pred, label)]
    dice = compute_dice(*one_hot, include_background=True)[0]
    iou = compute_iou(*one_hot, include_background=True)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nsd = compute_surface_dice(*one_hot, [1.0] * 6, include_background=True, spacing=spacing, use_subvoxels=True)[0]
    rows = case_scores(pred, label, spacing, 1.0, classes=range(6))
    assert sum(row["status"] == "scored" for row in rows) > 1
    for k, row in enumerate(rows):
        if row["status"] == "scored":
            assert [row["dice"], row["iou"], row["nsd"]] == pytest.approx([float(m[k]) for m in (dice, iou, nsd)])


def test_no_more_than_the_masks_of_a_class_are_made(monkeypatch):
    """Surfaces are measured within the box around both masks, not on the whole volume."""
    seen = []
    monkeypatch.setattr(
        "common.metrics.scores.compute_hausdorff_distance",
        lambda y_pred, **more: seen.append(tuple(y_pred.shape[2:])) or torch.zeros(1, 1),
    )
    pred, label = (torch.zeros(1, 40, 30, 20, dtype=torch.uint8) for _ in range(2))
    pred[0, 3:6, 4:9, 5:7] = 1
    label[0, 4:8, 4:9, 5:8] = 1
    case_scores(pred, label, (1, 1, 1), classes=[1])
    assert seen == [(5, 5, 3)]


@pytest.mark.parametrize(
    "region, classes, recall",
    [
        ((slice(0, 16),), [1, 2], 1.0),
        ((slice(4, 7),), [1, 2], 108 / (216 + 16)),
        ((slice(4, 7),), [1], 0.5),
        ((slice(4, 7),), [2], 0.0),
        ((slice(4, 7),), [3], math.nan),
    ],
)
def test_recall_of_a_region(region, classes, recall):
    label = CUBE[None].to(torch.float32)
    label[0, 0, :, 0] = 2
    inside = torch.zeros_like(label, dtype=torch.uint8)
    inside[(0, *region)] = 1
    assert region_recall(inside, label, classes) == pytest.approx(recall, nan_ok=True)


@pytest.mark.gpu
@pytest.mark.parametrize("place", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_devices_agree(place):
    pred, label = organs(0), organs(100)
    wanted = case_scores(pred, label, (1, 1, 2), classes=range(6))
    moved = [volume.to(device) for volume, device in zip((pred, label), place, strict=True)]
    assert_same(case_scores(*moved, (1, 1, 2), classes=range(6)), wanted)
    assert region_recall(*moved, [1, 2]) == region_recall(pred, label, [1, 2])
