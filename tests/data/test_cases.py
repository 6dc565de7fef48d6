from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from common.checks import InputError
from common.data import inference_cases, provenance, training_cases
from tests.data.folders import write_folder

NAMES = [f"case{number:02d}" for number in range(7)] + ["case00_visit2", "case01_visit2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(
        tmp_path_factory.mktemp("data"), NAMES, test=["t1", "t2"], name="seven", licence="CC0", reference="none"
    )


def _patients(cases):
    return {Path(case["image"]).name[:6] for case in cases}


def test_without_folds_every_case_is_in_both_parts(folder):
    train, validation = (training_cases(folder, part, fold="0", folds="None") for part in ("train", "validation"))
    assert train == validation == training_cases(folder, "all", folds=3)
    assert [Path(case["image"]).name for case in train] == [f"{name}.nii.gz" for name in NAMES]
    assert all(
        Path(case[key]).is_absolute() and Path(case[key]).is_file() for case in train for key in ("image", "label")
    )


@pytest.mark.parametrize("seed", [0, "5"])
@pytest.mark.parametrize("folds", [2, "3", 7])
def test_folds_partition_the_patients(folder, folds, seed):
    held_out = [_patients(training_cases(folder, "validation", fold, folds, seed)) for fold in range(int(folds))]
    assert sorted(patient for part in held_out for patient in part) == sorted({name[:6] for name in NAMES})
    for fold, part in enumerate(held_out):
        train = training_cases(folder, "train", str(fold), folds, seed)
        assert not _patients(train) & part
        assert len(train) + len(training_cases(folder, "validation", fold, folds, seed)) == len(NAMES)


def test_seed_decides_the_folds(folder):
    splits = {tuple(sorted(_patients(training_cases(folder, "validation", 0, 2, seed)))) for seed in range(6)}
    assert len(splits) > 1
    assert training_cases(folder, "validation", 0, 2, 4) == training_cases(folder, "validation", 0, 2, 4)


@pytest.mark.parametrize(
    ("cases", "kept"),
    [
        (None, range(9)),
        ("null", range(9)),
        (3, [3]),
        ("3", [3]),
        ("case04", [4]),
        ([5, 0], [0, 5]),
        ("[5, 0, 5]", [0, 5]),
        (["case07_nowhere"], None),
        ("['case01_visit2', 0]", [0, 8]),
        ("case01,case02", [1, 2]),
    ],
    ids=str,
)
def test_some_cases_of_the_list(folder, cases, kept):
    if kept is None:
        with pytest.raises(InputError, match="cases names 'case07_nowhere', which no entry of the training list"):
            training_cases(folder, cases=cases)
        return
    found = [Path(case["label"]).name for case in training_cases(folder, cases=cases)]
    assert found == [f"{NAMES[place]}.nii.gz" for place in kept]


def test_folds_are_dealt_among_the_chosen_cases(folder):
    chosen = ["case00", "case02", "case00_visit2"]
    sides = [
        [training_cases(folder, part, fold, 2, cases=chosen) for part in ("train", "validation")] for fold in (0, 1)
    ]
    for train, validation in sides:
        assert {Path(case["image"]).name[:-7] for case in train + validation} == set(chosen)
        assert len(train) + len(validation) == 3 and not _patients(train) & _patients(validation)
    assert sides[0][0] == sides[1][1]
    with pytest.raises(InputError, match="has 1 patients for 2 folds"):
        training_cases(folder, folds=2, cases=["case00", 7])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cases": 9}, "cases names 9, which no entry.*by its number, 0 to 8, or by one of the names case00, case01"),
        ({"cases": -1}, "cases names -1, which no entry"),
        ({"cases": []}, r"cases is \[\]: it must name at least one"),
        ({"cases": "[]"}, r"cases is '\[\]': it must name at least one"),
        ({"cases": "0,,1"}, "cases is '0,,1': it must name at least one"),
        ({"cases": [0.5]}, "cases is 0.5: it must be a whole number"),
        ({"part": "test"}, "part is 'test': it must be one of train, validation, all"),
        ({"folds": 3, "fold": 3}, "fold is 3 of 3: it must be 0 to 2"),
        ({"folds": 3, "fold": -1}, "fold is -1 of 3"),
        ({"folds": 1}, "folds is 1: cross-validation needs at least 2"),
        ({"folds": 8}, "has 7 patients for 8 folds: each fold needs at least one patient.*--folds 7 or less"),
        ({"folds": float("nan")}, "folds is nan: it must be a whole number"),
        ({"folds": 2, "fold": "first"}, "fold is 'first'"),
    ],
)
def test_wrong_arguments(folder, arguments, text):
    with pytest.raises(InputError, match=text):
        training_cases(folder, **arguments)


def test_two_cases_of_one_name(tmp_path):
    folder = write_folder(tmp_path, ["a", "b"])
    content = json.loads((folder / "dataset.json").read_text())
    content["training"].append(content["training"][0])
    (folder / "dataset.json").write_text(json.dumps(content))
    assert len(training_cases(folder, cases=[0, 2])) == 2
    with pytest.raises(InputError, match="cases names 'a', which several entries"):
        training_cases(folder, cases="a")


