from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from common.checks import InputError
from common.data import inference_cases, phantom_dataset, training_cases
from common.data.phantoms.kidney import annotate_slices
from common.data.phantoms.microscope import photograph, smooth_noise
from common.data.phantoms.registry import cache_folder
from common.data.phantoms.tubes import Tube, TubeGrower, tube_fields

TINY = {"cases": 1, "size": (24, 22, 16)}


def _read(path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def _bytes(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


def test_kidney_is_a_decathlon_folder_marked_as_phantom(kidney):
    content = json.loads((kidney / "dataset.json").read_text())
    assert content["phantom"] is True and content["licence"] and list(content["labels"]) == ["0", "1", "2", "3"]
    assert len(content["modality"]) == 3 and content["spacing_unit"] == "micron" and len(content["dense"]) == 2
    image = nibabel.load(training_cases(kidney)[0]["image"])
    assert image.shape == (64, 56, 32, 3) and image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.header.get_zooms()[:3], (1.76, 1.76, 2.04), rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "micron"
    assert len(inference_cases(kidney)) == 2


def test_sparse_label_agrees_with_the_dense_one_on_a_few_planes(kidney):
    for case in training_cases(kidney):
        sparse, dense = _read(case["label"]), _read(case["label"].replace("labelsTr", "labelsDense"))
        assert set(np.unique(dense)) == {0, 1, 2} and set(np.unique(sparse)) == {0, 1, 2, 3}
        labelled = sparse != 3
        assert 0.05 < labelled.mean() < 0.5
        np.testing.assert_array_equal(sparse[labelled], dense[labelled])


def test_lumen_lies_within_walls(kidney):
    for case in training_cases(kidney):
        dense = _read(case["label"].replace("labelsTr", "labelsDense"))
        touching = ndimage.binary_dilation(dense == 0) & (dense == 2)
        assert touching.sum() < 0.01 * (dense == 0).sum()
        share = np.bincount(dense.ravel(), minlength=3) / dense.size
        assert share[0] > 0.01 and 0.1 < share[1] < 0.6


def test_no_threshold_of_one_stain_finds_the_inside(kidney):
    best = {0: 0.0, 1: 0.0}
    for case in training_cases(kidney):
        image, dense = _read(case["image"]), _read(case["label"].replace("labelsTr", "labelsDense"))
        for value in best:
            truth = dense == value
            for channel in np.moveaxis(ndimage.gaussian_filter(image.astype(float), (1, 1, 1, 0)), -1, 0):
                for level in np.percentile(channel, np.arange(2, 100, 4)):
                    for found in (channel < level, channel >= level):
                        best[value] = max(best[value], (found & truth).sum() / (found | truth).sum())
    assert 0 < best[0] < 0.35 and 0 < best[1] < 0.6


def test_light_fades_and_blurs_with_depth():
    stripes = np.zeros((64, 64, 64), np.float32)
    stripes[::4] = stripes[1::4] = 1
    image = photograph(stripes, (1.76, 1.76, 2.04), 100.0, 50.0, np.random.default_rng(0)).astype(float).mean(1)
    means = image.mean(0)
    assert means[:8].mean() * np.exp(-56 * 2.04 / 100) == pytest.approx(means[-8:].mean(), rel=0.2)
    contrast = (image[0::4] + image[1::4]).mean(0) / (image[2::4] + image[3::4]).mean(0)
    assert contrast[:8].mean() > 2 * contrast[-8:].mean() > 2


def test_smooth_noise_is_normal_and_smooth():
    noise = smooth_noise((60, 50, 40), (1.0, 2.0, 3.0), 20.0, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(0, abs=1e-5) and noise.std() == pytest.approx(1, rel=1e-5)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.15


def test_equal_arguments_make_equal_bytes_and_other_seeds_other_ones(tmp_path):
    folders = [
        phantom_dataset("kidney", seed=seed, cache_dir=tmp_path / str(k), **TINY) for k, seed in enumerate((1, 1, 2))
    ]
    first, second, third = map(_bytes, folders)
    assert first == second
    image = "imagesTr/kidney_01.nii.gz"
    assert first[image] != third[image]


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path):
    one, two = (phantom_dataset("kidney", cases=n, size="24,22,16", cache_dir=tmp_path) for n in ("1", 2))
    assert one != two
    assert (Path(one) / "imagesTr/kidney_01.nii.gz").read_bytes() == (
        Path(two) / "imagesTr/kidney_01.nii.gz"
    ).read_bytes()


def test_made_once(tmp_path):
    folder = phantom_dataset("kidney", cache_dir=tmp_path, **TINY)
    before = Path(folder, "dataset.json").stat().st_mtime_ns
    assert phantom_dataset("kidney", cache_dir=tmp_path, **TINY) == folder
    assert Path(folder, "dataset.json").stat().st_mtime_ns == before and len(list(tmp_path.iterdir())) == 1


def _make(cache: str) -> str:
    return phantom_dataset("kidney", cache_dir=cache, **TINY)


def test_two_processes_may_race(tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.map(_make, [str(tmp_path)] * 2, chunksize=1)
    assert first == second and [path.name for path in tmp_path.iterdir()] == [Path(first).name]


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VOLSEG_CACHE", str(tmp_path / "here"))
    assert phantom_dataset("kidney", **TINY).startswith(str(tmp_path / "here"))
    monkeypatch.delenv("VOLSEG_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "volseg"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "kidny"}, "phantom 'kidny' is unknown: .*choose 'kidney'"),
        ({"slice": [1, 1, 1]}, "phantom 'kidney' got 'slice': .*use 'slices'"),
        ({"cases": 0}, "cases is 0"),
        ({"cases": "two"}, "cases is 'two': it must be a whole number"),
        ({"size": (24, 22)}, "size is .*three whole numbers"),
        ({"size": (24, 22, 4)}, "size is .*at least 8 voxels"),
        ({"seed": -1}, "seed -1"),
        ({"slices": "1,2"}, "slices is '1,2': it must be three"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, text):
    with pytest.raises(InputError, match=text):
        phantom_dataset(**({"name": "kidney", "cache_dir": tmp_path} | TINY | arguments))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_cache(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can not be written"):
        phantom_dataset("kidney", cache_dir=tmp_path / "file", **TINY)


def test_slices_can_be_asked_for(tmp_path):
    folder = phantom_dataset("kidney", cache_dir=tmp_path, slices=[1, 2, 99], **TINY)
    assert (_read(training_cases(folder)[0]["label"]) != 3).all()


@pytest.mark.parametrize("counts", [(7, 5, 21), (1, 0, 0), (0, 3, 0)])
def test_annotated_planes_are_as_many_as_asked(counts):
    sparse = annotate_slices(np.zeros((30, 31, 32), np.uint8), counts, 3)
    for axis, count in enumerate(counts):
        assert (sparse == 0).all(axis=tuple({0, 1, 2} - {axis})).sum() == count


def test_tube_fields_are_distances_to_a_straight_tube():
    along = np.arange(-10, 60, 0.5)
    tube = Tube(
        np.stack([along, np.full_like(along, 20), np.full_like(along, 24)], 1),
        np.full_like(along, 9),
        np.full_like(along, 4),
        np.zeros(len(along)),
    )
    spacing = (1.0, 2.0, 3.0)
    outer, inner, kind = tube_fields([tube], (30, 20, 16), spacing, margin=5.0)
    _, y, z = np.meshgrid(
        *((np.arange(n) + 0.5) * s for n, s in zip((30, 20, 16), spacing, strict=True)), indexing="ij"
    )
    distance = np.hypot(y - 20, z - 24)
    near = distance < 13.5
    np.testing.assert_allclose(outer[near], distance[near] - 9, atol=0.05)
    np.testing.assert_allclose(inner[near], np.minimum(distance[near] - 4, 5), atol=0.05)
    assert (kind[near] == 0).all() and (kind[distance > 15] == -1).all()


def test_grown_tubes_keep_clear_of_each_other():
    grower = TubeGrower((200.0, 200.0, 100.0), np.random.default_rng(0), overlap=1.0)
    for _ in range(40):
        grower.grow(14.0, (0.4, 0.5), (0, 1), longest=300.0)
    assert len(grower.tubes) >= 3
    for k, tube in enumerate(grower.tubes):
        assert set(np.unique(tube.kind)) == {0, 1} and (tube.inner < tube.outer).all()
        for other in grower.tubes[:k]:
            apart = (
                np.linalg.norm(tube.points[:, None] - other.points[None], axis=2)
                - tube.outer[:, None]
                - other.outer[None]
            )
            assert apart.min() > -7.0  # the walk keeps clear by mean radii; swelling and the spline take a little of it
