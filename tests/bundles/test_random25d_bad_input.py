"""What `random25d_mra` does with input that is no whole angiography, by its own configs with tiny networks."""

from __future__ import annotations

import json
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
    series,
    spoil,
    with_nan,
    write,
)

from common.checks import InputError, WeightsError
from common.weights import save_weights

TINY = Tiny("random25d_mra", "head_neck_mra", 2, (11, 19, 14), widths=[2, 4, 8], sectors=3, directions=6)
SHORT = {"folds": 2, "epochs": 1, "iterations_per_epoch": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two phantoms, as they are made; neither of their slices can be pooled twice, nor a projection."""
    return TINY.make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(made, tmp_path) -> Path:
    """A copy of them to spoil."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def untrained(path: Path, shift: float | None = None, **info: Any) -> str:
    """Untrained weights; with a shift of the consensus they find everything, or nothing."""
    network = TINY.parsed("inference").get_parsed_content("network_def")
    if shift is not None:
        torch.nn.init.constant_(network.reconstruction.consensus.norm.bias, shift)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, path, {"name": "noise", "phantom": False, **info})
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """Untrained weights that find some of the volume."""
    return untrained(tmp_path_factory.mktemp("weights") / "model.pt")


REFUSED = [
    ("constant", constant, None, "is 40 everywhere"),
    ("nan", with_nan, None, "holds 1 values that are NaN or infinite"),
    ("infinite", infinite, None, "holds 1 values that are NaN or infinite"),
    ("series", series, None, "has 2 channels .*it must have 1"),
    ("colours", colours, None, "holds colours"),
    ("flat", lambda values: values[:, :, 6], None, "shape .* after loading.*three axes in space"),
    ("narrow", lambda values: values[:, :, 6:7], None, "11x19x1 voxels has 1 detector bins.*filter of 2 taps"),
]


def test_bad_cases_are_told_and_the_good_one_predicted(made, weights, tmp_path):
    check_refused(TINY, TINY.first_image(made), REFUSED, weights, tmp_path)


def test_thin_small_and_odd_volumes_are_answered_on_their_grid(made, weights, tmp_path):
    image = nibabel.load(TINY.first_image(made))
    values = np.asarray(image.dataobj)
    volumes = {
        "one_slice": values[5:6],
        "one_row": values[:, 9:10],
        "two_columns": values[:, :, 6:8],
        "tiny": values[4:6, 8:10, 6:8],
        "odd": values[1:, :-1, :13],
    }
    for name, volume in volumes.items():
        write(tmp_path / "in" / f"{name}.nii.gz", volume, image.affine)
    TINY.predict(tmp_path / "in", tmp_path / "out", weights).get_parsed_content("run")
    for name, volume in volumes.items():
        result = nibabel.load(tmp_path / "out" / f"{name}_seg.nii.gz")
        assert result.shape == volume.shape and np.allclose(result.affine, image.affine)
        assert result.get_data_dtype() == np.uint8 and set(np.unique(result.dataobj)) <= {0, 1}
    assert not (tmp_path / "out" / "failures.json").exists()


def test_negative_intensities_and_other_axes_change_nothing(made, weights, tmp_path):
    image = nibabel.load(TINY.first_image(made))
    values, stored = np.asarray(image.dataobj), nibabel.io_orientation(image.affine)
    write(tmp_path / "in" / "plain.nii.gz", values, image.affine)
    write(tmp_path / "in" / "negative.nii.gz", values.astype(np.int16) - 5000, image.affine)
    turn = nibabel.orientations.ornt_transform(stored, nibabel.orientations.axcodes2ornt("LPI"))
    turned = image.as_reoriented(turn)
    write(tmp_path / "in" / "turned.nii.gz", np.asarray(turned.dataobj), turned.affine)
    # noise starts from few vessels; of its probabilities some are above this
    TINY.predict(tmp_path / "in", tmp_path / "out", weights, threshold=0.01).get_parsed_content("run")
    plain = labels(tmp_path / "out", "plain")
    assert 0 < plain.mean() < 1
    np.testing.assert_array_equal(labels(tmp_path / "out", "negative"), plain)
    back = nibabel.load(tmp_path / "out" / "turned_seg.nii.gz")
    assert back.shape == turned.shape
    again = back.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(back.affine), stored))
    np.testing.assert_array_equal(np.asarray(again.dataobj), plain)


def test_weights_that_are_absent_or_of_another_network_or_setting(made, weights, tmp_path):
    path, out = TINY.first_image(made), tmp_path / "out"
    refused = [
        (TINY.predict(path, out, str(tmp_path / "none.pt")), "there are no weights"),
        (TINY.predict(path, out, weights, widths=[4, 8]), "of another network"),
        (TINY.predict(path, out, weights, directions=12), "of another network .*another shape"),
    ]
    for parser, said in refused:
        error = cause(parser)
        assert isinstance(error, WeightsError) and re.search(said, str(error)), error
    assert not list(out.glob("*_seg.nii.gz"))
    settings = TINY.parsed("train").get_parsed_content("settings")
    other = untrained(tmp_path / "other.pt", settings=settings | {"projection": "sum"})
    TINY.predict(path, out, other).get_parsed_content("run")
    assert 'trained with projection "sum" (now "max")' in report(out, TINY.case)["warning"]


