"""One-hot volumes in which unlabelled voxels are empty."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import ConfusionMatrixMetric, DiceMetric, MeanIoU

from common.checks import InputError
from common.transforms.one_hot import LabelledOneHot, LabelledOneHotd

AFFINE = torch.diag(torch.tensor([-0.5, 2.0, 3.0, 1.0], dtype=torch.float64))


def volumes(kind=torch.int64, unlabelled=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randint(0, 3, (1, 5, 7, 9), generator=generator)
    label = torch.randint(0, 3, (1, 5, 7, 9), generator=generator)
    label[:, torch.rand(5, 7, 9, generator=generator) < 0.6] = unlabelled
    return pred.to(kind), label.to(kind)


@pytest.mark.parametrize("unlabelled", [3, 255, -1])
@pytest.mark.parametrize("kind", [torch.int64, torch.float32, torch.int16])
def test_every_voxel(kind, unlabelled):
    pred, label = volumes(kind, unlabelled)
    found, true = LabelledOneHot(3, unlabelled)(pred, label)
    assert found.shape == true.shape == (3, 5, 7, 9) and found.dtype == true.dtype == torch.uint8
    for position in np.ndindex(5, 7, 9):
        known = label[0][position] != unlabelled
        for k in range(3):
            assert found[k][position] == (known and pred[0][position] == k)
            assert true[k][position] == (known and label[0][position] == k)


@pytest.mark.parametrize("metric", [MeanIoU, DiceMetric])
def test_stock_metrics_count_labelled_voxels_only(metric):
    pred, label = volumes()
    known = label[0] != 3
    wanted = metric(include_background=True, reduction="none")
    # the labelled voxels alone, as a little volume of their own
    packed = [
        torch.stack([volume[0][known] == k for k in range(3)])[None, :, :, None, None].float()
        for volume in (pred, label)
    ]
    found = metric(include_background=True, reduction="none")
    one_hot = [volume[None] for volume in LabelledOneHot(3, 3)(pred, label)]
    assert torch.allclose(torch.as_tensor(found(*one_hot)), torch.as_tensor(wanted(*packed)))


def test_what_the_network_says_where_nothing_is_labelled_is_no_matter():
    pred, label = volumes()
    other = torch.where(label == 3, 2 - pred, pred)
    for one, two in zip(LabelledOneHot(3, 3)(pred, label), LabelledOneHot(3, 3)(other, label), strict=True):
        assert torch.equal(one, two)
    counts = ConfusionMatrixMetric(metric_name="precision", reduction="none")
    counts(*[volume[None].float() for volume in LabelledOneHot(3, 3)(pred, label)])
    false_positives = counts.get_buffer()[0, :, 1]
    assert false_positives.sum() == ((pred != label) & (label != 3)).sum()


def test_metadata_survive():
    pred, label = (
        MetaTensor(volume, affine=AFFINE, meta={"filename_or_obj": name})
        for volume, name in zip(volumes(), ("p.nii", "l.nii"), strict=True)
    )
    data = LabelledOneHotd(keys="pred", label_key="label", num_classes=3, ignore_index=3)(
        {"pred": pred, "label": label, "x": 1}
    )
    assert data["x"] == 1 and data["pred_indices"] is pred
    for key, name in (("pred", "p.nii"), ("label", "l.nii")):
        assert isinstance(data[key], MetaTensor) and data[key].meta["filename_or_obj"] == name
        assert torch.equal(data[key].affine, AFFINE)
    assert pred.shape == label.shape == (1, 5, 7, 9)


def test_numpy_in_numpy_out():
    found, true = LabelledOneHot(3, 3)(*(volume.numpy() for volume in volumes()))
    assert isinstance(found, np.ndarray) and isinstance(true, np.ndarray)


@pytest.mark.parametrize(
    "pred, label, text",
    [
        (
            torch.zeros(2, 4, 4, 4),
            torch.zeros(1, 4, 4, 4),
            r"prediction \(2, 4, 4, 4\) against reference \(1, 4, 4, 4\)",
        ),
        (torch.zeros(1, 4, 4, 5), torch.zeros(1, 4, 4, 4), "on one grid"),
        (torch.full((1, 4, 4, 4), 3), torch.zeros(1, 4, 4, 4), "holds class 3: classes are 0 to 2"),
        (torch.zeros(1, 4, 4, 4), torch.full((1, 4, 4, 4), 7), "7"),
    ],
)
def test_refusals(pred, label, text):
    with pytest.raises(InputError, match=text):
        LabelledOneHot(3, 3)(pred, label)
