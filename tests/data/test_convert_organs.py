"""The converters of abdominal CT on tiny data sets in the layouts of TotalSegmentator, BTCV and AMOS."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.data import (
    convert_amos,
    convert_btcv,
    convert_totalsegmentator,
    inference_cases,
    training_cases,
)
from common.data.convert import amos, btcv, organs, sources, totalsegmentator
from common.data.convert.organs import CLASSES
from common.data.convert.sources import Dropped, hounsfield_fault, open_volume, read_numbers
from common.data.decathlon import patient_of, read_dataset

SHAPE = (9, 8, 21)  # more slices than are counted at once
# flipped, turned and anisotropic
AFFINE = np.array([[0.0, -0.7, 0.0, 11.0], [-0.8, 0.0, 0.0, 3.0], [0.0, 0.0, 2.5, -40.0], [0.0, 0.0, 0.0, 1.0]])
MASKS = {
    "artery": "aorta",
    "portal vein": "portal_vein_and_splenic_vein",
    **{organ: organ for organ in ("liver", "spleen", "stomach", "gallbladder", "pancreas")},
}
BTCV = ["", "spleen", "", "", "gallbladder", "", "liver", "stomach", "artery", "", "portal vein", "pancreas", "", ""]
AMOS = ["", "spleen", "", "", "gallbladder", "", "liver", "stomach", "artery", "", "pancreas", "", "", "", "", ""]


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **header) -> Path:
    """Write a volume; `header` are fields set on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
    image.set_sform(affine, code=1)
    image.header["descrip"] = "not for labels"
    for field, value in header.items():
        image.header[field] = value
    nibabel.save(image, path)
    return path


def scan(seed: int = 0) -> np.ndarray:
    """Air with a block of tissue of about 60 HU."""
    values = np.random.default_rng(seed).integers(-1020, -990, SHAPE).astype(np.int16)
    values[2:7, 2:7] = np.random.default_rng(seed).integers(40, 80, (5, 5, SHAPE[2]))
    return values


def numbers(highest: int, seed: int = 0) -> np.ndarray:
    """Every number up to `highest` somewhere in the tissue."""
    values = np.zeros(SHAPE, np.uint8)
    block = np.random.default_rng(seed).integers(0, highest + 1, (5, 5, SHAPE[2]))
    block.ravel()[: highest + 1] = range(highest + 1)
    values[2:7, 2:7] = block
    return values


def expected(values: np.ndarray, names: list[str]) -> np.ndarray:
    """Classes voxel by voxel."""
    made = np.zeros(values.shape, int)
    for place in np.ndindex(*values.shape):
        name = names[values[place]]
        made[place] = CLASSES.index(name) if name else 0
    return made


def masks(folder: Path, classes: np.ndarray, **more) -> Path:
    """A case of the TotalSegmentator data set."""
    save(folder / "ct.nii.gz", scan(), **more)
    for organ, structure in MASKS.items():
        mask = (classes == CLASSES.index(organ)).astype(np.uint8)
        save(folder / "segmentations" / f"{structure}.nii.gz", mask)
    save(folder / "segmentations" / "brain.nii.gz", np.zeros(SHAPE, np.uint8))
    return folder


