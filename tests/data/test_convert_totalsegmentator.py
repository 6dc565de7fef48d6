"""The converter of TotalSegmentator, of masks and of label volumes, on tiny data sets."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from organ_sets import AFFINE, MASKS, SHAPE, content, dropped, expected, label, numbers, save, scan

from common.checks import InputError
from common.data import convert_totalsegmentator, training_cases
from common.data.convert import organs, totalsegmentator
from common.data.convert.organs import CLASSES


def masks(folder: Path, classes: np.ndarray, **more) -> Path:
    """A case of the TotalSegmentator data set."""
    save(folder / "ct.nii.gz", scan(), **more)
    for organ, structure in MASKS.items():
        mask = (classes == CLASSES.index(organ)).astype(np.uint8)
        save(folder / "segmentations" / f"{structure}.nii.gz", mask)
    save(folder / "segmentations" / "brain.nii.gz", np.zeros(SHAPE, np.uint8))
    return folder


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
        (_halved, "the median of its liver, spleen and pancreas is -4"),
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
    place, done = organs.place_image, []

    def interrupted(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(place(*arguments))

    monkeypatch.setattr(organs, "place_image", interrupted)
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
