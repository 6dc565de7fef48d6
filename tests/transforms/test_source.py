"""Error texts name files, never folders."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.transforms.annotated import AnnotatedSlices
from common.transforms.deform import RandDeformedPatch
from common.transforms.source import source_of


@pytest.mark.parametrize("name", ["/data/jane_doe/scan.nii.gz", ["/data/jane_doe/scan.nii.gz"], "scan.nii.gz"])
def test_base_name_only(name):
    assert source_of(MetaTensor(torch.zeros(1), meta={"filename_or_obj": name})) == "'scan.nii.gz'"


@pytest.mark.parametrize("volume", [torch.zeros(1), MetaTensor(torch.zeros(1)), None])
def test_what_does_not_say(volume):
    assert source_of(volume, "memory") == "memory"


def test_the_refusal_of_an_empty_label_names_no_folder():
    label = MetaTensor(torch.full((1, 6, 6, 6), 3), meta={"filename_or_obj": "/data/jane_doe/scan.nii.gz"})
    for transform in (AnnotatedSlices(), lambda x: RandDeformedPatch((4, 4, 4)).randomize(x)):
        with pytest.raises(InputError, match="'scan.nii.gz'") as caught:
            transform(label)
        assert "jane_doe" not in str(caught.value)