def content(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def dropped(folder: Path) -> dict[str, str]:
    return {case["case"]: case["why"] for case in content(folder)["dropped"]}


def label(folder: Path, name: str) -> np.ndarray:
    return np.asarray(nibabel.load(folder / "labelsTr" / f"{name}.nii.gz").dataobj)


@pytest.fixture
def totalseg(tmp_path):
    """Two cases, one of them with its masks overlapping, and a scan of the legs."""
    root = tmp_path / "Totalsegmentator_dataset_v201"
    classes = numbers(7)
    masks(root / "s0000", classes)
    masks(root / "s0011", classes)
    masks(root / "s0004", np.zeros(SHAPE))
    rows = ["image_id;age;gender;institute;study_type;split", "s0000;60;m;A;ct abdomen;train", "s0011;70;f;A;ct;test"]
    (root / "meta.csv").write_text("\n".join([*rows, "s0004;55;m;B;ct legs;train"]), encoding="utf-8-sig")
    return root


def test_the_classes_are_those_of_the_bundle(repository):
    config = json.loads((repository / "bundles" / "cascaded_multiorgan" / "configs" / "train.json").read_text())
    assert list(CLASSES) == config["class_names"]
    for table in (btcv.NUMBERS, amos.NUMBERS, *(one for one, _ in totalsegmentator.NUMBERS.values())):
        assert set(table.values()) <= set(CLASSES[1:]) and len(set(table.values())) == len(table)
    assert set(totalsegmentator._MASKS) == set(CLASSES[1:]) == set(MASKS)


def test_masks_become_classes_on_the_grid_of_the_image(totalseg, tmp_path):
    report = convert_totalsegmentator(totalseg, tmp_path / "out")
    cases = training_cases(tmp_path / "out")
    assert [Path(case["image"]).name for case in cases] == ["s0000.nii.gz", "s0011.nii.gz"]
    np.testing.assert_array_equal(label(tmp_path / "out", "s0000"), numbers(7))
    image, made = (nibabel.load(cases[0][key]) for key in ("image", "label"))
    assert made.get_data_dtype() == np.uint8 and b"not for" not in made.header["descrip"].tobytes()
    np.testing.assert_array_equal(made.affine, image.affine)
    assert int(made.header["sform_code"]) == 1 and made.header["qform_code"] == image.header["qform_code"]
    voxels = np.bincount(numbers(7).ravel(), minlength=8).tolist()
    assert list(report["cases"]["s0000"]["voxels"].values()) == voxels
    assert report["cases"]["s0000"]["overlap"] == 0 and report["cases"]["s0000"]["shape"] == list(SHAPE)
    assert report["cases"]["s0000"]["hounsfield"] == [scan().min(), scan().max()]
    assert json.loads((tmp_path / "out" / "conversion.json").read_text()) == report
    assert content(tmp_path / "out")["labels"] == {str(number): name for number, name in enumerate(CLASSES)}


def test_scans_without_an_organ_are_listed(totalseg, tmp_path):
    convert_totalsegmentator(totalseg, tmp_path / "out")
    assert dropped(tmp_path / "out") == {"s0004": "none of the seven organs is labelled in it"}
    assert content(tmp_path / "out")["numTraining"] == 2


def test_splits_are_kept_and_chosen(totalseg, tmp_path):
    convert_totalsegmentator(totalseg, tmp_path / "out", name="TS", licence="mine", reference="there")
    made = content(tmp_path / "out")
    assert [entry["split"] for entry in made["training"]] == ["train", "test"]
    assert (made["name"], made["licence"], made["reference"]) == ("TS", "mine", "there")
    convert_totalsegmentator(totalseg, tmp_path / "test", split="test")
    assert [entry["patient"] for entry in content(tmp_path / "test")["training"]] == ["s0011"]
    with pytest.raises(InputError, match="no case belongs to the split 'tst': the data set has test, train"):
        convert_totalsegmentator(totalseg, tmp_path / "none", split="tst")
    (totalseg / "meta.csv").unlink()
    convert_totalsegmentator(totalseg, tmp_path / "without")
    assert "split" not in content(tmp_path / "without")["training"][0]
    with pytest.raises(InputError, match="split 'train': the data set names none"):
        convert_totalsegmentator(totalseg, tmp_path / "none", split="train")
    (totalseg / "meta.csv").write_text("image_id,split\ns0000,train\n")
    with pytest.raises(InputError, match="has the columns image_id,split: image_id and split .* semicolons"):
        convert_totalsegmentator(totalseg, tmp_path / "none")


def test_where_masks_overlap_the_thinner_structure_stays(totalseg, tmp_path, capsys):
    for structure in MASKS.values():
        mask = np.zeros(SHAPE, np.uint8)
        mask[3, 3, 3] = 1
        mask[4, 4, 4:6] = structure in ("liver", "portal_vein_and_splenic_vein")
        save(totalseg / "s0011" / "segmentations" / f"{structure}.nii.gz", mask)
    totalsegmentator.totalsegmentator_command([str(totalseg)], str(tmp_path / "out"))
    made = label(tmp_path / "out", "s0011")
    assert made[3, 3, 3] == CLASSES.index("artery") and set(made[4, 4, 4:6]) == {CLASSES.index("portal vein")}
    assert np.count_nonzero(made) == 3
    printed = capsys.readouterr().out
    assert "8 voxels of 1 cases were in several masks" in printed  # six masks under the aorta, two voxels of liver
    assert "dropped s0004: none of the seven" in printed and "2 cases, 1 dropped" in printed
    assert "artery: in 2 cases" in printed and "spleen: in 1 cases" in printed


def _remove_mask(case):
    (case / "segmentations" / "aorta.nii.gz").unlink()


def _wrong_mask(case):
    save(case / "segmentations" / "aorta.nii.gz", np.full(SHAPE, 3, np.uint8))


def _other_shape(case):
    save(case / "segmentations" / "aorta.nii.gz", np.zeros((9, 8, 20), np.uint8))


def _moved(case):
    affine = AFFINE.copy()
    affine[0, 3] += 0.1
    save(case / "segmentations" / "aorta.nii.gz", np.zeros(SHAPE, np.uint8), affine)


def _no_image(case):
    (case / "ct.nii.gz").unlink()


def _cut_image(case):
    data = (case / "ct.nii.gz").read_bytes()
    (case / "ct.nii.gz").write_bytes(data[: len(data) // 2])


def _text_image(case):
    (case / "ct.nii.gz").write_bytes(gzip.compress(b"no volume at all"))


def _empty_image(case):
    save(case / "ct.nii.gz", np.zeros(SHAPE, np.int16))


def _offset(case):
    save(case / "ct.nii.gz", scan() + np.int16(1024))


def _halved(case):
    save(case / "ct.nii.gz", scan() - np.int16(500))


def _not_finite(case):
    values = scan().astype(np.float32)
    values[0, 0, 0] = np.nan
    save(case / "ct.nii.gz", values)


def _series(case):
    save(case / "ct.nii.gz", np.zeros((*SHAPE, 2), np.int16))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_remove_mask, "its segmentations have no aorta.nii.gz"),
        (_wrong_mask, "aorta.nii.gz holds the unknown numbers 3"),
        (_other_shape, "aorta.nii.gz has shape (9, 8, 20), its image (9, 8, 21)"),
        (_moved, "aorta.nii.gz lies up to 0.1 mm beside its image"),
        (_no_image, "it has no ct.nii.gz"),
        (_cut_image, "ct.nii.gz can not be read (Compressed file ended"),
        (_text_image, "ct.nii.gz can not be read ("),
        (_empty_image, "its image is 0 everywhere"),
        (_offset, "its image has no air (its values are 4 to 1103)"),
        (_halved, "its liver, spleen and pancreas have a median of -4"),
        (_not_finite, "its image holds values that are not finite"),
        (_series, "ct.nii.gz has shape (9, 8, 21, 2), not three axes"),
    ],
)
def test_a_case_with_a_fault_is_left_out_and_the_others_are_converted(totalseg, tmp_path, spoil, why):
    spoil(totalseg / "s0000")
    convert_totalsegmentator(totalseg, tmp_path / "out")
    assert dropped(tmp_path / "out")["s0000"].startswith(why)
    assert str(tmp_path) not in dropped(tmp_path / "out")["s0000"]
    parts = [sorted(os.listdir(tmp_path / "out" / part)) for part in ("imagesTr", "labelsTr")]
    assert parts == [["s0011.nii.gz"]] * 2


