"""The converter of BTCV on tiny data sets in the layouts that people have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from organ_sets import AFFINE, content, dropped, expected, label, numbers, save, scan

from common.checks import InputError
from common.data import convert_btcv

BTCV = ["", "spleen", "", "", "gallbladder", "", "liver", "stomach", "artery", "", "portal vein", "pancreas", "", ""]


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