def test_no_training_entries(tmp_path):
    with pytest.raises(InputError, match="dataset.json' lists no training cases"):
        training_cases(write_folder(tmp_path, []))


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_absent_and_truncated_files_are_named_with_the_list(tmp_path, part):
    folder = write_folder(tmp_path, ["a", "b"])
    file = folder / part / "b.nii.gz"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(
        InputError, match=f"{part}/b.nii.gz' is truncated or damaged .* It is a training .*dataset.json'"
    ):
        training_cases(folder)
    file.unlink()
    with pytest.raises(InputError, match=f"{part}/b.nii.gz' does not exist.*dataset.json'"):
        training_cases(folder)
    assert len(inference_cases(folder)) == 2
    assert len(training_cases(folder, check_files=False)) == 2


def test_inference_takes_the_test_list_or_the_training_images(folder, tmp_path):
    assert [Path(case["image"]).name for case in inference_cases(folder)] == ["t1.nii.gz", "t2.nii.gz"]
    other = write_folder(tmp_path, ["a", "b"])
    assert inference_cases(str(other)) == [{"image": str(other / "imagesTr" / f"{n}.nii.gz")} for n in "ab"]
    content = json.loads((other / "dataset.json").read_text())
    del content["test"]
    (other / "dataset.json").write_text(json.dumps(content))
    assert len(inference_cases(other)) == 2


def test_inference_takes_a_folder_a_file_a_glob_and_several(folder, monkeypatch):
    (folder / "imagesTs" / "._t1.nii.gz").touch()
    (folder / "imagesTs" / "notes.txt").touch()
    plain = inference_cases(folder / "imagesTs")
    assert plain == inference_cases(str(folder / "imagesTs" / "t*.gz")) == inference_cases(folder)
    assert inference_cases(plain[0]["image"]) == plain[:1]
    assert inference_cases([plain[1]["image"], str(folder / "imagesTs")]) == plain[::-1]
    monkeypatch.chdir(folder)
    assert inference_cases("imagesTs") == inference_cases(os.path.join("**", "t*.nii.gz")) == plain


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "source of images is empty"),
        (None, "source of images is empty"),
        ("no_such", "no_such' does not exist"),
        ("*.nii", "holds no volume"),
        ([], "holds no volume"),
    ],
)
def test_nothing_to_predict(source, text):
    with pytest.raises(InputError, match=text):
        inference_cases(source)


def test_folder_without_volumes(tmp_path):
    (tmp_path / "slice1.dcm").touch()
    with pytest.raises(InputError, match=r"holds no volume: volumes are files ending in \.nii\.gz"):
        inference_cases(tmp_path)


def test_provenance_says_where_weights_come_from_and_names_no_patient(folder):
    found = provenance(folder, {"fold": "1", "folds": "3", "seed": 0})
    assert found == found | {
        "name": "seven",
        "licence": "CC0",
        "reference": "none",
        "phantom": False,
        "cases": 9,
        "split": {"fold": 1, "folds": 3, "seed": 0},
    }
    assert "case0" not in json.dumps(found) and str(folder) not in json.dumps(found)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"fold": 1, "folds": "null", "seed": 3}, {"folds": None}),
        ({"slice_fold": "1", "slice_folds": "3", "seed": 3}, {"slice_fold": 1, "slice_folds": 3, "seed": 3}),
        ({"slice_fold": 1, "slice_folds": "None", "slices": "[7,5,21]"}, {"slice_folds": None, "slices": [7, 5, 21]}),
        ({"slices": (7, 5, 21)}, {"slices": [7, 5, 21]}),
        ({"slices": "null"}, {"slices": None}),
        ({"held_out": "[[7,2],[],[4]]"}, {"held_out": [[2, 7], [], [4]]}),
        ({"held_out": "None", "cases": None}, {"held_out": None, "cases": None}),
        ({"cases": "[case02, 0]"}, {"cases": [0, 2]}),
        ({"cases": list(range(9))}, {"cases": None}),
    ],
)
def test_a_split_is_told_in_one_form_without_what_decides_nothing(folder, given, kept):
    assert provenance(folder, given)["split"] == kept


def test_provenance_repeats_nothing_of_a_folder_that_was_not_trained_on(folder, kidney, tmp_path):
    own, foreign = training_cases(kidney), training_cases(folder)
    assert provenance(kidney, cases=own) == provenance(kidney)
    found = provenance(kidney, {"fold": 0, "folds": 3, "cases": ["case00"]}, cases=foreign)
    assert found == found | {
        "name": "unnamed",
        "licence": "not stated",
        "phantom": False,
        "cases": 9,
        "split": {"folds": None},
    }
    assert found["fingerprint"] != provenance(kidney)["fingerprint"]
    assert provenance(kidney, cases=[*own, *foreign])["phantom"] is False


def test_fingerprint_follows_the_content_not_the_place(tmp_path):
    first, second, third = (
        write_folder(tmp_path / str(k), names) for k, names in enumerate((["a", "b"], ["a", "b"], ["a", "c"]))
    )
    same, other = provenance(first)["fingerprint"], provenance(third)["fingerprint"]
    assert provenance(second)["fingerprint"] == same != other
    (second / "imagesTr" / "a.nii.gz").write_bytes(b"x")
    assert provenance(second)["fingerprint"] != same


def test_phantom_is_said(kidney):
    assert provenance(kidney)["phantom"] is True
