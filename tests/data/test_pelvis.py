from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.data import phantom_dataset, training_cases
from common.data.phantoms.pelvis import make_pelvis
from common.data.phantoms.phantom import PhantomCase

SIZE = (96, 88, 28)


def _case(index: int, size=SIZE, **options) -> PhantomCase:
    return make_pelvis(np.random.default_rng([0, index]), size, index, **options)


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [_case(index) for index in range(6)]


def test_is_a_decathlon_folder(tmp_path):
    folder = phantom_dataset("pelvis_t2", cases=1, size=(40, 36, 16), cache_dir=tmp_path)
    content = json.loads(Path(folder, "dataset.json").read_text())
    assert content["phantom"] is True and content["modality"] == {"0": "MR"} and content["spacing_unit"] == "mm"
    assert content["labels"] == {"0": "background", "1": "tumour"}
    case = training_cases(folder)[0]
    image, label = (nibabel.load(case[key]) for key in ("image", "label"))
    assert image.shape == label.shape == (40, 36, 16)
    assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint8
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")


def test_no_interval_of_brightness_finds_the_tumour(cases):
    for case in cases:
        edges = np.linspace(0, np.percentile(case.image, 99.5), 200)
        truth = case.label == 1
        found, _ = np.histogram(case.image, edges)
        right, _ = np.histogram(case.image[truth], edges)
        found, right = (np.concatenate([[0], np.cumsum(one)]) for one in (found, right))
        low, high = np.triu_indices(len(found), 1)
        dice = 2 * (right[high] - right[low]) / (found[high] - found[low] + truth.sum())
        assert 0 < dice.max() < 0.3
