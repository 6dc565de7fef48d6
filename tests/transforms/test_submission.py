"""Predictions under the LiTS challenge's names."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged

from common.checks import InputError
from common.transforms import SubmissionSaveImaged
from common.transforms.submission import submission_name

AFFINE = torch.tensor([[-0.5, 0, 0, 7], [0, 2.0, 0, -3], [0, 0, 3.0, 1], [0, 0, 0, 1]], dtype=torch.float64)


def labels(source):
    values = torch.arange(4 * 5 * 6).reshape(1, 4, 5, 6) % 3
    return MetaTensor(values, affine=AFFINE, meta={"filename_or_obj": str(source)})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("in/test-volume-7.nii", "test-segmentation-7.nii"),
        ("test-volume-0.nii.gz", "test-segmentation-0.nii"),
        ("Test-Volume-069.nii", "test-segmentation-69.nii"),
    ],
)
def test_names_and_what_is_written(tmp_path, source, name):
    done = SubmissionSaveImaged("pred", tmp_path / "out")({"pred": labels(source), "x": 1})
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    saved = nibabel.load(tmp_path / "out" / name)
    assert saved.get_data_dtype() == np.uint8 and np.array_equal(saved.affine, AFFINE.numpy())
    assert np.array_equal(np.asarray(saved.dataobj), labels(source)[0].numpy())
    assert saved.header["scl_slope"] in (0, 1) or np.isnan(saved.header["scl_slope"])
    assert (tmp_path / "out" / name).read_bytes()[:4] == (348).to_bytes(4, "little")  # a header, not gzip
    assert done["x"] == 1 and done["pred"].meta["case_name"] == source.split("/")[-1].split(".")[0]


@pytest.mark.parametrize(
    "source", ["volume-7.nii", "test-volume-70.nii", "test-volume-7a.nii", "my-test-volume-7.nii", "liver_7.nii.gz", ""]
)
def test_other_names_are_refused(tmp_path, source):
    with pytest.raises(InputError, match=r"can not be named.*test-volume-0\.nii to test-volume-69\.nii.*without the"):
        SubmissionSaveImaged("pred", tmp_path)({"pred": labels(source)})
    with pytest.raises(InputError, match="can not be named for the LiTS challenge"):
        submission_name(source)
    assert list(tmp_path.iterdir()) == []


def test_two_volumes_of_one_number_are_refused(tmp_path):
    save = SubmissionSaveImaged("pred", tmp_path)
    for _ in range(2):  # the same one again replaces its own file
        save({"pred": labels("a/test-volume-7.nii")})
    with pytest.raises(InputError, match=r"two volumes .* saved as 'test-segmentation-7\.nii'"):
        save({"pred": labels("b/test-volume-7.nii.gz")})


def test_consumers_that_leave_savers_out_know_it():
    # MONAI Label drops instances of SaveImaged, MONAI Deploy what has this in its name
    assert issubclass(SubmissionSaveImaged, SaveImaged) and "SaveImage" in SubmissionSaveImaged.__name__


def test_one_key_only():
    with pytest.raises(InputError, match="one file a volume"):
        SubmissionSaveImaged(["pred", "box"], "out")
    assert SubmissionSaveImaged("pred", "out", allow_missing_keys=True)({}) == {}
