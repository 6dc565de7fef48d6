"""What MONAI makes of an override that is None: the reason why ``volseg`` writes an expression."""

from __future__ import annotations

import json

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
