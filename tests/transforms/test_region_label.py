"""Labels restricted to a region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.transforms import RestrictLabel, RestrictLabeld


def case(dtype=torch.uint8, ignore_index=255, shape=(5, 4, 6)):
    draw = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (1, *shape), generator=draw)
    label[torch.rand(label.shape, generator=draw) < 0.2] = ignore_index
    label = MetaTensor(label.to(dtype), torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])), {"filename_or_obj": "/x/t.nii"})
    return label, torch.rand(label.shape, generator=draw) < 0.5


@pytest.mark.parametrize("keep_foreground", [False, True, "true"])
@pytest.mark.parametrize(
    ("dtype", "ignore_index"), [(torch.uint8, 255), (torch.int16, -1), (torch.float32, 255), (torch.uint8, 0)]
)
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(5, 4, 6), (3, 1, 2)])
def test_voxel_by_voxel(shape, kind, dtype, ignore_index, keep_foreground):
    label, mask = case(dtype, ignore_index, shape)
    before = label.clone()
    found = RestrictLabel(keep_foreground, ignore_index)(label, mask.to(kind))
    for position in np.ndindex(*label.shape):
        value = int(label[position])
        stays = mask[position] or (bool(keep_foreground) and value > 0)
        assert int(found[position]) == (value if stays else ignore_index)
    assert found.dtype == dtype and torch.equal(label, before)
    assert found.meta["filename_or_obj"] == "/x/t.nii" and torch.equal(found.affine, label.affine)


def test_dictionary_form():
    label, mask = case()
    data = {"label": label, "body": mask, "x": 1}
    found = RestrictLabeld(["label", "other"], "body", allow_missing_keys=True)(data)
    assert data["label"] is label and found["body"] is mask and found["x"] == 1
    assert torch.equal(found["label"], RestrictLabel()(label, mask))
    kept = RestrictLabeld("label", "body", keep_foreground=True)(data)["label"]
    assert torch.equal(kept, RestrictLabel(True)(label, mask)) and (kept != found["label"]).any()
    assert type(RestrictLabel()(label.numpy(), mask.numpy())) is np.ndarray


def test_nothing_left_names_the_case():
    label, mask = case()
    with pytest.raises(InputError, match="nothing of 't.nii' stays labelled in the region: .* take the case out"):
        RestrictLabel()(label, torch.zeros_like(mask))
    label[label != 255] = 0
    with pytest.raises(InputError, match="nothing of 't.nii' stays labelled in the region and no foreground label: "):
        RestrictLabel(keep_foreground=True, ignore_index=255)(label * 0, torch.zeros_like(mask))


def test_unlabelled_voxels_are_no_foreground():
    label, mask = case()
    label[label != 255] = 0
    with pytest.raises(InputError, match="stays labelled"):
        RestrictLabel(keep_foreground=True)(label, torch.zeros_like(mask))


def test_grids_must_agree():
    label, mask = case()
    with pytest.raises(
        InputError, match=r"label 't.nii' has shape \(1, 5, 4, 6\) and .* \(1, 5, 4, 5\): both must lie"
    ):
        RestrictLabel()(label, mask[..., :5])


@pytest.mark.parametrize(("dtype", "ignore_index"), [(torch.uint8, -1), (torch.int8, 255), (torch.bool, 255)])
def test_the_type_must_hold_the_mark(dtype, ignore_index):
    label, mask = case()
    with pytest.raises(InputError, match=rf"is of type {str(dtype)[6:]}: the type must hold {ignore_index} "):
        RestrictLabel(ignore_index=ignore_index)((label % 4).to(dtype), mask)
