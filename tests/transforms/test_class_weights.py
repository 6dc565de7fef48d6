"""Weights of classes and voxels, against equation 1 written out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, DeleteItemsd

from common.checks import InputError
from common.losses import VoxelWeightedCELoss
from common.transforms import (
    ClassWeights,
    ClassWeightsd,
    RandDeformedPatchd,
    RestrictLabeld,
    VoxelWeights,
    VoxelWeightsd,
)

LABELS = [
    [0] * 93 + [1] * 4 + [2] * 3,
    [0] * 50 + [7] * 2 + [255] * 40,
    [3] * 5,
    [1, 6],
    list(range(8)) * 3,
]


def by_hand(labels, num_classes, ignore_index):
    counts = [sum(value == k for value in labels if value != ignore_index) for k in range(num_classes)]
    total, present = sum(counts), sum(count > 0 for count in counts)
    if present == 1:
        return [Fraction(count > 0) for count in counts]
    return [(1 - Fraction(n, total)) / (present - 1) if n else Fraction(0) for n in counts]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
@pytest.mark.parametrize("ignore_index", [255, 0, 9, -1])
@pytest.mark.parametrize("labels", LABELS)
def test_equation_1(labels, ignore_index, dtype):
    labels = [ignore_index if value == 255 else value for value in labels]
    if ignore_index < 0 and dtype == torch.uint8:
        dtype = torch.int8
    found = ClassWeights(8, ignore_index)(torch.tensor(labels, dtype=dtype).reshape(1, -1, 1, 1))
    expected = by_hand(labels, 8, ignore_index)
    assert found.dtype == torch.float32 and type(found) is torch.Tensor
    torch.testing.assert_close(found, torch.tensor([float(value) for value in expected]), rtol=1e-6, atol=1e-7)
    assert sum(expected) == 1 and abs(float(found.sum()) - 1) < 1e-6


def test_figures_of_a_candidate_region():
    # 93 % background: about 0.01 for it and 0.14 for each organ
    labels = torch.tensor([0] * 930 + [k for k in range(1, 8) for _ in range(10)], dtype=torch.uint8)
    weights = ClassWeights(8)(labels)
    assert weights[0] == pytest.approx(0.01) and weights[1:].tolist() == pytest.approx([0.99 / 7] * 7)


def test_one_class_alone_and_nothing_at_all():
    assert ClassWeights(3)(torch.tensor([255, 2, 2])).tolist() == [0, 0, 1]
    assert ClassWeights(3)(torch.tensor([0, 0])).tolist() == [1, 0, 0]
    assert ClassWeights(3)(torch.tensor([255, 255])).tolist() == [0, 0, 0]


def test_counts_beyond_the_reach_of_float32():
    labels = torch.zeros(2**25 + 2, dtype=torch.uint8)
    labels[:1] = 1
    assert float(ClassWeights(2)(labels)[0]) == pytest.approx(1 / (2**25 + 2), rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (torch.tensor([0, 8, 200], dtype=torch.uint8), "'t.nii' holds 8, 200: labels must be 0 to 7, or 255"),
        (torch.tensor([0, -3]), "the label holds -3: .* 0 to 7, or 255"),
        (torch.tensor([0, 0.5]), "the label holds 0.5"),
        (torch.tensor([0, 100000]), "the label holds 100000"),
    ],
)
def test_foreign_labels(labels, text):
    with pytest.raises(InputError, match=text):
        ClassWeights(8)(MetaTensor(labels, meta={"filename_or_obj": "/x/t.nii"}))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_weights_of_voxels(dtype):
    draw = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (1, 4, 5, 2), generator=draw)
    label[torch.rand(label.shape, generator=draw) < 0.3] = 255
    label = MetaTensor(label.to(dtype), meta={"filename_or_obj": "/x/t.nii"})
    before, weights = label.clone(), torch.tensor([0.1, 0.9, 0.0])
    found = VoxelWeights()(label, weights)
    assert found.shape == (2, 4, 5, 2) and found.dtype == torch.float32 and found.meta == label.meta
    assert torch.equal(found[0].as_tensor(), label[0].as_tensor().float()) and torch.equal(label, before)
    for position in np.ndindex(4, 5, 2):
        value = int(label[(0, *position)])
        assert found[(1, *position)] == (0 if value == 255 else weights[value])


def test_an_ignored_class_has_weight_0():
    found = VoxelWeights(ignore_index=1)(torch.tensor([0, 1, 2]).reshape(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.5]))
    torch.testing.assert_close(found[1].flatten(), torch.tensor([0.2, 0.0, 0.5]))


def test_weights_need_a_label_and_one_number_each_class():
    label = torch.zeros(1, 2, 2, 2)
    with pytest.raises(InputError, match=r"shape \(2, 2, 2, 2\) and its weights \(3,\): .* VoxelWeightsd once only"):
        VoxelWeights()(label.repeat(2, 1, 1, 1), torch.ones(3))
    with pytest.raises(InputError, match=r"weights \(1, 3\)"):
        VoxelWeights()(label, torch.ones(1, 3))
    with pytest.raises(InputError, match="the label holds 3: .* 0 to 2"):
        VoxelWeights()(label + 3, torch.ones(3))
    with pytest.raises(InputError, match="keys .'a', 'b'. were given: the weights of one label"):
        ClassWeightsd(["a", "b"], 3)
    with pytest.raises(KeyError):
        VoxelWeightsd("label")({"label": label})
    assert (
        VoxelWeightsd("label", allow_missing_keys=True)({}) == ClassWeightsd("x", 2, allow_missing_keys=True)({}) == {}
    )


def region_case():
    """A cube of region in a corner of a volume that is smaller than the patch along one axis."""
    draw = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0]))
    shape = (1, 18, 14, 9)
    label = torch.randint(0, 4, shape, generator=draw, dtype=torch.uint8)
    image = label + 10.0
    region = torch.zeros(shape, dtype=torch.bool)
    region[:, :6, 3:9, 2:7] = True
    meta = {"filename_or_obj": "/x/case.nii.gz"}
    return {
        key: MetaTensor(v, affine, dict(meta)) for key, v in {"image": image, "label": label, "region": region}.items()
    }


def chain(**patch):
    settings = {"rotation_degrees": 0, "scale_range": (1, 1), "sigma": 0, **patch}
    return Compose(
        [
            RestrictLabeld("label", "region"),
            DeleteItemsd("region"),
            ClassWeightsd("label", 8),
            RandDeformedPatchd(
                ["image", "label"], "label", (12, 11, 13), (8, 7, 9), ignore_index=255, outside="zero", **settings
            ),
            VoxelWeightsd("label"),
        ]
    )


@pytest.mark.parametrize("patch", [{}, {"rotation_degrees": 5, "sigma": 1.0, "grid_spacing": 8}])
def test_the_chain_from_region_to_loss(patch):
    data = region_case()
    steps = chain(num_samples=300, **patch).set_random_state(0)
    patches = steps(data)
    inside = data["region"][0].as_tensor()
    expected = ClassWeights(8)(data["label"].as_tensor()[data["region"].as_tensor()])
    centres = [draw.centre for draw in steps.transforms[3].patcher.draws]
    # centres: all of the region is hit about equally often, nothing else ever
    hits = torch.zeros(inside.shape)
    for centre in centres:
        hits[centre] += 1
    assert not hits[~inside].any()
    mean = 300 / int(inside.sum())
    chi = float(((hits[inside] - mean) ** 2 / mean).sum())
    assert abs(chi - int(inside.sum())) < 5 * (2 * int(inside.sum())) ** 0.5
    beyond = 0
    for one in patches:
        label, weights = one["label"].as_tensor()
        assert label.shape == (8, 7, 9) and one["label"].meta["filename_or_obj"] == "/x/case.nii.gz"
        torch.testing.assert_close(one["class_weights"], expected)
        assert torch.equal(weights > 0, label != 255) and label[4, 3, 4] != 255
        for k in range(4):
            assert (weights[label == k] == expected[k]).all()
        out = one["image"][0] == 0  # inside, grey values are 10 to 13
        beyond += int(out.sum())
        centre = out.as_tensor()[2:10, 2:9, 2:11]
        assert (weights[centre] == 0).all()
    assert beyond > 0


def test_the_chain_in_a_loader_feeds_the_loss():
    data = CacheDataset([region_case()] * 2, chain(num_samples=2).set_random_state(0), progress=False)
    for batch in DataLoader(data, batch_size=2, num_workers=1):
        assert batch["image"].shape == (4, 1, 12, 11, 13) and batch["label"].shape == (4, 2, 8, 7, 9)
        logits = torch.randn(4, 8, 8, 7, 9, requires_grad=True)
        loss = VoxelWeightedCELoss()(logits, batch["label"])
        loss.backward()
        counted = batch["label"][:, 1].as_tensor() > 0
        assert loss > 0 and torch.equal(logits.grad.abs().sum(1) > 0, counted)


@pytest.mark.gpu
def test_weights_on_a_gpu():
    label = region_case()["label"].as_tensor()
    label[:, :5] = 255
    weights = ClassWeights(8)(label.cuda())
    assert weights.is_cuda and torch.equal(weights.cpu(), ClassWeights(8)(label))
    torch.testing.assert_close(VoxelWeights()(label.cuda(), weights).cpu(), VoxelWeights()(label, weights.cpu()))
