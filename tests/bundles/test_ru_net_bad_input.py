"""What `ru_net_colorectal` does with input that is no whole scan of a pelvis, by its own configs with tiny networks."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from spoiled import (
    Tiny,
    cause,
    check_refused,
    colours,
    constant,
    infinite,
    labels,
    report,
    same,
    series,
    spoil,
    with_nan,
    write,
)

from common.checks import InputError, WeightsError
from common.geometry.rois import locate_rois
from common.weights import save_weights

TINY = Tiny("ru_net_colorectal", "pelvis_t2", 4, (32, 32, 12), width=4, spacing=[8.0, 8.0, 8.0])
SHORT = {"folds": 2, "locator_epochs": 1, "epochs": 1, "iterations_per_epoch": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four phantoms, as they are made."""
    return TINY.make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(made, tmp_path) -> Path:
    """A copy of them to spoil."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def untrained(path: Path, bias: float | None = None, **info: Any) -> str:
    """Untrained weights; with a bias of the locators they find everything, or nothing."""
    network = TINY.parsed("inference").get_parsed_content("network_def")
    for member in network.members.values():
        if bias is not None:
            torch.nn.init.constant_(member.locator.bias, bias)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, path, {"name": "noise", "phantom": False, **info})
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """Untrained weights that decode everything."""
    return untrained(tmp_path_factory.mktemp("weights") / "model.pt", 1e3)


def output(folder: Path, name: str, kind: str = "seg") -> nibabel.Nifti1Image:
    return nibabel.load(folder / f"{name}_{kind}.nii.gz")


def block(values: np.ndarray) -> np.ndarray:
    mask = np.zeros_like(values)
    mask[4:20, 6:24, 2:9] = 1
    return mask


REFUSED = [
    ("constant", constant, None, "is 40 everywhere"),
    ("nan", with_nan, None, "holds 1 values that are NaN or infinite"),
    ("infinite", infinite, None, "holds 1 values that are NaN or infinite"),
    ("block", block, None, "body that was found .*one value.*a mask or a label map is none"),
    ("series", series, None, "has 2 channels .*it must have 1.*split a series"),
    ("colours", colours, None, "holds colours.*one number a voxel.*grey"),
    ("cell", lambda values: values[14:17, 15:19, 5:6], None, "has 2x4x4 voxels.*must be larger than that"),
    ("flat", lambda values: values[:, :, 6], None, "shape .* after loading.*three axes in space"),
]


def test_bad_cases_are_told_and_the_good_one_predicted(made, weights, tmp_path):
    out = check_refused(TINY, TINY.first_image(made), REFUSED, weights, tmp_path)
    assert report(out, "z_good")["inferer"]["roi_share"] == 1.0


def test_thin_small_and_odd_volumes_are_answered_on_their_grid(made, weights, tmp_path):
    image = nibabel.load(TINY.first_image(made))
    values = np.asarray(image.dataobj)
    volumes = {
        "one_slice": values[:, :, 6:7],
        "one_column": values[15:16],
        "tiny": values[13:18, 15:19, 5:7],
        "two_slices": values[:, :, 5:7],
        "odd": values[1:, :-1, :7],
    }
    for name, volume in volumes.items():
        write(tmp_path / "in" / f"{name}.nii.gz", volume, image.affine)
    TINY.predict(tmp_path / "in", tmp_path / "out", weights).get_parsed_content("run")
    for name, volume in volumes.items():
        result = output(tmp_path / "out", name)
        assert result.shape == volume.shape and np.allclose(result.affine, image.affine)
        assert result.get_data_dtype() == np.uint8 and set(np.unique(result.dataobj)) <= {0, 1}
    assert labels(tmp_path / "out", "odd").any()
    assert not (tmp_path / "out" / "failures.json").exists()


def test_where_no_locator_finds_anything_the_answer_is_empty_and_the_log_says_so(made, tmp_path, caplog):
    nothing = untrained(tmp_path / "model.pt", -1e3)
    with caplog.at_level(logging.WARNING):
        TINY.predict(TINY.first_image(made), tmp_path / "out", nothing, "maps").get_parsed_content("run")
    assert "no region of interest was found" in caplog.text and "nothing found" in caplog.text
    name = TINY.case
    for kind in ("seg", "probability", "contour", "uncertainty"):
        assert not np.asarray(output(tmp_path / "out", name, kind).dataobj).any()
    found = report(tmp_path / "out", name)
    assert found["found"] is False and found["inferer"]["found"] is False and found["inferer"]["roi_share"] == 0
    assert found["inferer"]["rois"] == {"RF64": 0, "RF88": 0, "RF112": 0}


def test_more_regions_than_are_decoded_are_told(made, weights, tmp_path, caplog):
    path = untrained(tmp_path / "model.pt")
    parser = TINY.predict(TINY.first_image(made), tmp_path / "out", path, roi_margin=[0, 0, 0])
    member = parser.get_parsed_content("network_def").members["RF88"].eval()
    image = parser.get_parsed_content("preprocessing")({"image": str(TINY.first_image(made))})["image"]
    with torch.no_grad():
        heat = member.locate(member.encode(image.as_tensor()[None])[-1]).sigmoid()
    numbers = {float(cut): len(locate_rois(heat, float(cut), margin=0, top=None)) for cut in heat.unique()[::8]}
    threshold = max(numbers, key=numbers.get)
    assert numbers[threshold] > 10
    parser = TINY.predict(TINY.first_image(made), tmp_path / "out", path, roi_margin=0, locator_threshold=threshold)
    with caplog.at_level(logging.WARNING):
        parser.get_parsed_content("run")
    assert f"RF88 found {numbers[threshold]} regions of interest; the 10 largest are decoded" in caplog.text
    told = report(tmp_path / "out", TINY.case)["inferer"]
    assert told["rois"]["RF88"] == 10 and told["rois_left_out"] >= numbers[threshold] - 10


def test_maps_lie_on_the_grid_of_the_file(made, weights, tmp_path):
    image = nibabel.load(TINY.first_image(made))
    whole, name = nibabel.io_orientation(image.affine), TINY.case
    for code in ("RAS", "SRP", "LIP"):
        turn = nibabel.orientations.ornt_transform(whole, nibabel.orientations.axcodes2ornt(code))
        turned = image.as_reoriented(turn)
        write(tmp_path / "in" / code / f"{name}.nii.gz", np.asarray(turned.dataobj)[:-1], turned.affine)
        out = tmp_path / "out" / code
        TINY.predict(tmp_path / "in" / code, out, weights, "maps").get_parsed_content("run")
        maps = {kind: output(out, name, kind) for kind in ("seg", "probability", "contour", "uncertainty")}
        for kind, volume in maps.items():
            assert volume.shape == np.asarray(turned.dataobj)[:-1].shape
            np.testing.assert_allclose(volume.affine, turned.affine, atol=1e-4)
            assert volume.get_data_dtype() == (np.uint8 if kind in ("seg", "contour") else np.float32)
        found = {kind: np.asarray(volume.dataobj) for kind, volume in maps.items()}
        np.testing.assert_array_equal(found["seg"], found["probability"] >= 0.5)
        assert 0 <= found["probability"].min() and 0.5 < found["probability"].max() <= 1
        assert 0 <= found["uncertainty"].min() and 0 < found["uncertainty"].max() <= 0.25
        assert set(np.unique(found["contour"])) <= {0, 1} and not np.array_equal(found["contour"], found["seg"])
    assert [path.name for path in tmp_path.rglob("failures.json")] == []


def test_weights_that_are_absent_or_of_another_recipe_are_refused(made, weights, tmp_path):
    path = TINY.first_image(made)
    error = cause(TINY.predict(path, tmp_path / "out", str(tmp_path / "none.pt")))
    assert isinstance(error, WeightsError) and "there are no weights" in str(error)
    error = cause(TINY.predict(path, tmp_path / "out", weights, width=8))
    assert isinstance(error, WeightsError)
    assert re.search(r"of another network .*of another shape.* \(4, 1, .* instead of \(8, 1, ", str(error)), error
    error = cause(TINY.predict(path, tmp_path / "out", weights, "whole_volume"))
    assert isinstance(error, WeightsError) and re.search(
        r"of another network \(\d+ foreign, such as members", str(error)
    )
    assert not list(tmp_path.glob("out/*_seg.nii.gz"))


def test_weights_of_other_settings_are_called_out_in_log_report_and_picture(made, tmp_path, caplog):
    path = TINY.first_image(made)
    settings = TINY.parsed("train", prepared=True).get_parsed_content("settings")
    trained = untrained(tmp_path / "model.pt", 1e3, settings=settings | {"spacing": [4.0, 8.0, 8.0]})
    said = 'trained with spacing [4.0, 8.0, 8.0] (now [8.0, 8.0, 8.0]), prepared true (now "auto").'
    same = untrained(tmp_path / "same.pt", 1e3, settings=settings | {"prepared": "auto"})
    for weights, name in ((trained, "other"), (same, "same")):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            TINY.predict(path, tmp_path / name, weights).get_parsed_content("run")
        assert (said in caplog.text) == (name == "other")
    case = TINY.case
    assert said in report(tmp_path / "other", case)["warning"] and report(tmp_path / "same", case)["warning"] is None
    pictures = [(tmp_path / name / f"{case}.png").read_bytes() for name in ("other", "same")]
    assert pictures[0] != pictures[1]


def unknown(values: np.ndarray) -> np.ndarray:
    values[0, 0, 0] = 2
    return values


PLACED = np.eye(4)
PLACED[0, 3] = 20.0
BAD_PAIRS = [
    ("labelsTr", unknown, None, r"holds \[0, 1, 2\]: labels must be 0 to 1"),
    ("labelsTr", lambda values: values[:-2], None, "both must lie on one grid"),
    ("labelsTr", same, PLACED, "are placed 20 apart"),
    ("labelsTr", lambda values: values * np.float32(0.5), None, "labels must be whole numbers"),
    ("labelsTr", series, None, "label .* has 2 channels"),
    ("imagesTr", constant, None, "is 40 everywhere"),
    ("imagesTr", with_nan, None, "NaN or infinite"),
    ("imagesTr", block, None, "body that was found"),
    ("imagesTr", series, None, "has 2 channels"),
    ("imagesTr", colours, None, "holds colours"),
]


@pytest.mark.parametrize(("part", "change", "affine", "said"), BAD_PAIRS, ids=[row[-1][:20] for row in BAD_PAIRS])
@pytest.mark.parametrize("role", ["train", "validate"])
def test_a_bad_pair_ends_training_before_it_begins(data, tmp_path, role, part, change, affine, said):
    flags = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    case = TINY.parsed("train", **flags, **SHORT).get_parsed_content(f"{role}::dataset::data")[0]
    spoil(data / part / Path(case["image"]).name, change, affine)
    error = cause(TINY.parsed("train", **flags, **SHORT))
    assert isinstance(error, InputError) and re.search(said, str(error)), error
    assert not (tmp_path / "model.pt").exists()


BAD_FLAGS = [
    ({"fold": 2}, "fold is 2 of 2: it must be 0 to 1"),
    ({"folds": 5}, "has 4 patients for 5 folds.*--folds 4 or less"),
    ({"variants": "RF88"}, "variants is 'RF88': it must list"),
    ({"variants": 88}, "variants is 88: it must list"),
    ({"variants": None}, "variants is None: it must list"),
    ({"variants": []}, r"variants is \[\]: it must list"),
    ({"variants": ["RF88", "RF88"]}, "different variants"),
    ({"variants": [["RF88"]]}, "must list one or more different variants"),
    ({"variants": ["RF99"]}, "variant is 'RF99': it must be one of RF64, RF88, RF112.*use variant='RF88'"),
    ({"width": 0}, "width is 0: it must be a whole number, 1 or more"),
    ({"locator": "relu"}, "locator is 'relu': it must be one of sigmoid, softmax"),
    ({"rois": "all"}, "rois is 'all': it must be one of located, whole"),
    ({"ground_truth_rois": "sometimes"}, "ground_truth is 'sometimes'"),
    ({"locator_threshold": 1.5}, "threshold"),
    ({"roi_margin": [-1, 2, 2]}, "margin"),
    ({"inference_rois": 0}, "top"),
    ({"locator_criterion": "focal"}, "locator_criterion is 'focal'"),
    ({"lambda_contour": -1.0}, "lambda_contour"),
    ({"otsu_factor": 2.0}, "otsu_factor 2.0 was given"),
    ({"clip": [1.0, -4.0]}, "two numbers of standard deviations, the lower one first"),
    ({"prepared": "maybe"}, "prepared is 'maybe': it must be auto, true or false"),
]


@pytest.mark.parametrize(("flags", "said"), BAD_FLAGS, ids=str)
def test_bad_settings_of_a_training_are_told(made, tmp_path, flags, said):
    places = {"output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    error = cause(TINY.parsed("train", **{"dataset_dir": str(made), **SHORT, **places, **flags}))
    assert isinstance(error, InputError) and re.search(said, str(error)), error
    assert not (tmp_path / "model.pt").exists()


def healthy(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        spoil(path, np.zeros_like)


def test_cases_without_tumour_are_scored(data, weights, tmp_path):
    healthy(data)
    nothing = untrained(tmp_path / "model.pt", -1e3)
    places = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out")}
    for path, status, dice in ((weights, "false find", 0.0), (nothing, "absent", None)):
        TINY.parsed("train", "evaluate", **places, **SHORT, model_path=path).get_parsed_content("run")
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["status"] == {"tumour": {status: 2}}
        assert metrics["summary"]["tumour"]["dice"]["mean"] == dice
        assert [case["dice"] for case in metrics["cases"]] == [dice] * 2
        assert f"ensemble, tumour: {status} in 2" in (tmp_path / "out" / "stages.md").read_text()


@pytest.mark.parametrize("ground_truth", ["missing", "always", "never"])
def test_training_without_any_tumour_learns_to_find_none(data, tmp_path, ground_truth):
    healthy(data)
    flags = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    flags |= SHORT | {"epochs": 2, "ground_truth_rois": ground_truth}
    TINY.parsed("train", **flags).get_parsed_content("run")
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
