"""What `ra_unet_liver` does with input that is no whole CT of a liver, by its own configs with tiny networks."""

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
    air,
    cause,
    check_refused,
    constant,
    grey,
    labels,
    report,
    same,
    series,
    spoil,
    unscaled,
    with_nan,
    write,
)

from common.checks import InputError, WeightsError
from common.engines.case_evaluator import CasesFailed
from common.weights import save_weights

TINY = Tiny(
    "ra_unet_liver",
    "liver_ct",
    2,
    (64, 56, 40),
    localiser_width=1,
    width=1,
    localiser_size=[32, 32],
    liver_size=[32, 32],
)
SHORT = {
    "folds": 2,
    "localiser_epochs": 1,
    "liver_epochs": 1,
    "epochs": 1,
    "slices_per_volume": 2,
    "slabs_per_volume": 2,
    "tumour_patches_per_volume": 2,
    "localiser_batch_size": 2,
    "batch_size": 2,
    "val_interval": 1,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two phantoms, as they are made."""
    return TINY.make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(made, tmp_path) -> Path:
    """A copy of them to spoil."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def untrained(path: Path, **biases: float) -> str:
    """Untrained weights, by which a stage with a bias finds everything, or nothing."""
    network = TINY.parsed("inference").get_parsed_content("network_def")
    for stage, bias in biases.items():
        torch.nn.init.constant_(network.child(stage).head.bias, bias)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, path, {"name": "noise", "phantom": False})
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """Untrained weights that call everything tumour."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    return untrained(path, localiser=1e3, liver=1e3, tumour=1e3)


def windowed(values: np.ndarray) -> np.ndarray:
    return np.clip((values + 100.0) / 300, 0, 1).astype(np.float32)


def twice(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., ::2], 2, axis=2)


TILTED, OBLIQUE, PLACED = np.eye(4), np.eye(4), np.eye(4)
TILTED[1, 2] = 0.3
OBLIQUE[:2, :2] = [[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]]
PLACED[0, 3] = 20.0

REFUSED = [
    ("constant", constant, None, "is 40 everywhere"),
    ("uint8", grey, None, "holds values from 0 to 255: a CT must be in Hounsfield units.*8 bit"),
    ("unscaled", unscaled, None, "rescale slope and intercept"),
    ("windowed", windowed, None, "the CT itself, as it was before it was normalised"),
    ("air", air, None, "nothing but air"),
    ("nan", with_nan, None, "NaN or infinite"),
    ("series", series, None, "has 2 channels .*it must have 1.*split a series"),
    ("flat", lambda values: values[:, :, 16], None, "shape .* after loading.*three axes in space"),
    ("tilted", same, TILTED, "degrees off a right angle .a tilted gantry.*resample it to slices at right angles"),
    ("twice", twice, None, "has 20 of 40 slices that are copies of the one before"),
]


def test_bad_cases_are_told_and_the_good_one_predicted(made, weights, tmp_path):
    out = check_refused(TINY, TINY.first_image(made), REFUSED, weights, tmp_path)
    assert report(out, "z_good")["inferer"]["box_share"] == 1.0


def test_missing_and_single_repeated_slices_are_told_and_answered(made, weights, tmp_path, caplog):
    image = nibabel.load(TINY.first_image(made))
    values = np.asarray(image.dataobj)
    copied = values.copy()
    copied[..., 12] = copied[..., 11]
    write(tmp_path / "in" / "copied.nii.gz", copied, image.affine)
    write(tmp_path / "in" / "gap.nii.gz", np.delete(values, range(15, 25), axis=2), image.affine)
    with caplog.at_level(logging.WARNING):
        TINY.predict(tmp_path / "in", tmp_path / "out", weights).get_parsed_content("run")
    assert "'copied.nii.gz' has 1 slices that are copies of the one before (number 12, from 0)" in caplog.text
    assert "'gap.nii.gz' changes much more after slice 14 (from 0) than around: are slices missing?" in caplog.text
    assert labels(tmp_path / "out", "copied").shape == values.shape
    assert labels(tmp_path / "out", "gap").shape == (64, 56, 30)


def test_thin_small_and_odd_volumes_are_answered_on_their_grid(made, weights, tmp_path):
    image = nibabel.load(TINY.first_image(made))
    values = np.asarray(image.dataobj)
    volumes = {
        "one_slice": values[:, :, 20:21],
        "one_column": values[30:31],
        "tiny": values[30:35, 25:31, 18:22],
        "two_slices": values[:, :, 20:22],
        "odd": values[1:, :-1, :33],
    }
    for name, volume in volumes.items():
        write(tmp_path / "in" / f"{name}.nii.gz", volume, image.affine)
    TINY.predict(tmp_path / "in", tmp_path / "out", weights).get_parsed_content("run")
    for name, volume in volumes.items():
        result = nibabel.load(tmp_path / "out" / f"{name}_seg.nii.gz")
        assert result.shape == volume.shape and np.allclose(result.affine, image.affine)
        assert result.get_data_dtype() == np.uint8 and (np.asarray(result.dataobj) == 2).all()
    assert not (tmp_path / "out" / "failures.json").exists()


NOTHING = [
    ({"localiser": -1e3}, "the localiser found no liver in 40 slices: the answer is empty", 0),
    ({"localiser": 1e3, "liver": -1e3}, "reached a probability of 0.6: the answer is empty", 0),
    ({"localiser": 1e3, "liver": 1e3, "tumour": -1e3}, "", 1),
]


@pytest.mark.parametrize(("biases", "said", "label"), NOTHING, ids=["no box", "no liver", "no tumour"])
def test_where_a_stage_finds_nothing_the_answer_says_so(made, tmp_path, caplog, biases, said, label):
    path = untrained(tmp_path / "model.pt", **biases)
    with caplog.at_level(logging.WARNING):
        TINY.predict(TINY.first_image(made), tmp_path / "out", path).get_parsed_content("run")
    assert said in caplog.text and (labels(tmp_path / "out", TINY.case) == label).all()
    told = report(tmp_path / "out", TINY.case)
    assert told["found"] is bool(label) and told["inferer"]["liver_found"] is bool(label)
    assert told["inferer"]["tumours"] == 0 and told["inferer"]["tumour_ml"] == 0
    assert told["inferer"]["windows"]["tumour"] == 0 or label


def marked(values: np.ndarray) -> np.ndarray:
    """Nothing but air, and a bright spot at a corner."""
    result = air(values)
    result[:2, :2, :2] = 200
    result[2:8, 2:8, 2:8] = -60
    return result


def test_a_box_of_hardly_anything_is_answered(made, tmp_path, caplog):
    """The localiser's largest part is next to nothing at the volume's corner, and there is no margin."""
    image = nibabel.load(TINY.first_image(made))
    write(tmp_path / "in" / "spot.nii.gz", marked(np.asarray(image.dataobj)), image.affine)
    parser = TINY.predict(tmp_path / "in", tmp_path / "out", "", box_margin=[0, 0, 0], localiser_size=[64, 56])
    inferer, network = parser.get_parsed_content("inferer"), parser.get_parsed_content("network_def").eval()
    volume = parser.get_parsed_content("dataset")[0]["image"][None]

    class Bright(torch.nn.Module):
        def forward(self, slices: torch.Tensor) -> torch.Tensor:
            return (slices - 0.9) * 100

    network.localiser = Bright()
    for stage, bias in (("liver", -1e3), ("liver", 1e3), ("tumour", 1e3)):
        torch.nn.init.constant_(network.child(stage).head.bias, bias)
        with caplog.at_level(logging.WARNING):
            labels = inferer(volume, network)
        assert labels.shape == volume.shape and inferer.report["box_share"] == pytest.approx(4 * 32 / volume.numel())
        assert bool(labels.any()) == (bias > 0) and not labels[..., 2:, :, :].any()
    assert (labels[0, 0, :2, :2, :2] == 2).all() and "no voxel of the liver's box (2x2x32 voxels)" in caplog.text


def test_orientation_changes_no_label(made, tmp_path):
    """Read in other directions or turned, the same voxels get the same labels."""
    weights, image = untrained(tmp_path / "model.pt", localiser=1e3), nibabel.load(TINY.first_image(made))
    whole = nibabel.io_orientation(image.affine)
    for code in ("RAS", "LPS", "SRP"):
        turn = nibabel.orientations.ornt_transform(whole, nibabel.orientations.axcodes2ornt(code))
        turned = image.as_reoriented(turn)
        write(tmp_path / "in" / f"{code}.nii.gz", np.asarray(turned.dataobj), turned.affine)
    write(tmp_path / "in" / "oblique.nii.gz", np.asarray(image.dataobj), OBLIQUE @ image.affine)
    thresholds = {"liver_threshold": 0.5, "tumour_threshold": 0.5}
    parser = TINY.predict(tmp_path / "in", tmp_path / "out", weights, **thresholds)
    parser.get_parsed_content("run")
    expected = labels(tmp_path / "out", "RAS")
    for path in sorted((tmp_path / "in").iterdir()):
        source, result = nibabel.load(path), nibabel.load(tmp_path / "out" / path.name.replace(".nii", "_seg.nii"))
        assert result.shape == source.shape
        np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
        np.testing.assert_array_equal(nibabel.as_closest_canonical(result).dataobj, expected, err_msg=path.name)
    assert len(np.unique(expected)) > 1


def test_weights_that_are_absent_or_of_another_recipe_are_refused(made, weights, tmp_path):
    path = TINY.first_image(made)
    error = cause(TINY.predict(path, tmp_path / "out", str(tmp_path / "none.pt")))
    assert isinstance(error, WeightsError) and "there are no weights" in str(error)
    for overlay, flags in (((), {"width": 2}), (("ensemble",), {"members": 2})):
        error = cause(TINY.predict(path, tmp_path / "out", weights, *overlay, **flags))
        assert isinstance(error, WeightsError) and "of another network" in str(error)
    assert not list(tmp_path.glob("out/*_seg.nii.gz"))


def test_a_submission_of_files_that_are_not_the_challenges_is_refused(made, weights, tmp_path):
    folder = tmp_path / "in"
    for name in ("test-volume-3.nii", "volume-3.nii"):
        write(
            folder / name,
            np.asarray(nibabel.load(TINY.first_image(made)).dataobj),
            nibabel.load(TINY.first_image(made)).affine,
        )
    error = cause(TINY.predict(folder, tmp_path / "out", weights, "submission"))
    assert isinstance(error, CasesFailed) and "1 of 2 cases failed" in str(error)
    (failure,) = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert failure["case"] == "volume-3.nii" and "can not be named for the LiTS challenge" in failure["error"]
    assert [path.name for path in (tmp_path / "out").glob("*.nii*")] == ["test-segmentation-3.nii"]


def unknown(values: np.ndarray) -> np.ndarray:
    values[0, 0, 0] = 3
    return values


BAD_PAIRS = [
    ("labelsTr", unknown, None, r"holds \[0, 1, (2, )?3\]: labels must be 0 to 2"),
    ("labelsTr", lambda values: values[:-2], None, "both must lie on one grid"),
    ("labelsTr", same, PLACED, "are placed 20 apart"),
    ("labelsTr", lambda values: values * np.float32(0.5), None, "labels must be whole numbers"),
    ("labelsTr", series, None, "label .* has 2 channels"),
    ("imagesTr", grey, None, "must be in Hounsfield units"),
    ("imagesTr", unscaled, None, "rescale slope and intercept"),
    ("imagesTr", constant, None, "is 40 everywhere"),
    ("imagesTr", air, None, "nothing but air"),
    ("imagesTr", with_nan, None, "NaN or infinite"),
    ("imagesTr", twice, None, "has 20 of 40 slices that are copies"),
    ("both", same, TILTED, "degrees off a right angle"),
]


def chosen(data: Path, tmp_path: Path, role: str, **flags: Any) -> tuple[dict[str, Any], str]:
    """Flags of a short training, and the name of the first case of one of its parts."""
    places = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    flags = {**SHORT, **places, **flags}
    case = TINY.parsed("train", **flags).get_parsed_content(f"{role}::dataset::data")[0]
    return flags, Path(case["image"]).name


@pytest.mark.parametrize(("part", "change", "affine", "said"), BAD_PAIRS, ids=[row[-1][:20] for row in BAD_PAIRS])
@pytest.mark.parametrize("role", ["train", "validate"])
def test_a_bad_pair_ends_training_before_it_begins(data, tmp_path, role, part, change, affine, said):
    flags, name = chosen(data, tmp_path, role)
    for folder in ("imagesTr", "labelsTr") if part == "both" else (part,):
        spoil(data / folder / name, change, affine)
    error = cause(TINY.parsed("train", **flags))
    assert isinstance(error, InputError) and re.search(said, str(error)), error
    assert not (tmp_path / "model.pt").exists()


def test_a_training_case_without_liver_ends_training_before_it_begins(data, tmp_path):
    flags, name = chosen(data, tmp_path, "train")
    spoil(data / "labelsTr" / name, np.zeros_like)
    error = cause(TINY.parsed("train", **flags))
    assert isinstance(error, InputError), error
    assert re.search(f"label '{name}' holds no class above 0.*take the case out of the list", str(error)), error
    assert not (tmp_path / "model.pt").exists()


BAD_FLAGS = [
    ({"fold": 2}, "fold is 2 of 2: it must be 0 to 1"),
    ({"folds": 3}, "has 2 patients for 3 folds.*--folds 2 or less"),
    ({"window": [200, -100]}, "two numbers, the lower one first"),
    ({"width": 0}, "width"),
    ({"liver_size": [60, 64]}, "60x64x32 voxels: its sides must be multiples of 32"),
    ({"localiser_size": [32]}, "it must be .H, W."),
    ({"localiser_size": [48, 32]}, "48x32 .*: its sides must be multiples of 32"),
    ({"liver_slices": 48}, "32x32x48 voxels: its sides must be multiples of 32"),
    ({"sweep_step": 0}, "with sweep_step 0 was given: the sweep must step on"),
    ({"sweep_step": 40}, "leave out none"),
    ({"tumour_patch": [32, 32, 24]}, "32x32x24 voxels: its sides must be multiples of 32"),
    ({"tumour_window": [40, 32, 32]}, "40x32x32 voxels: its sides must be multiples of 32"),
    ({"norm": "instance"}, "batch_running"),
    ({"lesion_share": 2.0}, "lesion_share 2.0 was given"),
    ({"box_margin": [-1, 0, 0]}, "margin"),
    ({"box_margin_mm": -3.0}, "margin"),
    ({"liver_threshold": 1.5}, "liver_threshold is 1.5"),
    ({"tumour_threshold": 0.0}, "tumour_threshold is 0.0"),
    ({"members": 2}, "join"),
]


@pytest.mark.parametrize(("flags", "said"), BAD_FLAGS, ids=str)
def test_bad_settings_of_a_training_are_told(made, tmp_path, flags, said):
    places = {"output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    error = cause(TINY.parsed("train", **{"dataset_dir": str(made), **SHORT, **places, **flags}))
    assert isinstance(error, InputError) and re.search(said, str(error)), error
    assert not (tmp_path / "model.pt").exists()


def healthy(folder: Path) -> None:
    """No tumour in any case."""
    for path in (folder / "labelsTr").iterdir():
        spoil(path, lambda values: np.minimum(values, 1))


def test_training_without_any_tumour_learns_to_find_none(data, tmp_path):
    healthy(data)
    flags, _ = chosen(data, tmp_path, "train")
    TINY.parsed("train", **flags).get_parsed_content("run")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state.values())


def test_cases_without_tumour_are_scored(data, weights, tmp_path):
    healthy(data)
    none = untrained(tmp_path / "model.pt", localiser=1e3, liver=1e3, tumour=-1e3)
    places = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "folds": None}
    for path, status in ((weights, "false find"), (none, "absent")):
        TINY.parsed("train", "evaluate", **{**SHORT, **places, "model_path": path}).get_parsed_content("run")
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["status"]["tumour"] == {status: 2}
        lits = json.loads((tmp_path / "out" / "lits.json").read_text())
        assert len(lits["cases"]) == 2
