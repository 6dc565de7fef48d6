"""The converters of public angiographies on tiny data sets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from organ_sets import AFFINE, SHAPE, content, dropped, label, save

from common.checks import InputError
from common.data import convert_costa, convert_ixi, convert_topcow, inference_cases, labelled_classes, training_cases
from common.data.convert.topcow import ARTERIES, topcow_command
from common.data.decathlon import patient_of, read_dataset

GUYS = "IXI002-Guys-0828-MRA"


def angiogram(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 400, SHAPE).astype(np.int16)


def vessels(*values: int, seed: int = 0) -> np.ndarray:
    """Background with every value somewhere."""
    made = np.random.default_rng(seed).choice([0, *values], SHAPE).astype(np.uint8)
    made.ravel()[: len(values)] = values
    return made


def patients(folder: Path) -> dict[str, str]:
    _, listed = read_dataset(folder)
    return {Path(entry["image"]).name[:-7]: patient_of(entry, listed) for entry in listed["training"]}


def names(folder: Path, part: str) -> list[str]:
    return sorted(path.name[:-7] for path in (folder / part).glob("*.nii.gz"))


@pytest.fixture
def ixi_set(tmp_path):
    root = tmp_path / "IXI"
    for number, name in enumerate((GUYS, "IXI012-HH-1211-MRA", "IXI035-IOP-0873-MRA")):
        save(root / "IXI-MRA" / f"{name}.nii.gz", angiogram(number))
    save(root / "IXI-T1" / "IXI002-Guys-0828-T1.nii.gz", angiogram(9))
    return root


def test_ixi_has_no_labels_and_is_there_to_predict_on(ixi_set, tmp_path):
    source = ixi_set / "IXI-MRA" / f"{GUYS}.nii.gz"
    report = convert_ixi(ixi_set, tmp_path / "out")
    made = content(tmp_path / "out")
    assert names(tmp_path / "out", "imagesTs") == [GUYS, "IXI012-HH-1211-MRA", "IXI035-IOP-0873-MRA"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"imagesTs", "dataset.json", "conversion.json"}
    assert (tmp_path / "out" / "imagesTs" / source.name).read_bytes() == source.read_bytes()
    assert made["training"] == [] and made["numTest"] == 3 and made["modality"] == {"0": "MRA"}
    assert len(inference_cases(tmp_path / "out")) == 3 and made["licence"].startswith("CC BY-SA 3.0")
    assert report["cases"][GUYS]["shape"] == list(SHAPE) and "voxels" not in report["cases"][GUYS]
    with pytest.raises(InputError, match="training"):
        training_cases(tmp_path / "out", "training", 0, 2)


def test_ixi_with_labels_made_elsewhere(ixi_set, tmp_path):
    values = vessels(1, 7, 255)
    save(ixi_set / "labels" / "IXI012-HH-1211-MRA.nii.gz", values)  # named as the scan, below the same folder
    save(ixi_set / "labels" / "seg_ixi035.nii.gz", vessels(1).astype(np.float32))
    save(ixi_set / "labels" / "IXI600.nii.gz", vessels(1))
    convert_ixi(ixi_set, tmp_path / "out", labels=ixi_set / "labels", name="healthy")
    out = tmp_path / "out"
    np.testing.assert_array_equal(label(out, "IXI012-HH-1211-MRA"), values > 0)
    assert patients(out) == {"IXI012-HH-1211-MRA": "IXI012", "IXI035-IOP-0873-MRA": "IXI035"}
    assert names(out, "imagesTs") == [GUYS] and dropped(out) == {"IXI600": "its label has no image"}
    assert content(out)["name"] == "healthy" and labelled_classes(out, ["background", "vessel"]) == [1]


def test_faults_of_ixi(ixi_set, tmp_path):
    first = ixi_set / "IXI-MRA" / f"{GUYS}.nii.gz"
    first.write_bytes(first.read_bytes()[:2000])  # cut off, as one scan of the set is
    save(ixi_set / "IXI-MRA" / "IXI012-HH-1211-MRA.nii.gz", np.full(SHAPE, 7, np.int16))
    endless = angiogram().astype(np.float32)
    endless[3, 3, 3] = np.inf
    save(ixi_set / "IXI-MRA" / "IXI040-HH-0001-MRA.nii.gz", endless)
    save(ixi_set / "IXI-MRA" / "IXI041-HH-0001-MRA.nii.gz", np.stack([angiogram()] * 2, axis=-1))
    convert_ixi(ixi_set, tmp_path / "out")
    why = dropped(tmp_path / "out")
    assert "can not be read" in why.pop(GUYS)
    assert why == {
        "IXI012-HH-1211-MRA": "its image is 7 everywhere",
        "IXI040-HH-0001-MRA": "its image holds values that are not finite",
        "IXI041-HH-0001-MRA": "IXI041-HH-0001-MRA.nii.gz has shape (9, 8, 21, 2), not three axes",
    }
    assert str(tmp_path) not in (tmp_path / "out" / "dataset.json").read_text()


def test_what_is_not_ixi(ixi_set, tmp_path):
    with pytest.raises(InputError, match="no angiography of IXI: they are called as IXI002-Guys-0828-MRA.nii.gz"):
        convert_ixi(ixi_set / "IXI-T1", tmp_path / "out")
    with pytest.raises(InputError, match="--labels .* is no folder.*leave --labels out"):
        convert_ixi(ixi_set, tmp_path / "out", labels=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no label with a person's number"):
        convert_ixi(ixi_set, tmp_path / "out", labels=tmp_path / "empty")
    save(ixi_set / "again" / f"{GUYS}.nii.gz", angiogram())
    with pytest.raises(InputError, match=f"'{GUYS}.nii.gz' and '{GUYS}.nii.gz' are images of one case"):
        convert_ixi(ixi_set, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def costa_set(root: Path) -> Path:
    for number in (1, 2):
        save(root / "imagesTr" / f"a{number}.nii.gz", angiogram(number))
        save(root / "labelsTr" / f"a{number}.nii.gz", vessels(1, seed=number))
        save(root / "imagesTr_normed" / f"a{number}.nii.gz", angiogram(number))
    save(root / "imagesTr" / "a2_0001.nii.gz", angiogram(2))
    for number in (3, 4):
        save(root / "imagesTs" / f"a{number}_0000.nii.gz", angiogram(number))
    save(root / "labelsTs" / "a3.nii.gz", vessels(1, seed=3))
    return root


def test_costa_keeps_the_split_of_its_authors(tmp_path):
    costa_set(tmp_path / "s" / "Task099_COSTA")
    convert_costa(tmp_path / "s", tmp_path / "out")
    parts = {Path(entry["image"]).name[:2]: entry["split"] for entry in content(tmp_path / "out")["training"]}
    assert parts == {"a1": "train", "a2": "train", "a3": "test"}
    assert names(tmp_path / "out", "imagesTs") == ["a4"] and not dropped(tmp_path / "out")
    np.testing.assert_array_equal(label(tmp_path / "out", "a3"), vessels(1, seed=3))
    assert len(set(patients(tmp_path / "out").values())) == 3
    report = convert_costa(tmp_path / "s", tmp_path / "test", split="test")
    assert list(report["cases"]) == ["a3", "a4"]
    with pytest.raises(InputError, match="no case belongs to the split 'val': the data set has test, train"):
        convert_costa(tmp_path / "s", tmp_path / "val", split="val")


def test_centres_beside_each_other_are_joined(tmp_path):
    for centre in ("LocH1", "LocH2"):
        costa_set(tmp_path / "s" / centre)
    save(tmp_path / "s" / "LocH2" / "imagesTr" / "a5.nii.gz", angiogram(5))
    save(tmp_path / "s" / "LocH2" / "labelsTr" / "a6.nii.gz", vessels(1))
    save(tmp_path / "s" / "LocH1" / "labelsTr" / "a2.nii.gz", vessels(1), affine=AFFINE + np.eye(4)[:, [3, 0, 1, 2]])
    convert_costa(tmp_path / "s", tmp_path / "out")
    assert names(tmp_path / "out", "imagesTr") == ["LocH1_a1", "LocH1_a3", "LocH2_a1", "LocH2_a2", "LocH2_a3"]
    why = dropped(tmp_path / "out")
    assert "mm beside its image" in why.pop("LocH1_a2")
    assert why == {"LocH2_a5": "it has no label", "LocH2_a6": "its label has no image"}


def test_what_is_not_costa(tmp_path):
    save(tmp_path / "s" / "images" / "a.nii.gz", angiogram())
    with pytest.raises(InputError, match="they are called imagesTr and labelsTr, imagesTs and labelsTs"):
        convert_costa(tmp_path / "s", tmp_path / "out")


@pytest.fixture
def topcow_set(tmp_path):
    root = tmp_path / "TopCoW2024_Data_Release"
    for number in (1, 23):
        for kind in ("mr", "ct"):
            save(root / "imagesTr" / f"topcow_{kind}_{number:03}_0000.nii.gz", angiogram(number))
            save(root / "cow_seg_labelsTr" / f"topcow_{kind}_{number:03}.nii.gz", vessels(*ARTERIES, seed=number))
    return root


def test_topcow_takes_mr_and_one_class_by_default(topcow_set, tmp_path):
    convert_topcow(topcow_set.parent, tmp_path / "out")
    assert names(tmp_path / "out", "imagesTr") == ["topcow_mr_001", "topcow_mr_023"]
    np.testing.assert_array_equal(label(tmp_path / "out", "topcow_mr_023"), vessels(*ARTERIES, seed=23) > 0)
    made = content(tmp_path / "out")
    assert made["labels"] == {"0": "background", "1": "vessel"} and made["modality"] == {"0": "MRA"}
    source = topcow_set / "imagesTr" / "topcow_mr_001_0000.nii.gz"
    held = (tmp_path / "out" / "imagesTr" / "topcow_mr_001.nii.gz").read_bytes()
    assert gzip.decompress(held) == gzip.decompress(source.read_bytes())


def test_topcow_tells_arteries_apart_and_keeps_a_patient_together(topcow_set, tmp_path, capsys):
    topcow_command([str(topcow_set)], str(tmp_path / "out"), modality="both", classes="arteries")
    found = label(tmp_path / "out", "topcow_ct_001")
    wanted = vessels(*ARTERIES, seed=1)
    for number, artery in enumerate(ARTERIES, start=1):
        np.testing.assert_array_equal(found == number, wanted == artery)
    labels = content(tmp_path / "out")["labels"]
    assert labels["1"] == "BA" and labels["13"] == "3rd-A2" and len(labels) == 14
    assert patients(tmp_path / "out") == {
        f"topcow_{kind}_{number}": f"topcow_{number}" for kind in ("mr", "ct") for number in ("001", "023")
    }
    for fold in (0, 1):
        held = training_cases(tmp_path / "out", "validation", fold, 2)
        assert len({Path(case["image"]).name[10:13] for case in held}) == 1 and len(held) == 2
    assert "3rd-A2: in 4 cases" in capsys.readouterr().out


def test_the_form_of_2023(tmp_path):
    for part in ("whole", "roi"):
        save(tmp_path / "s" / "imagesTr" / f"topcow_mr_{part}_024_0000.nii.gz", angiogram())
        for labels in ("bin_labelsTr", "mul_labelsTr"):
            save(tmp_path / "s" / labels / f"topcow_mr_{part}_024.nii.gz", vessels(1, 12))
    convert_topcow(tmp_path / "s", tmp_path / "out")
    assert patients(tmp_path / "out") == {"topcow_mr_whole_024": "topcow_024"}
    assert dropped(tmp_path / "out") == {"topcow_mr_roi_024": "it is a crop of a scan that is there whole"}


def test_faults_of_topcow(topcow_set, tmp_path):
    images, labels = topcow_set / "imagesTr", topcow_set / "cow_seg_labelsTr"
    save(labels / "topcow_mr_001.nii.gz", vessels(1, 13, 14))
    for number, value in ((3, vessels(16)), (4, np.zeros(SHAPE, np.uint8)), (5, vessels(1)[:-1])):
        save(images / f"topcow_mr_{number:03}_0000.nii.gz", angiogram())
        save(labels / f"topcow_mr_{number:03}.nii.gz", value)
    save(images / "my_mr_scan.nii.gz", angiogram())
    save(labels / "my_mr_scan.nii.gz", vessels(1))
    save(images / "topcow_mr_006_0000.nii.gz", angiogram())
    convert_topcow(topcow_set, tmp_path / "out")
    assert dropped(tmp_path / "out") == {
        "topcow_mr_001": "topcow_mr_001.nii.gz holds the unknown numbers 13, 14",
        "topcow_mr_003": "topcow_mr_003.nii.gz holds the unknown numbers 16",
        "topcow_mr_004": "no vessel is labelled in it",
        "topcow_mr_005": "topcow_mr_005.nii.gz has shape (8, 8, 21), its image (9, 8, 21)",
        "topcow_mr_006": "it has no label",
        "my_mr_scan": "its name is not as topcow_mr_001",
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"modality": "mri"}, "--modality is 'mri': it is one of mr, ct, both. .*pass --modality mr"),
        ({"classes": "artery"}, "--classes is 'artery': it is one of binary, arteries.*pass --classes arteries"),
    ],
)
def test_unknown_choices_of_topcow(topcow_set, tmp_path, options, text):
    with pytest.raises(InputError, match=text):
        convert_topcow(topcow_set, tmp_path / "out", **options)


def test_what_is_not_topcow(topcow_set, tmp_path):
    with pytest.raises(InputError, match="called imagesTr and cow_seg_labelsTr, imagesTr and mul_labelsTr"):
        convert_topcow(topcow_set / "imagesTr", tmp_path / "out")
    for path in topcow_set.rglob("*_mr_*"):
        path.unlink()
    with pytest.raises(InputError, match="has no mr scans: they are called as topcow_mr_001_0000.*--modality"):
        convert_topcow(topcow_set, tmp_path / "out")
    convert_topcow(topcow_set, tmp_path / "ct", modality="ct")
    with pytest.raises(InputError, match="already exists.*--overwrite true"):
        convert_topcow(topcow_set, tmp_path / "ct", modality="ct")
    assert json.loads((tmp_path / "ct" / "dataset.json").read_text())["modality"] == {"0": "CT"}
