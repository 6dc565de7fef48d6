"""The packed bundle `unet3d_sparse` where the repository is not on the path."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from packed import check_export, infer, pack_tiny, python, train_copy

from common.files import read_json
from common.weights import read_info

NAME = "unet3d_sparse"
TINY = {
    "recipe": "small",
    "dataset_dir": {"_target_": "common.data.phantom_dataset", "name": "kidney", "cases": 1, "size": [32, 30, 20]},
    "widths": [2, 4, 6, 8],
    "padded": True,
    "patch_size": [24, 24, 16],
    "tile_overlap": 0.25,
}


@pytest.fixture(scope="module")
def dataset(work) -> Path:
    """Two volumes of three channels, anisotropic, flipped, of odd size, annotated on some slices."""
    folder = work / "data"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.array([[-0.5, 0, 0, 3.0], [0, 0.7, 0, -2.0], [0, 0, 2.0, 9.0], [0, 0, 0, 1.0]])
    training = []
    for index in range(2):
        label = np.full((35, 30, 18), 3, np.uint8)
        label[:, :, ::3] = rng.integers(0, 3, (35, 30, 6))
        image = rng.random((35, 30, 18, 3), np.float32)
        nib.save(nib.Nifti1Image(image, affine), folder / "imagesTr" / f"case{index}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"case{index}.nii.gz")
        training.append({"image": f"./imagesTr/case{index}.nii.gz", "label": f"./labelsTr/case{index}.nii.gz"})
    labels = {"0": "inside", "1": "tubule", "2": "background", "3": "unlabelled"}
    content = {
        "name": "noise",
        "description": "noise",
        "licence": "none",
        "reference": "none",
        "tensorImageSize": "4D",
        "modality": {"0": "a", "1": "b", "2": "c"},
        "channel_names": {"0": "a", "1": "b", "2": "c"},
        "labels": labels,
        "numTraining": 2,
        "numTest": 0,
        "training": training,
        "test": [],
        "phantom": True,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_the_block_holds(work):
    assert "off the path" in python(work, work, "-c", "try:\n import common\nexcept ImportError as e:\n print(e)")


def test_it_carries_one_method_and_no_target_of_the_repository(bundle):
    for path in (bundle / "configs").glob("*.json"):
        assert '"common.' not in path.read_text(), path.name
    carried = {path.relative_to(bundle / f"scripts_{NAME}").parts[0] for path in bundle.rglob("scripts_*/**/*.py")}
    assert {"networks", "inferers", "files.py", "checks.py"} <= carried
    assert not {"bundling", "cli.py", "__main__.py"} & carried
    metadata = read_json(bundle / "configs" / "metadata.json")
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == TINY["patch_size"]


def test_it_predicts_from_any_folder_on_the_grid_of_the_input(work, bundle, dataset):
    found = infer(work, bundle, dataset, work / "predicted")
    assert sorted(found) == ["case0", "case1"]
    for case, image in found.items():
        source = nib.load(dataset / "imagesTr" / f"{case}.nii.gz")
        assert image.shape == source.shape[:3] and np.allclose(image.affine, source.affine)
        assert set(np.unique(image.dataobj)) <= {0, 1, 2}


def test_it_trains_and_evaluates_with_spawned_workers(work, bundle, dataset):
    workers = ("--workers", "2", "--train::dataloader::multiprocessing_context", "spawn")
    copied = train_copy(work, bundle, "--dataset_dir", str(dataset), *workers)
    before, after = read_info(bundle / "models" / "model.pt"), read_info(copied / "models" / "model.pt")
    assert after["phantom"] is True and after["sha256"] != before["sha256"]
    assert any(path.suffix == ".csv" for path in (work / "evaluated").rglob("*"))


def test_monai_checks_exports_and_loads_it_from_its_own_folder(work, bundle):
    check_export(work, bundle, (3, *TINY["patch_size"]))


def test_the_steps_of_monai_label_give_the_voxels_of_the_bundle_beside_another_one(repository, work, bundle, dataset):
    other = pack_tiny(repository / "bundles" / NAME, work, TINY, "other_method")
    code = other / "scripts_other_method" / "networks" / "doubling_unet.py"
    written = code.read_text()
    assert written.count("= self.score(x)") == 1
    code.write_text(written.replace("= self.score(x)", "= -self.score(x)"))
    image = dataset / "imagesTr" / "case0.nii.gz"
    steps = Path(__file__).with_name("label_steps.py")
    python(work, work, str(steps), str(work / "label.npz"), str(image), str(bundle), str(other), str(bundle))
    found = np.load(work / "label.npz")
    expected = np.asarray(infer(work, bundle, image, work / "one")["case0"].dataobj)
    assert np.array_equal(found["bundle0"], expected) and np.array_equal(found["bundle2"], expected)
    assert found["bundle0"].dtype == np.uint8
    # the network of the other one has its sign turned: the most likely class has become the least likely
    assert (found["bundle1"] != expected).mean() > 0.9
