from __future__ import annotations

import importlib
import inspect
import json

import nibabel
import numpy as np
import pytest

from common.cli.commands import Volseg, main
from common.cli.converters import CONVERTERS, module_name


@pytest.mark.parametrize("form", sorted(CONVERTERS))
def test_every_form_has_its_functions_and_is_documented(form, repository):
    name = module_name(form)
    module = importlib.import_module(f"common.data.convert.{name}")
    assert callable(getattr(module, f"{name}_command"))
    parameters = inspect.signature(getattr(module, f"convert_{name}")).parameters
    assert "overwrite" in parameters and parameters["overwrite"].kind is inspect.Parameter.KEYWORD_ONLY
    assert form in inspect.getdoc(Volseg.convert)
    assert f"volseg convert {form} " in (repository / "README.md").read_text()


@pytest.fixture
def btcv(tmp_path):
    values = np.full((6, 6, 6), -1000, np.int16)
    values[1:5, 1:5] = 60
    labels = np.zeros(values.shape, np.uint8)
    labels[1:5, 1:5] = 6
    for part, number, volume in (
        ("img", 1, values),
        ("label", 1, labels),
        ("img", 2, values),
        ("label", 2, labels + 13),
    ):
        (tmp_path / "source" / part).mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(volume, np.eye(4), dtype=volume.dtype)
        nibabel.save(image, tmp_path / "source" / part / f"{part}{number:04}.nii.gz")
    return tmp_path / "source"


def test_a_conversion_by_its_words(btcv, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", "btcv", str(btcv), "--out", str(out), "--name", "abdomen", "--copy", "true"]) == 0
    printed = capsys.readouterr().out
    assert "dropped img0002: label0002.nii.gz holds the unknown numbers 19" in printed
    assert "liver: in 1 cases" in printed and f"wrote {out}: 1 cases, 1 dropped" in printed
    content = json.loads((out / "dataset.json").read_text())
    assert content["name"] == "abdomen" and len(content["training"]) == len(content["dropped"]) == 1


def test_nothing_converted_is_a_failure(btcv, tmp_path, capsys):
    (btcv / "img" / "img0001.nii.gz").unlink()
    assert main(["convert", "btcv", str(btcv), "--out", str(tmp_path / "out")]) == 2
    assert "not one of 2 cases can be converted (img0002: label0002" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
