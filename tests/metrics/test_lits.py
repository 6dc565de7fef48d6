"""LiTS scores of a case: against other libraries' numbers, against loops over voxels, and where something is empty."""

import math

import numpy as np
import pytest
import torch

from common.checks import InputError
from common.metrics.lits import DISTANCES, OVERLAPS, lits_scores, surface_distances
from common.metrics.scores import case_scores

SPACING = (0.8, 1.5, 3.0)
# of the case below, by medpy 0.5.2 (metric.binary; RMSD from the distances that its assd averages); Dice, Jaccard, MSD
# and numbers of lesions also by SimpleITK 2.5
INDEPENDENT = {
    "organ": {
        "dice": 0.8401606425702811,
        "jaccard": 0.724376731301939,
        "rvd": -0.11791383219954649,
        "assd_mm": 1.1817220962246384,
        "rmsd_mm": 1.5648296978017648,
        "msd_mm": 3.104834939252005,
        "pred_voxels": 1167,
        "label_voxels": 1323,
    },
    "lesion": {
        "dice": 0.3787878787878788,
        "jaccard": 0.2336448598130841,
        "rvd": -0.42857142857142855,
        "assd_mm": 1.4290703263428577,
        "rmsd_mm": 1.892260063561071,
        "msd_mm": 4.317406628984581,
        "pred_voxels": 48,
        "label_voxels": 84,
    },
}


def ball(center, radii):
    offsets = [(index - c) / r for index, c, r in zip(np.indices((24, 20, 15)), center, radii)]
    return sum(offset**2 for offset in offsets) <= 1


@pytest.fixture
def case():
    """Prediction and reference: an organ with two lesions, all of them off by a voxel or so; 1 X Y Z."""
    label, pred = (np.zeros((24, 20, 15), np.uint8) for _ in range(2))
    label[ball((11, 9, 7), (9, 7, 5))] = 1
    label[ball((8, 8, 6), (2, 2, 2)) | ball((15, 10, 8), (3, 2, 2))] = 2
    pred[ball((12, 9, 7), (9, 8, 4))] = 1
    pred[ball((9, 8, 6), (2, 2, 2)) | ball((14, 12, 8), (2, 2, 1))] = 2
    return torch.from_numpy(pred)[None], torch.from_numpy(label)[None]


def same(first, second):
    """Equal scores, NaN being equal to NaN."""
    return set(first) == set(second) and all(
        first[name] == second[name] or (math.isnan(first[name]) and math.isnan(second[name])) for name in first
    )


def test_scores_are_those_of_other_libraries(case):
    scores = lits_scores(*case, SPACING)
    for mask, wanted in INDEPENDENT.items():
        assert {name: scores[mask][name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
        assert scores[mask]["voe"] == pytest.approx(1 - wanted["jaccard"]) and scores[mask]["status"] == "scored"
    assert scores["lesion"]["counts"][:2] == (2, 2)
    assert scores["burden"] == pytest.approx({"pred": 48 / 1167, "label": 84 / 1323})


def surface(mask):
    """Voxels of a mask with a face neighbour outside of it or of the volume, by a loop."""
    inside, found = set(map(tuple, np.argwhere(mask))), []
    steps = [tuple(sign * (axis == k) for k in range(3)) for axis in range(3) for sign in (-1, 1)]
    for voxel in inside:
        if any(tuple(np.add(voxel, step)) not in inside for step in steps):
            found.append(voxel)
    return np.array(found, dtype=float)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (2.0, 0.3, 1.0)])
def test_distances_by_a_loop_over_all_pairs_of_surface_voxels(spacing):
    """The second mask reaches the border of the volume, where its surface must end, too."""
    found, true = np.zeros((2, 9, 8, 7), bool)
    found[1:6, 2:7, 1:5] = True
    found[3, 4, 5] = True
    true[4:9, 1:5, 2:7] = True
    ours, theirs = (surface(mask) * spacing for mask in (found, true))
    pairs = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    distances = np.concatenate([pairs.min(axis=1), pairs.min(axis=0)])
    wanted = (distances.mean(), np.sqrt(np.mean(distances**2)), distances.max())
    assert surface_distances(torch.from_numpy(found), torch.from_numpy(true), spacing) == pytest.approx(
        wanted, rel=1e-6
    )


def test_scores_shared_with_the_case_report_agree(case):
    """Labels 0 and 1 only, so that the organ is class 1 of the other function, too."""
    pred, label = (volume.clamp(max=1) for volume in case)
    (row,) = case_scores(pred, label, SPACING, classes=[1])
    ours = lits_scores(pred, label, SPACING)["organ"]
    assert (ours["dice"], ours["jaccard"]) == (row["dice"], row["iou"])
    assert ours["assd_mm"] == pytest.approx(row["assd_mm"], rel=1e-6)


