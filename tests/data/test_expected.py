"""What an image is, and how it differs from what a bundle expects."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from common.data.expected import content_hash, input_facts, input_warnings, slice_axis, stated_modality

BUNDLES = sorted((Path(__file__).resolve().parents[2] / "bundles").glob("*/configs/metadata.json"))
CT = {
    "modality": ["CT"],
    "spacing_mm": {"in_plane": [0.5, 1.0], "through_plane": [None, 2.0]},
    "field_of_view_mm": {"in_plane": [200, 500], "through_plane": [100, None]},
    "intensity": {"unit": "HU", "percentile_1": [-4096, 0], "percentile_99": [50, 4096]},
}


def facts(spacing=(0.8, 0.8, 1.5), shape=(400, 400, 200), modality="CT", low=-1000.0, high=300.0):
    return {
        "modality": modality,
        "spacing_mm": list(spacing),
        "slice_axis": slice_axis(np.diag([*spacing, 1.0])),
        "field_of_view_mm": [size * edge for size, edge in zip(shape, spacing, strict=True)],
        "intensity": {"percentile_1": low, "percentile_50": 0.0, "percentile_99": high},
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"modality": "MR"}, ["it is MR; the bundle expects CT"]),
        ({"modality": None}, []),
        ({"spacing": (1.04, 1.04, 2.08)}, []),  # 4 % beyond the figure, which is rounded
        ({"spacing": (1.0, 1.1, 1.5)}, ["its pixels are 1 x 1.1 mm; the bundle expects 0.5 to 1 mm"]),
        ({"spacing": (0.4, 0.4, 1.5), "shape": (600, 600, 200)}, ["its pixels are 0.4 x 0.4 mm; the bundle expects"]),
        ({"spacing": (0.8, 0.8, 5.0)}, ["its slices are 5 mm apart; the bundle expects at most 2 mm"]),
        ({"spacing": (5.0, 0.8, 0.8), "shape": (200, 400, 400)}, ["its slices are 5 mm apart"]),
        ({"shape": (200, 400, 200)}, ["it shows 160 x 320 mm in plane; the bundle expects 200 to 500 mm"]),
        ({"shape": (400, 400, 20)}, ["it shows 30 mm across the slices; the bundle expects at least 100 mm"]),
        ({"low": 0.5}, ["its 1st percentile is 0.5 HU; the bundle expects -4096 to 0 HU"]),
        ({"high": 1.0}, ["its 99th percentile is 1 HU; the bundle expects 50 to 4096 HU"]),
        ({"modality": "PT", "high": 1.0}, ["it is PT", "its 99th percentile"]),
    ],
)
def test_each_difference_is_a_sentence(changes, said):
    found = input_warnings(CT, facts(**changes))
    assert len(found) == len(said) and all(text in one for text, one in zip(said, found, strict=True))


def test_what_a_bundle_does_not_say_is_not_compared():
    strange = facts(spacing=(9, 9, 99), modality="XA", low=5, high=6)
    assert input_warnings({}, strange) == []
    assert input_warnings({"spacing_mm": {"in_plane": [None, 10]}}, strange) == []


def test_values_without_a_unit():
    expected = {"intensity": {"unit": "arbitrary", "percentile_1": [0, None]}}
    assert input_warnings(expected, facts(low=-3.25)) == ["its 1st percentile is -3.25; the bundle expects at least 0"]


def test_facts_of_an_oblique_volume_whose_slices_come_first():
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([4.0, 1.0, -0.9])
    volume = torch.arange(5 * 30 * 41, dtype=torch.float32).reshape(1, 5, 30, 41)
    found = input_facts(volume, torch.as_tensor(affine), "MR")
    assert (found["modality"], found["shape"], found["slice_axis"]) == ("MR", [5, 30, 41], 0)
    assert found["spacing_mm"] == pytest.approx([4, 1, 0.9])
    assert found["field_of_view_mm"] == pytest.approx([20, 30, 36.9])
    wanted = np.percentile(np.arange(5 * 30 * 41), (1, 50, 99))
    assert list(found["intensity"].values()) == pytest.approx(list(wanted))
    json.dumps(found)


def test_percentiles_are_of_a_sample_of_all_channels_and_of_finite_values():
    volume = torch.randn(2, 200, 150, 3, generator=torch.Generator().manual_seed(0))
    volume[1] += 10
    volume[:, 50:90] = float("nan")
    found = input_facts(volume, np.eye(4))["intensity"]
    assert found["percentile_1"] < 0 and found["percentile_99"] > 10
    assert input_facts(volume * float("nan"), np.eye(4))["intensity"] == {}
    assert input_warnings(CT, input_facts(volume * float("nan"), np.diag([0.6, 0.6, 1, 1]))) != []


@pytest.mark.parametrize(
    ("affine", "axis"),
    [
        (np.diag([0.7, 0.7, 5, 1]), 2),
        (np.diag([5, 0.7, 0.71, 1]), 0),
        (np.diag([0.7, -5, 0.7, 1]), 1),
        (np.diag([1, 1.0001, 1, 1]), 2),
        (np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]), 1),  # cubes, head to foot second
    ],
)
def test_slices_are_counted_along_the_odd_axis(affine, axis):
    assert slice_axis(affine) == axis


@pytest.mark.parametrize(
    ("text", "said"), [(b"modality=CT", "CT"), (b"modality=", None), (b"made by a tool", None), (b"", None)]
)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_the_modality_stands_in_the_header_of_a_staged_file(tmp_path, name, text, said):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.header["descrip"] = text
    nibabel.save(image, tmp_path / name)
    assert stated_modality(tmp_path / name) == said


@pytest.mark.parametrize("name", ["a.nrrd", "folder", "absent.nii.gz"])
def test_other_files_state_no_modality(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.nrrd").write_bytes(b"modality=CT")
    assert stated_modality(tmp_path / name) is None


def test_the_hash_is_that_of_all_that_is_read(tmp_path):
    for name in ("a.nii.gz", "a.mhd", "a.HDR"):
        (tmp_path / name).write_bytes(b"voxels")
    assert content_hash(tmp_path / "a.nii.gz") == hashlib.sha256(b"voxels").hexdigest()
    assert [content_hash(tmp_path / name) for name in ("a.mhd", "a.HDR", ".")] == [None] * 3


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.parts[-3])
def test_every_bundle_names_the_paper_that_its_figures_are_of(path):
    references = (Path(__file__).resolve().parents[2] / "docs" / "references.bib").read_text()
    expected = json.loads(path.read_text())["expected_input"]
    keys = set(re.findall(r"@\w+\{(\w+),", references))
    assert keys & set(re.findall(r"\w+", expected["source"]))