def test_nothing_left_is_an_error_and_leaves_nothing(totalseg, tmp_path):
    for case in ("s0000", "s0011"):
        _empty_image(totalseg / case)
    with pytest.raises(InputError, match="not one of 3 cases .*s0000: its image is 0 everywhere; s0004: none of"):
        convert_totalsegmentator(totalseg, tmp_path / "out")
    assert os.listdir(tmp_path) == [totalseg.name]


def test_an_interrupted_conversion_leaves_nothing(totalseg, tmp_path, monkeypatch):
    place, done = organs._place_image, []

    def interrupted(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(place(*arguments))

    monkeypatch.setattr(organs, "_place_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_totalsegmentator(totalseg, tmp_path / "out")
    assert done and os.listdir(tmp_path) == [totalseg.name]


def test_nothing_is_overwritten_unless_asked(totalseg, tmp_path):
    convert_totalsegmentator(totalseg, tmp_path / "out")
    with pytest.raises(InputError, match="out' already exists"):
        convert_totalsegmentator(totalseg, tmp_path / "out")
    convert_totalsegmentator(totalseg, tmp_path / "out", split="test", overwrite="true")
    assert content(tmp_path / "out")["numTraining"] == 1


@pytest.mark.parametrize("level", [".", "..", "s0000"])
def test_the_data_set_is_found_where_it_was_unpacked(totalseg, tmp_path, level):
    convert_totalsegmentator(totalseg / level, tmp_path / "out")
    made = content(tmp_path / "out")["training"]
    assert [entry["split"] for entry in made] == (["train"] if level == "s0000" else ["train", "test"])


def test_images_are_linked_or_copied_byte_for_byte(totalseg, tmp_path, monkeypatch):
    source = totalseg / "s0000" / "ct.nii.gz"
    for out, options in (("linked", {}), ("copied", {"copy": "true"})):
        convert_totalsegmentator(totalseg, tmp_path / out, **options)
        target = tmp_path / out / "imagesTr" / "s0000.nii.gz"
        assert target.read_bytes() == source.read_bytes()
        assert os.path.samefile(source, target) == (out == "linked")

    def refused(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    convert_totalsegmentator(totalseg, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "imagesTr" / "s0000.nii.gz").read_bytes() == source.read_bytes()


def test_a_link_to_an_image_is_followed(totalseg, tmp_path):
    moved = (totalseg / "s0000" / "ct.nii.gz").rename(tmp_path / "far.nii.gz")
    (totalseg / "s0000" / "ct.nii.gz").symlink_to(moved)
    convert_totalsegmentator(totalseg, tmp_path / "out")
    assert not (tmp_path / "out" / "imagesTr" / "s0000.nii.gz").is_symlink()


@pytest.mark.parametrize(("labels", "aorta", "highest"), [("total", 52, 117), ("total_v1", 7, 104)])
def test_label_volumes_of_a_class_map(tmp_path, labels, aorta, highest):
    save(tmp_path / "images" / "a.nii.gz", scan())
    save(tmp_path / "images" / "b.nii.gz", scan())
    values = numbers(highest)
    save(tmp_path / "labels" / "a.nii.gz", values)
    save(tmp_path / "labels" / "b.nii.gz", np.full(SHAPE, highest + 1, np.uint8))
    save(tmp_path / "labels" / "c.nii.gz", values)
    folders = [tmp_path / "images", tmp_path / "labels"]
    convert_totalsegmentator(folders, tmp_path / "out", labels=labels)
    made = label(tmp_path / "out", "a")
    table, _ = totalsegmentator.NUMBERS[labels]
    assert table[aorta] == "artery"
    names = [table.get(number, "") for number in range(highest + 1)]
    np.testing.assert_array_equal(made, expected(values, names))
    assert dropped(tmp_path / "out") == {
        "b": f"b.nii.gz holds the unknown numbers {highest + 1}",
        "c": "its label has no image",
    }
    assert content(tmp_path / "out")["licence"] == "not stated"
    files = [tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "c.nii.gz"]  # a pair whatever they are called
    convert_totalsegmentator(files, tmp_path / "pair", labels=labels)
    np.testing.assert_array_equal(label(tmp_path / "pair", "a"), made)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"labels": "total_mr"}, "labels is 'total_mr': it must be one of masks, total, total_v1"),
        ({"source": "nowhere"}, "'nowhere' does not exist: it must be the folder of the unpacked data set"),
        ({"source": ["a", "b"]}, "2 sources were named: with --labels masks it is one folder"),
        ({"labels": "total"}, "1 sources were named: with --labels total it is two: the images, then the label"),
        ({"source": ["here", "nowhere"], "labels": "total"}, "'nowhere' does not exist: it must be a file or a folder"),
        ({"source": ["here", "here"], "labels": "total"}, "'here' holds no volume"),
        ({"source": "here"}, "'here' holds no case: a case is a folder such as s0000"),
        ({"source": "file.nii.gz"}, "'file.nii.gz' is a file: it must be the folder"),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "file.nii.gz").touch()
    with pytest.raises(InputError, match=text):
        convert_totalsegmentator(**{"source": "here", "out_dir": "out", **arguments})


