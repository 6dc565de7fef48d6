"""A bundle in miniature before real tools, in a real clean environment."""

from __future__ import annotations

import json
import shutil

import pytest
from environments import environments_folder

from common.certify.certification import Certification
from common.certify.environments import Environments
from common.certify.steps import ENVIRONMENTS, STEPS
from common.files import read_json


@pytest.mark.slow
def test_a_bundle_in_miniature_is_trained_and_predicts_where_the_repository_is_not(repository, tmp_path):
    bundle = tmp_path / "bundles" / "unet3d_sparse"
    shutil.copytree(
        repository / "bundles" / "unet3d_sparse", bundle, ignore=shutil.ignore_patterns("models", "eval", "__pycache__")
    )
    tiny = read_json(repository / "tests" / "bundles" / "unet3d_sparse.json")["configs"]
    (bundle / "configs" / "small.json").write_text(json.dumps(tiny))
    environments = Environments(repository, environments_folder(), tmp_path / "home")
    one = Certification(bundle, tmp_path / "out", environments, STEPS, ENVIRONMENTS)
    wanted = [step for step in STEPS if step.name in ("train", "infer", "load")]
    said = []
    one.run(wanted, said.append)
    found = one.results()["steps"]
    assert {name: told["passed"] for name, told in found.items()} == dict.fromkeys(("train", "infer", "load"), True), (
        said
    )
    assert (tmp_path / "out" / "packed" / "unet3d_sparse" / "models" / "model.pt").is_file()
    assert not (bundle / "models").exists()  # what is certified is a copy

    said.clear()
    Certification(bundle, tmp_path / "out", environments, STEPS, ENVIRONMENTS).run(wanted, said.append)
    assert len(said) == 3 and all("passed before" in line for line in said)
