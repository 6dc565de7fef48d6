from __future__ import annotations

import json

import h5py
import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImage

from common.checks import InputError
from common.data import convert_hdf5, inference_cases, training_cases
from common.data.convert.hdf5 import classes_from_instances, hdf5_command

SPACING = (0.28, 0.12, 0.13)


def _write(path, raw=None, label=None, spacing=SPACING):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 60000, (4, 5, 6)).astype(np.uint16) if raw is None else raw
    if label is None:
        label = np.zeros((4, 5, 6), np.int64)
        label[:, :3, :3], label[:, :3, 3:5] = 7, 300
    with h5py.File(path, "w") as stream:
        for key, value in (("raw", raw), ("label", label)):
            stream[key] = value
            if spacing is not None:
                stream[key].attrs["element_size_um"] = spacing
    return raw, label


def _read(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_voxels_axes_dtype_and_spacing_are_kept(tmp_path):
    raw, label = _write(tmp_path / "a.h5")
    report = convert_hdf5(tmp_path / "a.h5", tmp_path / "out", licence="MIT")
    case = training_cases(tmp_path / "out")[0]
    image = nibabel.load(case["image"])
    assert image.get_data_dtype() == np.uint16 and image.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_array_equal(_read(case["image"]), raw.T)
    np.testing.assert_allclose(image.header.get_zooms(), SPACING[::-1], rtol=1e-6)
    np.testing.assert_allclose(LoadImage()(case["image"]).affine.diagonal()[:3].abs(), SPACING[::-1], rtol=1e-6)
    semantic = _read(case["label"])
    np.testing.assert_array_equal(semantic == 2, label.T == 0)
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert content["licence"] == "MIT" and content["labels"] == {"0": "inside", "1": "boundary", "2": "background"}
    assert json.loads((tmp_path / "out" / "conversion.json").read_text()) == report
    assert report["cases"]["a"]["instances"] == 2 and sum(report["cases"]["a"]["voxels"].values()) == 120


def test_boundaries_are_inner_voxels_that_touch_another_label():
    rng = np.random.default_rng(1)
    instances = np.kron(rng.integers(0, 4, (3, 3, 3)), np.ones((4, 4, 4), int))
    expected = np.where(instances == 0, 2, 0)
    for x, y, z in np.argwhere(instances != 0):
        for axis in range(3):
            for step in (-1, 1):
                other = [x, y, z]
                other[axis] += step
                if 0 <= other[axis] < 12 and instances[tuple(other)] != instances[x, y, z]:
                    expected[x, y, z] = 1
    np.testing.assert_array_equal(classes_from_instances(instances, "boundary"), expected)


def test_binary_classes(tmp_path):
    _, label = _write(tmp_path / "a.h5")
    report = convert_hdf5([tmp_path / "a.h5"], tmp_path / "out", classes="binary")
    np.testing.assert_array_equal(_read(training_cases(tmp_path / "out")[0]["label"]), (label != 0).T)
    assert report["classes"] == {"0": "background", "1": "object"}


def test_channels_go_last(tmp_path):
    raw = np.arange(2 * 120, dtype=np.float32).reshape(2, 4, 5, 6)
    _write(tmp_path / "a.h5", raw=raw)
    convert_hdf5(tmp_path / "a.h5", tmp_path / "out")
    image = _read(training_cases(tmp_path / "out")[0]["image"])
    assert image.shape == (6, 5, 4, 2) and image[5, 4, 3, 1] == raw[1, 3, 4, 5]


def test_images_alone_are_listed_for_inference(tmp_path):
    _write(tmp_path / "a.h5")
    convert_hdf5(tmp_path, tmp_path / "out", label="None")
    assert [case["image"][-20:] for case in inference_cases(tmp_path / "out")] == ["out/imagesTs/a.nii.gz"[-20:]]


def test_nothing_is_overwritten_unless_asked(tmp_path):
    _write(tmp_path / "a.h5")
    _write(tmp_path / "b.h5")
    convert_hdf5(tmp_path / "a.h5", tmp_path / "out")
    with pytest.raises(InputError, match="out' already exists.*--overwrite true"):
        convert_hdf5(tmp_path / "b.h5", tmp_path / "out")
    with pytest.raises(InputError, match="has no data set 'nothing': it has: label, raw"):
        convert_hdf5(tmp_path / "b.h5", tmp_path / "out", raw="nothing", overwrite=True)
    assert "a.nii.gz" in training_cases(tmp_path / "out")[0]["image"]
    convert_hdf5(tmp_path / "b.h5", tmp_path / "out", overwrite="true")
    assert "b.nii.gz" in training_cases(tmp_path / "out")[0]["image"]


@pytest.mark.parametrize(
    ("content", "arguments", "text"),
    [
        ({}, {"classes": "edges"}, "classes is 'edges': it must be one of boundary, binary"),
        ({"spacing": None}, {}, "a.h5' has voxel edges None: .*element_size_um.*--spacing"),
        ({"spacing": (1.0, 0.0, 1.0)}, {}, "has voxel edges"),
        ({}, {"spacing": "[1,2]"}, r"spacing is '\[1,2\]': it must be 3 numbers.*--spacing \[1.0,1.0,1.0\]"),
        ({}, {"spacing": "[1,2,wide]"}, "it must be 3 numbers"),
        ({}, {"spacing": [1, 2, -3]}, r"has voxel edges \(1.0, 2.0, -3.0\)"),
        ({"raw": np.zeros((4, 5), np.uint8)}, {}, r"'raw' in .* has shape \(4, 5\): it must be Z Y X or C Z Y X"),
        ({"raw": np.zeros((4, 5, 7), np.uint8)}, {}, "both must cover the same voxels"),
        ({"label": np.zeros((4, 5, 6))}, {}, "is float64: instances must be whole numbers"),
    ],
)
def test_wrong_content(tmp_path, content, arguments, text):
    _write(tmp_path / "a.h5", **content)
    with pytest.raises(InputError, match=text):
        convert_hdf5(tmp_path / "a.h5", tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists() and len(list(tmp_path.iterdir())) == 1


def test_wrong_files(tmp_path):
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    _write(tmp_path / "other" / "cut.h5")
    for files, text in (
        (tmp_path / "cut.h5", "cut.h5' can not be read .*whole HDF5 file"),
        (tmp_path / "no.h5", "no.h5' does not exist"),
        (tmp_path / "empty", "holds no HDF5 file"),
        ([tmp_path / "cut.h5", tmp_path / "other"], "several files are called 'cut'"),
    ):
        with pytest.raises(InputError, match=text):
            convert_hdf5(files, tmp_path / "out")


def test_one_data_set_has_one_number_of_channels(tmp_path):
    _write(tmp_path / "a.h5")
    _write(tmp_path / "b.h5", raw=np.ones((2, 4, 5, 6), np.uint8))
    with pytest.raises(InputError, match="the files have different channels .*'a': 1, 'b': 2"):
        convert_hdf5(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("spacing", [(3, 2, 1), [3.0, 2.0, 1.0], "[3,2,1]", "3, 2.0, 1"])
def test_spacing_given_by_hand(tmp_path, spacing):
    _write(tmp_path / "a.h5", spacing=None)
    convert_hdf5(tmp_path / "a.h5", tmp_path / "out", spacing=spacing)
    assert nibabel.load(training_cases(tmp_path / "out")[0]["image"]).header.get_zooms() == (1, 2, 3)


def test_command_says_what_it_did(tmp_path, capsys):
    _write(tmp_path / "a.h5")
    _write(tmp_path / "b.h5")
    hdf5_command([str(tmp_path / "a.h5"), str(tmp_path / "b.h5")], str(tmp_path / "out"))
    printed = capsys.readouterr().out
    assert "a: 6 x 5 x 4 uint16, 0.13 x 0.12 x 0.28 um; inside" in printed and "2 cases" in printed


def _blocks(volume, factor):
    """The blocks of a volume, by the place of their voxel on the coarse grid."""
    coarse = [-(-length // step) for length, step in zip(volume.shape, factor)]
    return {
        place: volume[tuple(slice(i * step, (i + 1) * step) for i, step in zip(place, factor))]
        for place in np.ndindex(*coarse)
    }


@pytest.mark.parametrize(
    "downsample, factor", [(2, (2, 2, 2)), ([1, 2, 3], (3, 2, 1)), ("2", (2, 2, 2)), ("[1,2,3]", (3, 2, 1))]
)
def test_downsampled_to_blocks(tmp_path, downsample, factor):
    """Means of grey values, and the instance of most voxels where objects hold half of a block or more."""
    rng = np.random.default_rng(2)
    _write(
        tmp_path / "a.h5",
        rng.integers(0, 60000, (5, 6, 7)).astype(np.uint16),
        rng.choice([0, 0, 0, 4, 70000], (5, 6, 7)),
    )
    convert_hdf5(tmp_path / "a.h5", tmp_path / "fine", classes="binary")
    report = convert_hdf5(tmp_path / "a.h5", tmp_path / "coarse", classes="binary", downsample=downsample)
    fine, coarse = training_cases(tmp_path / "fine")[0], training_cases(tmp_path / "coarse")[0]
    means, objects = _read(coarse["image"]), _read(coarse["label"])
    assert means.dtype == np.float32 and report["cases"]["a"]["downsampled"] == list(factor)
    expected = _blocks(_read(fine["image"]).astype(float), factor)
    assert means.size == len(expected) == np.prod(report["cases"]["a"]["shape"])
    for place, block in expected.items():
        assert means[place] == pytest.approx(block.mean(), rel=1e-6)
    for place, block in _blocks(_read(fine["label"]), factor).items():
        assert objects[place] == (block.mean() >= 0.5)
    assert 0 < objects.mean() < 1


def test_downsampled_voxels_lie_where_their_blocks_lay(tmp_path):
    _write(tmp_path / "a.h5")
    convert_hdf5(tmp_path / "a.h5", tmp_path / "fine")
    convert_hdf5(tmp_path / "a.h5", tmp_path / "coarse", downsample=[1, 2, 3])
    fine, coarse = (training_cases(tmp_path / name)[0] for name in ("fine", "coarse"))
    for kind in ("image", "label"):
        one, other = nibabel.load(fine[kind]), nibabel.load(coarse[kind])
        np.testing.assert_allclose(other.header.get_zooms(), np.multiply(one.header.get_zooms(), (3, 2, 1)), rtol=1e-6)
        for place in ((0, 0, 0), (1, 1, 3)):
            centre = [step * i + (step - 1) / 2 for i, step in zip(place, (3, 2, 1))]
            np.testing.assert_allclose(
                nibabel.affines.apply_affine(other.affine, place),
                nibabel.affines.apply_affine(one.affine, centre),
                rtol=1e-6,
            )


def test_downsampled_walls_are_closed_and_one_voxel_thick(tmp_path):
    """A majority of classes would lose them: of no block does a wall of one voxel hold more than half."""
    label = np.zeros((4, 4, 16), np.int64)
    label[..., 3:8], label[..., 8:13] = 1, 2  # their outer ends fill half of a block
    _write(tmp_path / "a.h5", np.ones((4, 4, 16), np.uint8), label)
    convert_hdf5(tmp_path / "a.h5", tmp_path / "out", downsample=2)
    coarse = _read(training_cases(tmp_path / "out")[0]["label"])
    assert (coarse == np.array([2, 1, 0, 1, 1, 0, 1, 2])[:, None, None]).all() and coarse.shape == (8, 2, 2)


def test_downsampled_channels_and_foreign_byte_order(tmp_path):
    raw = np.arange(2 * 120, dtype=">u2").reshape(2, 4, 5, 6)
    _write(tmp_path / "a.h5", raw=raw)
    convert_hdf5(tmp_path / "a.h5", tmp_path / "out", downsample=2, label="none")
    image = _read(inference_cases(tmp_path / "out")[0]["image"])
    assert image.shape == (3, 3, 2, 2)
    assert image[1, 2, 0, 1] == raw[1, :2, 4:, 2:4].mean() and image[2, 0, 1, 0] == raw[0, 2:, :2, 4:].mean()


@pytest.mark.parametrize(
    ("downsample", "text"),
    [
        (1.5, "downsample is 1.5: it must be a whole number"),
        ([2, 2], r"downsampling factor \(2, 2\) was given: .* one for each of the three axes"),
        ("0", "downsampling factor 0 was given"),
        ("half", "downsample is 'half'"),
    ],
)
def test_downsampling_needs_whole_numbers(tmp_path, downsample, text):
    _write(tmp_path / "a.h5")
    with pytest.raises(InputError, match=text):
        convert_hdf5(tmp_path / "a.h5", tmp_path / "out", downsample=downsample)


def test_command_tells_of_blocks(tmp_path, capsys):
    _write(tmp_path / "a.h5")
    hdf5_command([str(tmp_path / "a.h5")], str(tmp_path / "out"), downsample=[2, 1, 2])
    assert "a: 3 x 5 x 2 float32, 0.26 x 0.12 x 0.56 um, means of blocks of 2 x 1 x 2;" in capsys.readouterr().out


def test_real_nuclei_downsampled_by_two(real_data, tmp_path):
    """Shares of the classes stay what they were, and walls grow, since a voxel of them is thicker."""
    file = real_data / "microscopy" / "1135_mini.h5"
    reports = [convert_hdf5(file, tmp_path / str(f), downsample=f)["cases"]["1135_mini"] for f in (1, 2)]
    assert reports[1]["shape"] == [-(-n // 2) for n in reports[0]["shape"]]
    shares = [np.array([r["voxels"][c] for c in ("background", "boundary")]) / np.prod(r["shape"]) for r in reports]
    assert shares[1][0] == pytest.approx(shares[0][0], rel=0.02)
    assert 1.3 * shares[0][1] < shares[1][1] < 2.2 * shares[0][1]


def test_real_nuclei(real_data, tmp_path):
    files = sorted((real_data / "microscopy").glob("113*_mini.h5"))
    report = convert_hdf5(files, tmp_path / "out", licence="MIT")
    cases = training_cases(tmp_path / "out")
    assert len(cases) == 2 and report["cases"]["1135_mini"]["instances"] == 54
    for case in cases:
        counts = np.bincount(_read(case["label"]).ravel())
        assert len(counts) == 3 and counts.min() > 1000