def unknown(values: np.ndarray) -> np.ndarray:
    values[0, 0, 0] = 2
    return values


BAD_PAIRS = [
    ("labelsTr", unknown, r"holds \[0, 1, 2\]: labels must be 0 to 1"),
    ("labelsTr", lambda values: values[:-2], "both must lie on one grid"),
    ("labelsTr", lambda values: values * np.float32(0.5), "labels must be whole numbers"),
    ("imagesTr", constant, "is 40 everywhere"),
    ("imagesTr", with_nan, "NaN or infinite"),
    ("imagesTr", series, "has 2 channels"),
]


@pytest.mark.parametrize(("part", "change", "said"), BAD_PAIRS, ids=[row[-1][:20] for row in BAD_PAIRS])
@pytest.mark.parametrize("role", ["train", "validate"])
def test_a_bad_pair_ends_training_before_it_begins(data, tmp_path, role, part, change, said):
    flags = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    case = TINY.parsed("train", **flags, **SHORT).get_parsed_content(f"{role}::dataset::data")[0]
    spoil(data / part / Path(case["image"]).name, change)
    error = cause(TINY.parsed("train", **flags, **SHORT))
    assert isinstance(error, InputError) and re.search(said, str(error)), error
    assert not (tmp_path / "model.pt").exists()


BAD_FLAGS = [
    ({"fold": 2}, "fold is 2 of 2: it must be 0 to 1"),
    ({"folds": 7}, "has 2 patients for 7 folds.*--folds 2 or less"),
    ({"directions": 7}, "directions is 7 and sectors is 3: there must be equally many.*directions=9"),
    ({"directions": 0}, "directions is 0"),
    ({"sectors": 0}, "sectors is 0"),
    ({"projection": "mean"}, "projection is 'mean': it must be one of max, sum"),
    ({"detector": "wide"}, "detector is 'wide': it must be one of cropped, full"),
    ({"filter_size": 15}, "11x19x14 voxels has 14 detector bins.*filter of 15 taps.*filter_size=14 or less"),
    ({"filter_size": -1}, "filter_size is -1"),
    ({"filter_init": "ones"}, "filter_init is 'ones': it must be one of mean, ramp"),
    ({"filter_init": "ramp"}, "filter_size is 2 .*: a ramp filter has an odd number of taps"),
    ({"normalise": "none"}, "normalise is 'none': it must be one of affine, batch"),
    ({"norm": "batch"}, "norm is 'batch': .*it must be one of instance, group, None"),
    ({"directions_at_once": 0}, "directions_at_once is 0"),
    ({"redraw": "never"}, "redraw is 'never': directions are drawn anew"),
    ({"auxiliary_weight": 1.5}, "weight is 1.5: the share of the random path must be 0 to 1"),
    ({"in_channels": 2}, "has 1 channels .*it must have 2"),
    ({"patience": 0}, "patience"),
]


@pytest.mark.parametrize(("flags", "said"), BAD_FLAGS, ids=str)
def test_bad_settings_of_a_training_are_told(made, tmp_path, flags, said):
    places = {"output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    error = cause(TINY.parsed("train", **{"dataset_dir": str(made), **SHORT, **places, **flags}))
    assert isinstance(error, InputError) and re.search(said, str(error)), error
    assert not (tmp_path / "model.pt").exists()


ANGLES = [
    ([-1.0, 70.0, 130.0], r"angle 0 is -1 degrees: it must lie in \[0, 60\)"),
    ([10.0, 70.0, 180.0], r"angle 2 is 180 degrees: it must lie in \[120, 180\)"),
    ([70.0, 10.0, 130.0], r"angle 0 is 70 degrees: it must lie in \[0, 60\)"),
    ([10.0, 70.0], "2 angles came for 3 sectors"),
]


@pytest.mark.parametrize(("angles", "said"), ANGLES, ids=str)
def test_directions_outside_their_sectors_are_refused(angles, said):
    network = TINY.parsed("train").get_parsed_content("network_def")
    with pytest.raises(InputError, match=said):
        network(torch.rand(1, 1, 11, 19, 14), None, angles)


def healthy(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        spoil(path, np.zeros_like)


@pytest.mark.parametrize("overlay", ["train", "unet3d", "patch3d"])
def test_training_without_any_vessel_ends_with_finite_weights(data, tmp_path, overlay):
    healthy(data)
    flags = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "model_path": str(tmp_path / "model.pt")}
    if overlay != "train":
        flags["network_def::widths"] = [2, 4]
    TINY.parsed("train", overlay, **flags, **SHORT | {"epochs": 2}).get_parsed_content("run")
    assert all(value.isfinite().all() for value in torch.load(tmp_path / "model.pt", weights_only=True).values())


def test_cases_without_vessels_are_scored(data, tmp_path):
    healthy(data)
    places = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out")}
    for shift, status, dice in ((1e3, "false find", 0.0), (-1e3, "absent", None)):
        path = untrained(tmp_path / "model.pt", shift)
        TINY.parsed("train", "evaluate", **places, **SHORT, model_path=path).get_parsed_content("run")
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["status"] == {"vessel": {status: 1}}
        assert metrics["summary"]["vessel"]["dice"]["mean"] == dice