BTCV_LAYOUTS = [
    ("img/img0001", "label/label0001"),
    ("Abdomen/RawData/Training/img/img0001", "Abdomen/RawData/Training/label/label0001"),
    ("imagesTr/img0001", "labelsTr/label0001"),
    ("imagesTr/img0001_0000", "labelsTr/img0001"),
    ("averaged-training-images/DET0000101_avg", "averaged-training-labels/DET0000101_avg_seg"),
]


@pytest.mark.parametrize(("image", "labels"), BTCV_LAYOUTS)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_btcv_in_the_layouts_that_people_have(tmp_path, image, labels, ending):
    source = save(tmp_path / "source" / f"{image}{ending}", scan())
    save(tmp_path / "source" / f"{labels}{ending}", numbers(13))
    (source.parent / f"._{source.name}").touch()  # what macOS leaves behind
    convert_btcv(tmp_path / "source", tmp_path / "out")
    name = Path(image).name.removesuffix("_0000")
    np.testing.assert_array_equal(label(tmp_path / "out", name), expected(numbers(13), BTCV))
    made = tmp_path / "out" / "imagesTr" / f"{name}.nii.gz"
    held = source.read_bytes()
    assert gzip.decompress(made.read_bytes()) == (gzip.decompress(held) if ending == ".nii.gz" else held)
    assert len(content(tmp_path / "out")["labels"]) == 8 and not dropped(tmp_path / "out")


