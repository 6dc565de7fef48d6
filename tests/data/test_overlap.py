"""Scans that are known again: by content however they were stored, by the numbers of LiTS."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from folders import write_folder

from common.data import phantom_dataset, provenance, training_cases
from common.data.overlap import Contents, content_key, lits_number, resolved, shared_scans


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VOLSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ct(seed: int = 0, shape: tuple[int, int, int] = (11, 9, 7)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-1000, 300, shape).astype(np.int16)
    values[0] = -1024
    return values


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(values, affine, dtype=values.dtype), path)
    return path


def keys(*paths: Path) -> list[str]:
    return Contents(paths)()["scans"]


def test_a_scan_is_known_again_however_its_axes_lie():
    values = ct()
    expected = content_key(values)
    assert len(expected) == 32
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            assert content_key(values.transpose(axes)[tuple(slice(None, None, step) for step in flips)]) == expected


def test_the_key_is_of_the_counts_of_soft_tissue():
    """Two volumes have one key exactly when each whole HU from -150 to 250 is in both as often."""
    values = ct()
    changed = [values.copy() for _ in range(6)]
    changed[0][values < -150] = -2000  # other padding
    changed[1] = np.pad(values, 3, constant_values=-1000)  # a margin of air
    changed[2][values > 250] = 3000
    changed[3][1, 1, 1] = 7 if values[1, 1, 1] != 7 else 8
    changed[4] = values[:-1]
    changed[5] = values + 1
    same = []
    for other in changed:
        within = [np.sort(one[(one >= -150) & (one <= 250)].ravel()) for one in (values, other)]
        same.append(np.array_equal(*within))
        assert (content_key(other) == content_key(values)) == same[-1]
    assert same == [True, True, True, False, False, False]


def test_the_stored_form_does_not_matter(tmp_path):
    values = ct()
    shifted = ((values + 1024) * 2).astype(np.uint16)
    expected = content_key(values)
    assert content_key(shifted, 0.5, -1024) == content_key(values.astype(np.float32)) == expected
    assert content_key(np.asfortranarray(values)) == expected
    assert content_key(values[values > -2000]) == expected  # of any shape


def test_a_volume_with_next_to_nothing_in_it_is_like_no_other():
    empty = np.full((5, 5, 5), -1024, np.int16)
    assert content_key(empty) is None
    empty[0, 0, :5] = range(5)
    assert content_key(empty) is None
    assert content_key(np.zeros((0, 3, 3), np.int16)) is None


def test_files_of_several_formats_names_and_affines_have_one_key(tmp_path):
    nrrd = pytest.importorskip("nrrd", reason="pynrrd is not installed: pip install 'volseg[formats]'")
    values = ct()
    turned = np.diag([-0.7, 0.7, 2.5, 1.0])
    header = {"space": "left-posterior-superior", "space directions": np.eye(3), "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "c.nrrd"), values, header)
    files = [
        save(tmp_path / "a.nii", values),
        save(tmp_path / "b.nii.gz", values[::-1].astype(np.float64), turned),
        save(tmp_path / "d.nii.gz", values.swapaxes(0, 1)[..., None]),
        tmp_path / "c.nrrd",
    ]
    assert keys(*files) == [content_key(values)] * 4
    assert keys(save(tmp_path / "other.nii", ct(1))) == [content_key(ct(1))] != [content_key(values)]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("volume-27.nii", 27),
        ("imagesTr/liver_0.nii.gz", 0),
        ("liver_130.nii.gz", 130),
        ("liver_131.nii.gz", None),
        ("segmentation-27.nii", None),
        ("my_liver_27.nii.gz", None),
        ("test-volume-27.nii", None),
        ("volume-27-a.nii", None),
    ],
)
def test_numbers_of_lits(name, number):
    assert lits_number(name) == number


def test_nothing_is_read_before_it_is_asked_for_and_then_once(tmp_path, cache, monkeypatch):
    path = save(tmp_path / "volume-30.nii", ct())
    read = []
    load = nibabel.load
    monkeypatch.setattr("common.data.overlap.nibabel.load", lambda one: read.append(one) or load(one))
    contents = Contents([path], "3D-IRCADb-01")
    assert read == []
    found = contents()
    assert found == {"scans": [content_key(ct())], "lits": [30], "collection": "3D-IRCADb-01"}
    assert contents() is found and Contents([path])()["scans"] == found["scans"] and read == [path]
    kept = (cache / "contents_1.json").read_text()
    assert "volume" not in kept and str(tmp_path) not in kept
    save(path, ct(1)[:-1])  # of another size
    assert keys(path) == [content_key(ct(1)[:-1])] and read == [path] * 2


@pytest.mark.parametrize("broken", ["", "no json", "[]"])
def test_a_cache_that_is_broken_or_not_writable_does_no_harm(tmp_path, cache, broken):
    path = save(tmp_path / "a.nii", ct())
    cache.mkdir()
    (cache / "contents_1.json").write_text(broken)
    assert keys(path) == keys(path) == [content_key(ct())]
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    assert keys(path) == [content_key(ct())]


def test_what_can_not_be_read_is_left_to_those_who_use_it(tmp_path):
    whole, cut = (save(tmp_path / name, ct()) for name in ("a.nii.gz", "b.nii.gz"))
    cut.write_bytes(cut.read_bytes()[:400])
    (tmp_path / "c.nii").write_text("no volume")
    unknown = tmp_path / "d.mha"
    unknown.write_text("no volume")
    assert keys(whole, cut, tmp_path / "c.nii", unknown, tmp_path / "absent.nii") == [content_key(ct())]
    cut.write_bytes(whole.read_bytes())  # mended
    assert len(keys(whole, cut)) == 2


def test_what_is_shared_is_counted():
    assert shared_scans(None, None) == shared_scans({}, {"scans": ["a"]}) == shared_scans({"scans": ["a"]}, None) == ""
    assert shared_scans({"scans": ["a", "b"], "lits": [3]}, {"scans": ["c"], "lits": [3], "collection": None}) == ""
    text = shared_scans({"scans": ["a", "b", "c"]}, {"scans": ["c", "b", "d", "e"]})
    assert text.startswith("2 of the 4 scans scored here are among the 3 that these weights were trained on")


@pytest.mark.parametrize(("numbers", "count"), [([0, 26, 49, 130], 0), (range(131), 22), ([27, 48, 5], 2), ([], 0)])
def test_lits_holds_3dircadb(numbers, count):
    lits, ircadb = {"lits": list(numbers)}, {"collection": "3D-IRCADb-01"}
    text, other = shared_scans(lits, ircadb), shared_scans(ircadb, lits)
    if count:
        assert text.startswith(
            f"{count} of the LiTS cases 27 to 48 were trained on, by their file names, and 3D-IRCADb"
        )
        assert other.startswith(f"{count} of the LiTS cases 27 to 48 were scored")
        assert "3D-IRCADb-01 was scored" in text and "3D-IRCADb-01 was trained on" in other
    assert bool(text) == bool(other) == bool(count) and not shared_scans(lits, {"collection": None})
    assert not shared_scans(lits, lits) and not shared_scans(ircadb, ircadb)


def test_provenance_has_the_contents_of_what_was_trained_on(tmp_path):
    folder = write_folder(tmp_path / "data", ["liver_27", "liver_28", "liver_3"], description="from 3Dircadb")
    cases = training_cases(folder, "train", folds=3)
    told = provenance(folder, {"fold": 0, "folds": 3, "seed": 0}, cases, contents="true")
    info = resolved(told)
    assert {key: value for key, value in info.items() if key != "contents"} == provenance(
        folder, {"fold": 0, "folds": 3, "seed": 0}, cases
    )
    assert info["contents"] == {
        "scans": sorted(content_key(np.asarray(nibabel.load(case["image"]).dataobj)) for case in cases),
        "lits": sorted(lits_number(case["image"]) for case in cases),
        "collection": "3D-IRCADb-01",
    }
    assert len(info["contents"]["scans"]) == 2 and json.loads(json.dumps(info)) == info
    assert len(resolved(provenance(folder, contents=True))["contents"]["scans"]) == 3
    other = write_folder(tmp_path / "other", ["a"])
    elsewhere = resolved(provenance(other, None, cases, contents=True))["contents"]
    assert elsewhere == {**info["contents"], "collection": None}


def test_phantoms_have_no_contents(tmp_path):
    folder = phantom_dataset("kidney", cases=1, size=(64, 56, 32), cache_dir=tmp_path / "phantoms")
    assert "contents" not in provenance(folder, contents=True)
    found = provenance(folder, cases=training_cases(write_folder(tmp_path / "real", ["a"])), contents=True)
    assert "contents" in found


def test_a_recorded_scan_is_known_after_a_turn_and_another_format(real_data, tmp_path):
    """What a converter of DICOM and one of NIfTI make of one recorded CT."""
    (path,) = sorted((real_data / "liver_ct" / "imagesTr").glob("*.nii.gz"))[:1]
    image = nibabel.load(path)
    values = np.asarray(image.dataobj).astype(np.float32)
    copy = save(tmp_path / "volume-28.nii", np.ascontiguousarray(values.transpose(1, 0, 2)[:, ::-1]))
    assert keys(copy) == keys(path) and len(keys(path)) == 1
    assert keys(save(tmp_path / "half.nii", values[..., : values.shape[2] // 2])) != keys(path)
