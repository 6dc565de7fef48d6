"""What MONAI makes of an override that is None, true or false: why ``volseg`` writes them in another way."""

from __future__ import annotations

import json

import fire
import pytest
from monai.bundle import run


@pytest.mark.parametrize("given, arrives", [(None, 3), ("$None", None)])
def test_plain_none_is_dropped_and_an_expression_arrives(tmp_path, given, arrives):
    config = tmp_path / "config.json"
    seen = tmp_path / "seen.json"
    write = {"_target_": "common.files.write_json", "path": str(seen), "content": "@folds"}
    config.write_text(json.dumps({"folds": 3, "run": write}))
    run(config_file=str(config), logging_file=False, folds=given)
    assert json.loads(seen.read_text()) == arrives


@pytest.mark.parametrize(("typed", "arrives"), [("false", "false"), ("False", False), ("True", True)])
def test_a_flag_in_small_letters_arrives_as_text_that_counts_as_true(tmp_path, typed, arrives):
    config, seen = tmp_path / "config.json", tmp_path / "seen.json"
    write = {"_target_": "common.files.write_json", "path": str(seen), "content": "@amp"}
    config.write_text(json.dumps({"amp": None, "run": write}))
    words = ["run", "--config_file", str(config), "--logging_file", "False", "--amp", typed]
    fire.Fire({"run": run}, command=words)
    assert json.loads(seen.read_text()) == arrives
