"""What all phantoms of patients have in common: a Decathlon folder, a field of view, a cache, options."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.checks import InputError
from common.data import phantom_dataset, training_cases
from common.data.phantoms import registry
from common.data.phantoms.abdomen import make_abdomen
from common.data.phantoms.liver import make_liver
from common.data.phantoms.pelvis import make_pelvis


@pytest.mark.parametrize(
    ("name", "size", "modality", "labels"),
    [
        ("abdomen_ct", (40, 32, 28), "CT", {1: "artery", 2: "portal vein", 3: "liver", 7: "pancreas"}),
        ("pelvis_t2", (40, 36, 16), "MR", {1: "tumour"}),
        ("liver_ct", (40, 32, 28), "CT", {0: "background", 1: "liver", 2: "tumour"}),
    ],
)
def test_is_a_decathlon_folder(tmp_path, name, size, modality, labels):
    folder = phantom_dataset(name, cases=1, size=size, cache_dir=tmp_path)
    content = json.loads(Path(folder, "dataset.json").read_text())
    assert content["phantom"] is True and content["modality"] == {"0": modality} and content["spacing_unit"] == "mm"
    assert len(content["labels"]) == max(labels) + 1
    assert {value: content["labels"][str(value)] for value in labels} == labels
    case = training_cases(folder)[0]
    image, label = (nibabel.load(case[key]) for key in ("image", "label"))
    assert image.shape == label.shape == size
    assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint8
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")


@pytest.mark.parametrize(
    ("make", "field", "sizes"),
    [
        (make_abdomen, (400, 320, 300), [(72, 58, 48), (32, 28, 24)]),
        (make_pelvis, (335, 250, 138), [(96, 88, 28), (31, 27, 13)]),
        (make_liver, (400, 320, 300), [(64, 56, 40), (31, 29, 23)]),
    ],
)
def test_field_of_view_is_about_the_same_at_any_size(make, field, sizes):
    for index, size in enumerate(sizes):
        case = make(np.random.default_rng([0, index]), size, index)
        assert case.image.shape == case.label.shape == size
        np.testing.assert_allclose(np.multiply(case.spacing, size), field, rtol=0.07)
    given = make(np.random.default_rng([0, 0]), (32, 24, 12), 0, field_of_view="320,240,120", noise=0)
    np.testing.assert_allclose(given.spacing, 10)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("abdomen_ct", ("abdomen", "organs", "anatomy", "ct", "torso", "vessels", "tubes")),
        ("pelvis_t2", ("pelvis", "rectum", "pelvic_wall", "mr", "anatomy", "tubes")),
        ("liver_ct", ("liver", "lesions", "organs", "anatomy", "ct", "torso", "vessels", "tubes")),
    ],
)
def test_a_change_of_any_module_behind_it_makes_a_phantom_anew(monkeypatch, name, parts):
    before = registry._key(registry.PHANTOMS[name], {"name": name})
    source = registry.inspect.getsource
    for part in parts:
        monkeypatch.setattr(
            registry.inspect, "getsource", lambda one, part=part: source(one) + "#" * one.__name__.endswith("." + part)
        )
        assert registry._key(registry.PHANTOMS[name], {"name": name}) != before, part


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("abdomen_ct", {"noise": -1}, "noise is -1: it must lie between 0 and 200 HU"),
        ("abdomen_ct", {"noise": 201}, "noise is 201"),
        ("abdomen_ct", {"noise": "much"}, "noise is 'much': it must be a whole number"),
        ("abdomen_ct", {"field_of_view": (400, 320)}, "field_of_view is .*three whole numbers"),
        ("abdomen_ct", {"field_of_view": "400,0,300"}, "field_of_view is .*at least 1"),
        ("abdomen_ct", {"fieldofview": 1}, "phantom 'abdomen_ct' got 'fieldofview': .*use 'field_of_view'"),
        ("pelvis_t2", {"noise": -1}, "noise is -1: it must lie between 0 and 50 per cent"),
        ("pelvis_t2", {"noise": 51}, "noise is 51"),
        ("pelvis_t2", {"no_tumour": 1.5}, "no_tumour is 1.5: it must be a share from 0 to 1.*--no_tumour 0.25"),
        ("pelvis_t2", {"no_tumour": "half"}, "no_tumour is 'half'"),
        ("pelvis_t2", {"field_of_view": (400, 320)}, "field_of_view is .*three whole numbers"),
        ("pelvis_t2", {"tumour": 0}, "phantom 'pelvis_t2' got 'tumour': .*use 'no_tumour'"),
        ("liver_ct", {"noise": 201}, "noise is 201: it must lie between 0 and 200 HU"),
        ("liver_ct", {"no_tumour": -0.1}, "no_tumour is -0.1: it must be a share from 0 to 1.*--no_tumour 0.25"),
        ("liver_ct", {"field_of_view": "400,0,300"}, "field_of_view is .*at least 1"),
        ("liver_ct", {"no_tumor": 0}, "phantom 'liver_ct' got 'no_tumor': .*use 'no_tumour'"),
    ],
)
def test_wrong_options(tmp_path, name, options, text):
    with pytest.raises(InputError, match=text):
        phantom_dataset(name, cases=1, size=(16, 16, 16), cache_dir=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
