"""What `cascaded_multiorgan` does with input that is no whole CT, by its own configs with a tiny network."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from spoiled import (
    Tiny,
    air,
    cause,
    check_refused,
    constant,
    grey,
    report,
    same,
    series,
    spoil,
    unscaled,
    with_nan,
    write,
)

from common.checks import InputError, WeightsError
from common.weights import save_weights

TINY = Tiny(
    "cascaded_multiorgan",
    "abdomen_ct",
    3,
    (40, 36, 32),
    widths=[2, 4, 8],
    norm="instance",
    padded=True,
    patch_size=[16, 16, 16],
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three phantoms, as they are made."""
    return TINY.make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(made, tmp_path) -> Path:
    """A copy of them to spoil."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """Untrained weights, which label something of most things."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    network = TINY.parsed("inference").get_parsed_content("network_def")
    save_weights(network, path, {"name": "noise", "phantom": False})
    return str(path)


REFUSED = [
    ("constant", constant, None, "is 40 everywhere"),
    ("uint8", grey, None, "holds values from 0 to 255: a CT must be in Hounsfield units.*8 bit"),
    ("unscaled", unscaled, None, "rescale slope and intercept"),
    ("air", air, None, "nothing but air"),
    ("nan", with_nan, None, "NaN or infinite"),
    ("series", series, None, "has 2 channels .*it must have 1.*split a series"),
    ("flat", lambda values: values[:, :, 16], None, "shape .* after loading.*three axes in space"),
]


def test_bad_cases_are_told_and_the_good_one_predicted(made, weights, tmp_path):
    check_refused(TINY, TINY.first_image(made), REFUSED, weights, tmp_path)


def test_no_body_and_thin_volumes_are_answered_on_their_grid(made, weights, tmp_path, caplog):
    image = nibabel.load(TINY.first_image(made))
    values = np.asarray(image.dataobj)
    nobody = np.full_like(values, -1000)
    nobody[18:20, 18:20, 16] = 300
    volumes = {
        "nobody": nobody,
        "one": values[:, :, 16:17],
        "tiny": values[17:22, 15:21, 14:18],
        "two": values[:, 9:11],
    }
    for name, volume in volumes.items():
        write(tmp_path / "in" / f"{name}.nii.gz", volume, image.affine)
    with caplog.at_level(logging.WARNING):
        TINY.predict(tmp_path / "in", tmp_path / "out", weights).get_parsed_content("run")
    for name, volume in volumes.items():
        result = nibabel.load(tmp_path / "out" / f"{name}_seg.nii.gz")
        assert result.shape == volume.shape and np.allclose(result.affine, image.affine)
        assert np.asarray(result.dataobj).any() == (name != "nobody")
    assert "no body was found" in caplog.text and not (tmp_path / "out" / "failures.json").exists()


def test_where_stage_1_finds_nothing_the_map_is_empty_and_the_log_says_so(made, tmp_path, caplog):
    network = TINY.parsed("inference").get_parsed_content("network_def")
    with torch.no_grad():
        network.stage1.score.bias[0] += 1e4
    save_weights(network, tmp_path / "model.pt", {"name": "noise", "phantom": False})
    with caplog.at_level(logging.WARNING):
        path = TINY.first_image(made)
        TINY.predict(path, tmp_path / "out", str(tmp_path / "model.pt")).get_parsed_content("run")
    assert "stage 1 found nothing" in caplog.text and "nothing found" in caplog.text
    result = nibabel.load(tmp_path / "out" / f"{TINY.case}_seg.nii.gz")
    assert not np.asarray(result.dataobj).any()
    told = report(tmp_path / "out", TINY.case)
    assert told["inferer"]["stage1_found"] is False and told["found"] is False