def test_btcv_pairs_by_number_and_lists_what_lacks_its_partner(tmp_path):
    for number in (2, 10, 3):
        save(tmp_path / "s" / "img" / f"img{number:04}.nii.gz", scan(number))
    for number in (10, 2, 4):
        save(tmp_path / "s" / "label" / f"label{number:04}.nii.gz", numbers(13, number).astype(np.float64))
    save(tmp_path / "s" / "label" / "label0003.nii.gz", numbers(13) + 0.5)
    convert_btcv(tmp_path / "s", tmp_path / "out")
    for number in (2, 10):
        np.testing.assert_array_equal(label(tmp_path / "out", f"img{number:04}"), expected(numbers(13, number), BTCV))
    assert dropped(tmp_path / "out") == {
        "img0003": "label0003.nii.gz holds fractions, not the numbers of a label",
        "label0004": "its label has no image",
    }


def test_btcv_refuses_what_is_not_btcv(tmp_path):
    for part in ("Abdomen", "Cervix"):
        save(tmp_path / part / "img" / "img0001.nii.gz", scan())
        save(tmp_path / part / "label" / "label0001.nii.gz", numbers(13))
    with pytest.raises(InputError, match=r"holds several data sets \(Abdomen, Cervix\)"):
        convert_btcv(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="has no folders of images and labels: they are called img and label, images"):
        convert_btcv(tmp_path / "Abdomen" / "img", tmp_path / "out")
    (tmp_path / "Abdomen" / "dataset.json").write_text(json.dumps({"labels": {"6": "Liver", "10": "pancreas"}}))
    with pytest.raises(InputError, match="gives pancreas the number 10: in the data set as published it is 11"):
        convert_btcv(tmp_path / "Abdomen", tmp_path / "out")
    save(tmp_path / "Cervix" / "img" / "1.nii.gz", scan())
    with pytest.raises(InputError, match="'1.nii.gz' and 'img0001.nii.gz' are images of one case"):
        convert_btcv(tmp_path / "Cervix", tmp_path / "out")