@pytest.mark.parametrize("axes", [(1,), (2, 3), (1, 2, 3)])
def test_flips_and_turns_change_nothing(case, axes):
    """What is measured in mm depends on the file's order of axes and direction in no way."""
    wanted = lits_scores(*case, SPACING)
    for volumes, spacing in (
        ([volume.flip(axes) for volume in case], SPACING),
        ([volume.permute(0, 3, 1, 2) for volume in case], (SPACING[2], *SPACING[:2])),
    ):
        found = lits_scores(*volumes, spacing)
        for mask in ("organ", "lesion"):
            names = (*OVERLAPS, *DISTANCES)
            assert [found[mask][name] for name in names] == pytest.approx([wanted[mask][name] for name in names])
        assert found["lesion"]["counts"] == wanted["lesion"]["counts"]


def test_a_lesion_taken_for_healthy_organ_costs_the_organ_nothing(case):
    _, label = case
    scores = lits_scores(label.clamp(max=1), label, SPACING)
    assert scores["organ"]["dice"] == 1.0 and scores["organ"]["msd_mm"] == 0.0
    assert scores["lesion"]["dice"] == 0.0 and scores["lesion"]["status"] == "missed"
    assert scores["lesion"]["counts"] == (2, 0, (0, 0)) and scores["burden"]["pred"] == 0.0


def test_prediction_and_reference_are_not_exchangeable(case):
    """The relative volume difference tells which of the two is the larger."""
    there, back = lits_scores(*case, SPACING)["lesion"], lits_scores(*case[::-1], SPACING)["lesion"]
    assert there["rvd"] == pytest.approx(48 / 84 - 1) and back["rvd"] == pytest.approx(84 / 48 - 1)
    assert there["assd_mm"] == pytest.approx(back["assd_mm"]) and there["voe"] == back["voe"]


NONE = dict.fromkeys(DISTANCES, math.nan)


@pytest.mark.parametrize(
    ("found", "true", "wanted"),
    [
        (False, False, {"dice": 1.0, "jaccard": 1.0, "voe": 0.0, "rvd": 0.0, "status": "absent"}),
        (False, True, {"dice": 0.0, "jaccard": 0.0, "voe": 1.0, "rvd": -1.0, "status": "missed"}),
        (True, False, {"dice": 0.0, "jaccard": 0.0, "voe": 1.0, "rvd": math.nan, "status": "false find"}),
    ],
)
def test_what_is_empty_is_scored(found, true, wanted):
    full = torch.zeros(1, 6, 5, 4, dtype=torch.uint8)
    full[:, 2:4, 1:4, 1:3] = 2
    volumes = [full if there else torch.zeros_like(full) for there in (found, true)]
    scores = lits_scores(*volumes, SPACING)
    for mask in ("organ", "lesion"):
        assert same({name: scores[mask][name] for name in (*wanted, *NONE)}, {**wanted, **NONE})
    assert scores["burden"] == {"pred": float(found), "label": float(true)}
    assert scores["lesion"]["counts"] == (int(true), int(found), (0, 0))


def test_one_slice_and_one_voxel():
    label = torch.zeros(1, 5, 5, 1)
    label[0, 1:4, 1:4, 0] = 1
    label[0, 2, 2, 0] = 2
    pred = label.clone()
    pred[0, 2, 2, 0], pred[0, 2, 3, 0] = 1, 2
    scores = lits_scores(pred, label, (1.0, 2.0, 5.0))
    assert scores["organ"]["dice"] == 1.0
    assert [scores["lesion"][name] for name in ("dice", *DISTANCES)] == [0.0, 2.0, 2.0, 2.0]


def test_types_of_labels_do_not_matter(case):
    wanted = lits_scores(*case, SPACING)
    for dtype in (torch.float32, torch.int64):
        assert lits_scores(case[0].to(dtype), case[1].to(dtype), SPACING) == wanted


def test_lesions_that_are_not_labelled(case):
    assert set(lits_scores(*case, SPACING, lesions=False)) == {"organ"}


def test_refusals(case):
    pred, label = case
    with pytest.raises(InputError, match="three positive lengths in mm"):
        lits_scores(pred, label, (1.0, 0.0, 1.0))
    with pytest.raises(InputError, match=r"\(1, 24, 20, 15\) against reference \(1, 24, 20, 14\)"):
        lits_scores(pred, label[..., :14], SPACING)
    with pytest.raises(InputError, match="have 3 channels: LiTS scores are of class indices.*leave one-hot"):
        lits_scores(pred.repeat(3, 1, 1, 1), label.repeat(3, 1, 1, 1), SPACING)


@pytest.mark.gpu
def test_scores_on_a_device(case):
    wanted, found = lits_scores(*case, SPACING), lits_scores(case[0].cuda(), case[1].cuda(), SPACING)
    for mask in ("organ", "lesion"):
        names = (*OVERLAPS, *DISTANCES)
        assert [found[mask][name] for name in names] == pytest.approx([wanted[mask][name] for name in names], rel=1e-4)
