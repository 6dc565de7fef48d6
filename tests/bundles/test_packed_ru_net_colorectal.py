"""The packed bundle `ru_net_colorectal` where the repository is not on the path."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from packed import check_export, infer, pack_tiny, python, train_copy, turned_scans

from common.weights import read_info

NAME = "ru_net_colorectal"
TINY = {
    "recipe": "small",
    "dataset_dir": {"_target_": "common.data.phantom_dataset", "name": "pelvis_t2", "cases": 2, "size": [32, 32, 12]},
    "spacing": [8.0, 8.0, 8.0],
    "width": 4,
    # untrained locators find something at once
    "locator_threshold": 0.3,
    "folds": 2,
}
OTHER = TINY | {"variants": ["RF64"], "width": 2}


@pytest.fixture(scope="module")
def scans(work) -> Path:
    return turned_scans(work, "pelvis_t2", [32, 32, 12])


def test_it_predicts_on_the_grid_of_the_input(work, bundle, scans):
    infer(work, bundle, scans, work / "predicted")
    for path in sorted(scans.glob("*.nii.gz")):
        result = nib.load(next((work / "predicted").glob(f"{path.name.removesuffix('.nii.gz')}_seg.nii.gz")))
        source = nib.load(path)
        assert result.shape == source.shape and np.allclose(result.affine, source.affine)
        assert np.unique(result.dataobj).tolist() == [0, 1]


@pytest.mark.slow
def test_two_bundles_in_one_process_give_what_each_gives_alone(work, bundle, scans, repository):
    other = pack_tiny(repository / "bundles" / NAME, work, OTHER, name="ru_net_other")
    steps, image = Path(__file__).with_name("label_steps.py"), sorted(scans.glob("*.nii.gz"))[1]
    python(work, work, str(steps), str(work / "label.npz"), str(image), str(bundle), str(other))
    found, expected = np.load(work / "label.npz"), []
    for number, folder in enumerate((bundle, other)):
        infer(work, folder, image, work / f"one_{number}")
        expected.append(np.asarray(nib.load(next((work / f"one_{number}").glob("*_seg.nii.gz"))).dataobj))
        assert expected[number].any() and np.array_equal(found[f"bundle{number}"], expected[number])
        assert found[f"bundle{number}"].dtype == np.uint8
    assert not np.array_equal(*expected)


@pytest.mark.slow
def test_it_trains_both_phases_and_evaluates(work, bundle):
    copied = train_copy(work, bundle, "--locator_epochs", "1")
    assert set(read_info(copied / "models" / "model.pt")["stages"]) == {"locator", "joint"}
    before, after = (torch.load(root / "models" / "model.pt", weights_only=True) for root in (bundle, copied))
    assert before.keys() == after.keys()
    assert (work / "evaluated" / "stages.md").is_file() and (work / "evaluated" / "metrics.csv").is_file()


MEMBERS = """
assert list(network.members) == ["RF64", "RF88", "RF112"]
for name, member in network.members.items():
    other = getattr(scripted.members, name)
    features, same = member.encode(image), other.encode(image)
    assert torch.allclose(member.locate(features[2]), other.locate(same[2]), atol=1e-4)
    for mine, theirs in zip(member.decode(*features), other.decode(*same)):
        assert torch.allclose(mine, theirs, atol=1e-4)
"""


def test_monai_checks_exports_and_loads_it_from_its_own_folder(work, bundle):
    check_export(work, bundle, (1, 8, 16, 16), MEMBERS)