@pytest.fixture
def amos_set(tmp_path):
    root = tmp_path / "amos22"
    for part, cases in (("Tr", (1, 4, 500, 501)), ("Va", (8, 507))):
        for number in cases:
            save(root / f"images{part}" / f"amos_{number:04}.nii.gz", scan())
            save(root / f"labels{part}" / f"amos_{number:04}.nii.gz", numbers(15, number))
    save(root / "imagesTs" / "amos_0002.nii.gz", scan())
    names = {"0": "background", "4": "gall bladder", "6": "liver", "8": "arota", "10": "pancreas"}
    (root / "dataset.json").write_text(json.dumps({"labels": names}))
    return root


def test_amos_lists_the_classes_that_it_has(amos_set, tmp_path):
    convert_amos(amos_set.parent, tmp_path / "out")
    made = content(tmp_path / "out")
    assert sorted(made["labels"]) == ["0", "1", "3", "4", "5", "6", "7"]
    np.testing.assert_array_equal(label(tmp_path / "out", "amos_0004"), expected(numbers(15, 4), AMOS))
    parts = {Path(entry["image"]).name[5:9]: entry["split"] for entry in made["training"]}
    assert parts == {"0001": "train", "0004": "train", "0500": "train", "0008": "val"}
    mr = "it is MR: its number is above 500"
    assert dropped(tmp_path / "out") == {"amos_0501": mr, "amos_0507": mr}


def test_every_case_of_amos_is_a_patient(amos_set, tmp_path):
    convert_amos(amos_set, tmp_path / "out")
    _, listed = read_dataset(tmp_path / "out")
    assert len({patient_of(entry, listed) for entry in listed["training"]}) == 4
    assert len(training_cases(tmp_path / "out", "validation", 0, 4)) == 1
    assert len(inference_cases(tmp_path / "out")) == 4


def test_amos_by_split(amos_set, tmp_path):
    report = convert_amos(amos_set, tmp_path / "out", split="val", name="validation")
    assert list(report["cases"]) == ["amos_0008"] and content(tmp_path / "out")["name"] == "validation"


def test_two_cases_of_one_name(amos_set, tmp_path):
    for part in ("images", "labels"):
        held = amos_set / f"{part}Tr" / "amos_0001.nii.gz"
        (amos_set / f"{part}Va" / held.name).write_bytes(held.read_bytes())
    with pytest.raises(InputError, match="several cases are called 'amos_0001'"):
        convert_amos(amos_set, tmp_path / "out")


