from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.data.decathlon import atomic_folder, patient_of, read_dataset, write_volume
from tests.data.folders import write_folder


@pytest.mark.parametrize("value", [None, "", "  "])
def test_empty_argument(value):
    with pytest.raises(InputError, match="dataset_dir is empty: .*pass --dataset_dir PATH"):
        read_dataset(value)


def test_missing_folder_file_and_empty_folder(tmp_path):
    with pytest.raises(InputError, match="no_such' does not exist: it must be a folder"):
        read_dataset(tmp_path / "no_such")
    with pytest.raises(InputError, match="is an empty folder: .*Medical Segmentation Decathlon"):
        read_dataset(tmp_path)
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="x' is a file: it must be a folder"):
        read_dataset(tmp_path / "x")
    with pytest.raises(InputError, match="has no dataset.json"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "dataset.json' is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"training": {}}', "'training' in .* is no list"),
        ('{"training": [{"image": "a.nii"}]}', "entry 0 of 'training' .* has no path for 'label'"),
        ('{"training": ["a.nii"]}', "entry 0 of 'training' .* has no path for 'image'"),
        ('{"training": [{"image": NaN, "label": "a.nii"}]}', "has no path for 'image' .*nan"),
        (
            '{"training": [{"image": "../a.nii", "label": "a.nii"}]}',
            r"lists '\.\./a\.nii': listed files must lie inside",
        ),
        ('{"training": [{"image": "/etc/a.nii", "label": "a.nii"}]}', "lists '/etc/a.nii'"),
        ('{"test": ["x/../../a.nii"]}', "entry 0 of 'test' .* must lie inside"),
    ],
)
def test_lists_of_another_form(tmp_path, text, expected):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=expected):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("BRATS_001", "BRATS_001"),
        ("hepaticvessel_0100", "hepaticvessel_0100"),
        ("case01_0000", "case01"),
        ("case01_visit2", "case01"),
        ("case01-ses-2_part1", "case01"),
        ("sub-07_ses-2_T2w", "sub-07"),
        ("scan_3", "scan_3"),
    ],
)
def test_patient_from_the_name(name, patient):
    assert patient_of({"image": f"./imagesTr/{name}.nii.gz"}, {}) == patient


def test_patient_said_by_the_list_comes_first():
    content = {"patients": {"a": "anna"}}
    assert patient_of({"image": "a.nii.gz"}, content) == "anna"
    assert patient_of({"image": "a.nii.gz", "patient": 7}, content) == "7"
    assert patient_of({"image": "b.nii.gz"}, content) == "b"


def test_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"), atomic_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        raise RuntimeError("stopped")
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "first").touch()
    with pytest.raises(InputError, match="out' already exists: .*--overwrite true"), atomic_folder(tmp_path / "out"):
        pass
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "out" / "first").exists()
    with atomic_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "second").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and [p.name for p in (tmp_path / "out").iterdir()] == [
        "second"
    ]


def test_unwritable_place(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="can not be written .*folder must be writable"),
        atomic_folder(tmp_path / "file" / "out"),
    ):
        pass


def test_volume_keeps_dtype_spacing_and_unit(tmp_path):
    volume = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    write_volume(tmp_path / "a.nii.gz", volume, (0.1, 0.2, 0.3), "micron")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.uint16 and image.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
    np.testing.assert_allclose(image.header.get_zooms(), (0.1, 0.2, 0.3), rtol=1e-6)


def test_links_out_of_the_folder_are_allowed(tmp_path):
    write_folder(tmp_path / "real", ["a"])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "images").symlink_to(tmp_path / "real" / "imagesTr")
    content = {"training": [], "test": ["images/a.nii.gz"]}
    (tmp_path / "linked" / "dataset.json").write_text(json.dumps(content))
    assert read_dataset(tmp_path / "linked")[1] == content
