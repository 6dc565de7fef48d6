"""Uncertainty as relative entropy of class probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.transforms import Uncertainty, Uncertaintyd


def drawn(classes: int, dtype=torch.float32) -> MetaTensor:
    values = torch.softmax(3 * torch.randn(classes, 4, 5, 3, generator=torch.Generator().manual_seed(0)), dim=0)
    return MetaTensor(values.to(dtype), torch.diag(torch.tensor([1.0, 2, 3, 1])), {"filename_or_obj": "/x/a.nii.gz"})


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_against_the_sum_written_out(classes):
    given = drawn(classes)
    expected = np.zeros((4, 5, 3))
    for index in np.ndindex(4, 5, 3):
        for p in np.asarray(given)[(slice(None), *index)].astype(np.float64):
            expected[index] -= p * math.log(p) / math.log(classes)
    found = Uncertainty()(given)
    assert found.shape == (1, 4, 5, 3) and found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)
    assert torch.equal(found.affine, given.affine) and found.meta["filename_or_obj"] == "/x/a.nii.gz"


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_ends_of_the_range(classes):
    sure = torch.zeros(classes, 2, 2, 2)
    sure[1] = 1
    assert torch.equal(Uncertainty()(sure), torch.zeros(1, 2, 2, 2))
    even = torch.full((classes, 2, 2, 2), 1 / classes)
    found = Uncertainty()(even)
    assert found.max() <= 1 and torch.allclose(found, torch.ones(1, 2, 2, 2), atol=1e-6)


def test_half_precision_and_arrays():
    exact = Uncertainty()(drawn(3))
    assert torch.allclose(Uncertainty()(drawn(3, torch.float16)), exact, atol=5e-3)
    found = Uncertainty()(drawn(3).numpy())
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, exact.numpy())


def test_dictionary_form():
    data = {"pred": drawn(3), "x": 1}
    found = Uncertaintyd("pred", names="uncertainty")(data)
    assert found["pred"] is data["pred"] and found["x"] == 1 and "uncertainty" not in data
    assert torch.equal(found["uncertainty"], Uncertainty()(drawn(3)))
    assert set(Uncertaintyd("pred")(data)) == {"pred", "x", "pred_uncertainty"}
    assert Uncertaintyd("y", allow_missing_keys=True)(data) == data


@pytest.mark.parametrize(
    "values",
    [torch.full((2, 2, 2, 2), 0.6), torch.tensor([1.5, -0.5]).reshape(2, 1, 1, 1), torch.full((2, 1, 1, 1), math.nan)],
)
def test_what_are_no_probabilities(values):
    with pytest.raises(InputError, match="holds no probabilities: the classes' values must lie between 0 and 1"):
        Uncertainty()(values)


def test_labels_are_refused():
    with pytest.raises(InputError, match=r"'a.nii.gz' is \(1, 4, 5, 3\): .* To mend it, let the inferer give prob"):
        Uncertainty()(drawn(3)[:1])