def test_orientation_and_shear_change_no_label(made, weights, tmp_path):
    """Read in other directions, turned, or with a sheared affine, the same voxels get the same labels."""
    image = nibabel.load(TINY.first_image(made))
    whole = nibabel.io_orientation(image.affine)
    for code in ("RAS", "LPS", "SRA", "PIR", "LIP"):
        turn = nibabel.orientations.ornt_transform(whole, nibabel.orientations.axcodes2ornt(code))
        turned = image.as_reoriented(turn)
        write(tmp_path / "in" / f"{code}.nii.gz", np.asarray(turned.dataobj), turned.affine)
    angle = np.deg2rad(20)
    oblique, sheared = np.eye(4), np.eye(4)
    oblique[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    sheared[1, 2] = 0.3
    for name, change in (("oblique", oblique), ("sheared", sheared)):
        write(tmp_path / "in" / f"{name}.nii.gz", np.asarray(image.dataobj), change @ image.affine)
    TINY.predict(tmp_path / "in", tmp_path / "out", weights).get_parsed_content("run")
    expected = np.asarray(nibabel.load(tmp_path / "out" / "RAS_seg.nii.gz").dataobj)
    assert len(np.unique(expected)) > 2
    for path in sorted((tmp_path / "in").iterdir()):
        source, result = nibabel.load(path), nibabel.load(tmp_path / "out" / path.name.replace(".nii", "_seg.nii"))
        assert result.shape == source.shape
        np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
        np.testing.assert_array_equal(nibabel.as_closest_canonical(result).dataobj, expected, err_msg=path.name)


def unknown(values: np.ndarray) -> np.ndarray:
    values[0, 0, 0] = 14
    return values


def nobody(values: np.ndarray) -> np.ndarray:
    return np.where(values == values.max(), 300, -1000).astype(np.int16)


PLACED = np.eye(4)
PLACED[0, 3] = 20.0
BAD_PAIRS = [
    ("labelsTr", unknown, None, "holds .*14.*labels must be 0 to 7"),
    ("labelsTr", lambda values: values[:-2], None, "both must lie on one grid"),
    ("labelsTr", same, PLACED, "are placed 20 apart"),
    ("labelsTr", lambda values: values * np.float32(0.5), None, "labels must be whole numbers"),
    ("imagesTr", grey, None, "must be in Hounsfield units"),
    ("imagesTr", constant, None, "is 40 everywhere"),
    ("imagesTr", air, None, "nothing but air"),
    ("imagesTr", with_nan, None, "NaN or infinite"),
    ("imagesTr", nobody, None, "stays labelled in the region.*take the case out of the list"),
    ("imagesTr", series, None, "has 2 channels"),
]


@pytest.mark.parametrize(("part", "change", "affine", "said"), BAD_PAIRS, ids=[row[-1][:20] for row in BAD_PAIRS])
def test_a_bad_pair_ends_training_before_it_begins(data, tmp_path, part, change, affine, said):
    spoil(data / part / f"{TINY.case}.nii.gz", change, affine)
    flags = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    error = cause(TINY.parsed("train", **flags, folds=None, stage1_iterations=1, stage2_iterations=1))
    assert isinstance(error, InputError) and re.search(said, str(error)), error
    assert not (tmp_path / "model.pt").exists()


BAD_FLAGS = [
    ({"fold": 3, "folds": 3}, "fold is 3 of 3: it must be 0 to 2"),
    ({"folds": 4}, "has 3 patients for 4 folds.*--folds 3 or less"),
    ({"dilation": -1}, "dilation is -1: it counts whole voxels"),
    ({"downsampling": [0, 2, 2]}, "downsampling factor .0, 2, 2. was given"),
    ({"stage1_window": [500, -500]}, "two numbers, the lower one first"),
    ({"patch_size": [16, 16, 18], "padded": False}, "nearest valid size"),
]


@pytest.mark.parametrize(("flags", "said"), BAD_FLAGS, ids=str)
def test_bad_settings_of_a_training_are_told(made, tmp_path, flags, said):
    places = {"output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    error = cause(TINY.parsed("train", dataset_dir=str(made), **{"folds": 3, **places, **flags}))
    assert isinstance(error, InputError) and re.search(said, str(error)), error


def test_other_numbering_is_refused_and_part_of_the_organs_scored_alone(data, weights, tmp_path):
    listing = data / "dataset.json"
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps({**content, "labels": {"0": "background", "1": "liver", "2": "spleen"}}))
    flags = {"dataset_dir": str(data), "folds": 3, "output_dir": str(tmp_path), "model_path": weights}
    for names in (["train"], ["train", "evaluate"]):
        said = "says that label 1 is 'liver': class 1 is 'artery'.*'liver' is 3"
        assert re.search(said, str(cause(TINY.parsed(*names, **flags))))
    listing.write_text(json.dumps({**content, "labels": {"3": "liver", "4": "spleen", "7": "pancreas"}}))
    for path in (data / "labelsTr").iterdir():
        spoil(path, lambda values: np.where(np.isin(values, (3, 4, 7)), values, 0).astype(values.dtype))
    TINY.parsed("train", "evaluate", **flags).get_parsed_content("run")
    summary = json.loads((tmp_path / "metrics.json").read_text())["summary"]
    assert set(summary) == {"liver", "spleen", "pancreas", "all classes"}
    stages = (tmp_path / "stages.md").read_text()
    assert "pancreas" in stages and "stomach" not in stages and "artery" not in stages


def test_a_bad_held_out_case_is_told_before_training(data, tmp_path):
    parser = TINY.parsed(
        "train", dataset_dir=str(data), output_dir=str(tmp_path), model_path=str(tmp_path / "model.pt")
    )
    parser.update({"folds": 3})
    held_out = Path(parser.get_parsed_content("validate::dataset::data")[0]["label"])
    label = nibabel.load(held_out)
    nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj) + 9, label.affine), held_out)
    parser = TINY.parsed(
        "train", dataset_dir=str(data), output_dir=str(tmp_path), model_path=str(tmp_path / "model.pt")
    )
    parser.update({"folds": 3})
    error = cause(parser)
    assert re.search("1 of 1 held-out cases can not be used.*labels must be 0 to 7", str(error))
    assert not (tmp_path / "resume_stage1.pt").exists()


def test_votes_that_do_not_divide_a_tile_are_taken(made, weights, tmp_path):
    path = TINY.first_image(made)
    for votes in (3, 4):
        parser = TINY.predict(path, tmp_path / f"out{votes}", weights, stage2_votes=votes)
        parser.get_parsed_content("run")
        assert len(list((tmp_path / f"out{votes}").glob("*_seg.nii.gz"))) == 1


def test_weights_that_are_absent_or_of_another_recipe_are_refused(made, weights, tmp_path):
    path = TINY.first_image(made)
    error = cause(TINY.predict(path, tmp_path / "out", str(tmp_path / "none.pt")))
    assert isinstance(error, WeightsError) and "there are no weights" in str(error)
    error = cause(TINY.predict(path, tmp_path / "out", weights, deep_supervision=1))
    assert isinstance(error, WeightsError) and "of another network" in str(error)
    assert not list(tmp_path.glob("out/*_seg.nii.gz"))


@pytest.mark.parametrize("overlay", ["small", "modern", "demo"])
def test_overlays_of_a_training_lie_on_inference(overlay):
    network = TINY.parsed("inference", overlay, deep_supervision=0).get_parsed_content("network_def")
    assert network.padded
