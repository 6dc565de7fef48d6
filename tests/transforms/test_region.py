"""Reading of region maps: found by the image's name, checked against its grid."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.transforms import LoadRegion, LoadRegiond, region_path

AFFINE = np.array([[-0.7, 0, 0, 90], [0, 0, 1.3, -40], [0, 2.5, 0, 5], [0, 0, 0, 1.0]])
MAP = np.random.default_rng(0).integers(0, 3, (5, 4, 3)).astype(np.uint8)


def image(source="data/scan.nii.gz", size=(5, 4, 3), affine=AFFINE):
    meta = {"filename_or_obj": source} if source else {}
    return MetaTensor(torch.zeros(1, *size), affine=torch.as_tensor(affine), meta=meta)


@pytest.fixture
def folder(tmp_path):
    nib.save(nib.Nifti1Image(MAP, AFFINE), region_path(tmp_path, "data/scan.nii.gz"))
    return tmp_path


class TestPath:
    def test_is_the_same_however_the_file_is_named(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        paths = [str(tmp_path / "a" / "scan.nii.gz"), "a/scan.nii.gz", Path("a/b/../scan.nii.gz"), "./a/scan.nii.gz"]
        assert len({region_path("regions", path) for path in paths}) == 1

    def test_differs_for_other_folders_and_names(self):
        paths = ["/a/scan.nii.gz", "/b/scan.nii.gz", "/a/scan_1.nii.gz", "/a/scan.nii"]
        found = [region_path("regions", path) for path in paths]
        assert len(set(found)) == 4 and all(path.name.startswith("scan") for path in found)

    def test_home(self):
        assert region_path("r", "~/scan.nii") == region_path("r", os.path.expanduser("~/scan.nii"))


class TestLoading:
    @pytest.mark.parametrize("source", ["data/scan.nii.gz", ["data/scan.nii.gz"], os.path.abspath("data/scan.nii.gz")])
    def test_body_and_region(self, folder, source):
        img = image(source)
        body, region = LoadRegion(folder)(img)
        assert np.array_equal(body[0], MAP >= 1) and np.array_equal(region[0], MAP == 2)
        for one in (body, region):
            assert isinstance(one, MetaTensor) and one.dtype == torch.bool and one.shape == (1, 5, 4, 3)
            assert torch.equal(one.affine, img.affine) and one.meta["filename_or_obj"] == source

    def test_dictionary(self, folder):
        data = {"image": image(), "label": torch.ones(1)}
        load = pickle.loads(pickle.dumps(LoadRegiond(keys="image", folder=folder, body_key="c1", region_key="c2")))
        result = load(data)
        assert set(data) == {"image", "label"} and set(result) == {"image", "label", "c1", "c2"}
        assert np.array_equal(result["c1"][0], MAP >= 1) and np.array_equal(result["c2"][0], MAP == 2)
        assert result["image"] is data["image"]
        assert set(LoadRegiond(keys="image", folder=folder)(data)) == {"image", "label", "body", "region"}

    def test_where_stage_1_found_nothing_the_region_is_the_body(self, folder):
        nib.save(nib.Nifti1Image(np.minimum(MAP, 1), AFFINE), region_path(folder, "data/scan.nii.gz"))
        body, region = LoadRegion(folder)(image())
        assert torch.equal(region, body) and np.array_equal(body[0], MAP >= 1)

    def test_header_rounds_the_affine(self, folder):
        body, _ = LoadRegion(folder)(image(affine=AFFINE * (1 + 1e-6)))
        assert body.any()


class TestFaults:
    def test_no_map(self, tmp_path):
        with pytest.raises(
            InputError,
            match=r"no region map of 'scan.nii.gz' in .*run the bundle's `regions` first \(run ids `run`, or `train_s",
        ):
            LoadRegion(tmp_path)(image())

    def test_other_size(self, folder):
        with pytest.raises(
            InputError, match="of 'scan.nii.gz' has 5x4x3 voxels: the image has 5x4x4 .* run the bundle"
        ):
            LoadRegion(folder)(image(size=(5, 4, 4)))

    @pytest.mark.parametrize("affine", [AFFINE @ np.diag([-1, 1, 1, 1]), AFFINE @ np.diag([2, 2, 2, 1]), np.eye(4)])
    def test_other_grid_of_the_same_size(self, folder, affine):
        with pytest.raises(InputError, match="of 'scan.nii.gz' lies elsewhere or is turned"):
            LoadRegion(folder)(image(affine=affine))

    def test_broken_map(self, folder):
        path = region_path(folder, "data/scan.nii.gz")
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(InputError, match="of 'scan.nii.gz' can not be read .*delete '.*scan_"):
            LoadRegion(folder)(image())

    @pytest.mark.parametrize("img", [torch.zeros(1, 5, 4, 3), image(None)], ids=["plain", "nameless"])
    def test_image_without_a_name(self, folder, img):
        with pytest.raises(InputError, match="does not say from which file .*load it by LoadImaged"):
            LoadRegion(folder)(img)
