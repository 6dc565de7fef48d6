"""The label with its contour: what it holds, what survives, what is refused."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.transforms import AppendContour, AppendContourd


def label(dtype=torch.uint8):
    """Two blobs of several slices, one cut by the border: 1 5 14 12."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (5, 14, 12)), indexing="ij")).float()
    inside = sum(
        ((grid - torch.tensor(centre).reshape(3, 1, 1, 1)) / torch.tensor([2.0, 4.0, 3.5]).reshape(3, 1, 1, 1))
        .square()
        .sum(0)
        < 1
        for centre in ([2.0, 6.0, 5.0], [3.0, 12.0, 10.0])
    )
    affine = torch.diag(torch.tensor([4.0, 1.0, 1.0, 1.0]))
    return MetaTensor(inside[None].to(dtype), affine=affine, meta={"filename_or_obj": "/x/patient/label.nii.gz"})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.bool])
def test_against_erosion_slice_by_slice(dtype):
    given = label(dtype)
    found = AppendContour()(given)
    assert found.shape == (2, 5, 14, 12) and found.dtype == dtype and torch.equal(found[:1], given)
    for plane, contour in zip(given[0].numpy() != 0, found[1].numpy(), strict=True):
        expected = plane & ~ndimage.binary_erosion(plane, np.ones((3, 3)), border_value=1)
        assert np.array_equal(contour != 0, expected)
    assert set(found[1].unique().tolist()) == {0, 1} and 0 < found[1].float().sum() < found[0].float().sum()


def test_slices_lie_across_the_first_axis():
    block = torch.zeros(1, 7, 7, 7)
    block[:, 1:6, 1:6, 1:6] = 1
    contour = AppendContour()(block)[1]
    assert torch.equal(contour[1], contour[3]) and not contour[3, 2:5, 2:5].any() and not contour[1, 2:5, 2:5].any()
    assert contour[1].sum() == 16


def test_no_tumour_has_no_contour():
    found = AppendContour()(torch.zeros(1, 3, 4, 5, dtype=torch.uint8))
    assert found.shape == (2, 3, 4, 5) and not found.any()


def test_metadata_survive_and_the_label_is_not_changed():
    given = label()
    before = given.clone()
    found = AppendContour()(given)
    assert isinstance(found, MetaTensor) and torch.equal(found.affine, given.affine)
    assert found.meta["filename_or_obj"] == given.meta["filename_or_obj"]
    found[:] = 7
    assert torch.equal(given, before)
    assert type(AppendContour()(given.numpy())) is np.ndarray


def test_dictionary_form():
    data = {"label": label(), "image": 3}
    found = AppendContourd()(data)
    assert torch.equal(found["label"], AppendContour()(label())) and found["image"] == 3
    assert len(data["label"]) == 1
    assert AppendContourd("y", allow_missing_keys=True)(data) == data
    with pytest.raises(KeyError, match="y"):
        AppendContourd("y")(data)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5)])
def test_what_is_no_label(shape):
    given = MetaTensor(torch.zeros(shape), meta=label().meta)
    with pytest.raises(InputError, match=r"label 'label.nii.gz' has shape .*one label, \(1, D, H, W\).*contour once"):
        AppendContour()(given)