def test_the_slope_of_the_header_counts(tmp_path):
    """HU are judged as a reader sees them; the stored numbers of a label with a slope too."""
    stored = ((scan() + 1024) // 2).astype(np.int16)
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(2, -1024)
    (tmp_path / "img").mkdir()
    nibabel.save(image, tmp_path / "img" / "1.nii.gz")
    # nibabel scales when it saves: the stored numbers are written past it
    data = bytearray(gzip.decompress((tmp_path / "img" / "1.nii.gz").read_bytes()))
    data[352:] = stored.tobytes(order="F")
    (tmp_path / "img" / "1.nii.gz").write_bytes(gzip.compress(bytes(data)))
    seen = np.asarray(nibabel.load(tmp_path / "img" / "1.nii.gz").dataobj)
    doubled = nibabel.Nifti1Image(numbers(13).astype(np.float32) * 2, AFFINE, dtype=np.uint8)
    doubled.header.set_slope_inter(2, 0)
    (tmp_path / "label").mkdir()
    nibabel.save(doubled, tmp_path / "label" / "1.nii.gz")
    data = bytearray(gzip.decompress((tmp_path / "label" / "1.nii.gz").read_bytes()))
    held = (numbers(13) % 7).astype(np.uint8)
    data[352:] = held.tobytes(order="F")
    (tmp_path / "label" / "1.nii.gz").write_bytes(gzip.compress(bytes(data)))
    report = convert_btcv(tmp_path, tmp_path / "out")
    assert report["cases"]["1"]["hounsfield"] == [seen.min(), seen.max()] and seen.min() < -900
    np.testing.assert_array_equal(label(tmp_path / "out", "1"), expected(held * 2, BTCV))


def test_signs_of_hounsfield_units():
    values = np.full((4, 4, 4), -1000, np.int16)
    organ = np.zeros(values.shape, bool)
    organ[1:3] = True
    for tissue, text in ((60, None), (-90, None), (-300, "median of -300"), (1100, "median of 1100")):
        values[1:3] = tissue
        fault = hounsfield_fault(values, 1, 0, organ, least=10)
        assert fault is None if text is None else text in fault
        assert hounsfield_fault(values, 1, 0, organ) is None  # fewer than 100 voxels say nothing
    assert "no air (its values are -150 to 4050)" in hounsfield_fault(values, -2, 2050, organ)
    assert "not finite" in hounsfield_fault(values.astype(float), np.inf, 0, organ)


def test_a_label_may_lie_beside_its_image_by_what_headers_lose(tmp_path):
    image = open_volume(save(tmp_path / "a.nii.gz", scan()))
    turned = AFFINE.copy()
    turned[:3, :3] *= 1 + 1e-4  # a few um at the far corner
    path = save(tmp_path / "b.nii.gz", numbers(3), turned)
    np.testing.assert_array_equal(read_numbers(path, image, 3), numbers(3))
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])
    with pytest.raises(Dropped, match=r"b.nii.gz lies up to 12\.8 mm beside"):  # 8 steps of 0.8 mm, there and back
        read_numbers(save(tmp_path / "b.nii.gz", numbers(3), flipped), image, 3)
    with pytest.raises(Dropped, match="unknown numbers -1, 4$"):
        read_numbers(save(path, np.where(numbers(5) == 5, np.int16(-1), numbers(5))), image, 3)
    with pytest.raises(Dropped, match="unknown numbers 1, 2, 3, 4, 5, 6, 7, 8, ...$"):
        read_numbers(save(path, numbers(20)), image, 0)
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(Dropped, match="not numbers"):
        read_numbers(save(path, colour), image, 3)


def test_counts_by_slabs_see_every_slice():
    covered = np.zeros(SHAPE, int)
    for part in sources.slabs(SHAPE):
        covered[part] += 1
    assert (covered == 1).all() and len(sources.slabs(SHAPE)) > 1


def test_real_label_volume_gives_the_classes_that_were_made_from_it(real_data, tmp_path):
    source = real_data / "abdomen_ct"
    folders = [source / "imagesTr", source / "labelsTotal"]
    convert_totalsegmentator(folders, tmp_path / "out", labels="total", licence="Apache-2.0", copy=True)
    for made in training_cases(tmp_path / "out"):
        name = Path(made["image"]).name
        assert Path(made["image"]).read_bytes() == (source / "imagesTr" / name).read_bytes()
        result, wanted = nibabel.load(made["label"]), nibabel.load(source / "labelsTr" / name)
        np.testing.assert_array_equal(result.dataobj, wanted.dataobj)
        np.testing.assert_array_equal(result.affine, wanted.affine)
