"""The page and the JSON of what was certified."""

from __future__ import annotations

import json
import socket

from common.certify.environments import Built
from common.certify.steps import STEPS
from common.certify.table import machine, write_tables


def _result(passed, told):
    return {"passed": passed, "told": told, "figures": {"x": 1.0}, "seconds": 12.3, "environment": "e", "key": "k"}


def _write(tmp_path):
    results = {
        "one": {
            "version": "0.1.0",
            "overlays": ["small"],
            "packed": "abc",
            "steps": {"train": _result(True, "loss 0.5"), "trt_export": _result(None, "no | <GPU>")},
        },
        "two": {"version": "0.2.0", "overlays": ["small"], "packed": "d", "steps": {"train": _result(False, "a\nb")}},
    }
    told = {"hash": "h", "python": "3.11.7", "asked": ["Onnx_Runtime", "absent"], "packages": {"onnx-runtime": "1.2"}}
    built = {"core": Built("core", tmp_path / "python", "h", told)}
    return write_tables(tmp_path, results, built, STEPS), results


def test_the_page_shows_each_outcome_with_its_reason(tmp_path):
    (page, _), _ = _write(tmp_path)
    lines = [" ".join(line.split()) for line in page.read_text().splitlines()]
    assert "| training, one short epoch | passed | **failed** |" in lines
    assert "| TensorRT (`trt_export`) | impossible | - |" in lines
    assert not any(line.startswith("| evaluation") for line in lines)  # nothing is known of it
    assert "## one 0.1.0" in lines and "## two 0.2.0" in lines
    assert "| training, one short epoch | passed | loss 0.5 | 12 |" in lines
    assert "| training, one short epoch | **failed** | a b | 12 |" in lines
    assert "| TensorRT (`trt_export`) | impossible | no \\| \\<GPU\\> | 12 |" in lines
    assert "- `core`: Python 3.11.7, onnx-runtime 1.2" in lines


def test_a_dash_is_explained_where_there_is_one(tmp_path):
    (page, _), results = _write(tmp_path)
    assert "named below. A dash: not run yet.\n" in page.read_text()
    results["two"]["steps"]["trt_export"] = _result(None, "-")
    page, _ = write_tables(tmp_path, results, {}, STEPS)
    assert "named below.\n" in page.read_text() and "dash" not in page.read_text()


def test_the_json_holds_all_that_is_known(tmp_path):
    (_, path), results = _write(tmp_path)
    content = json.loads(path.read_text())
    assert content["bundles"] == results and content["environments"]["core"]["packages"] == {"onnx-runtime": "1.2"}
    assert content["machine"] == machine()


def test_the_machine_is_told_without_its_name():
    assert socket.gethostname() not in json.dumps(machine())
    assert machine()["cores"] >= 1
