"""The twin of a bundle, by which `certify.py` sees whose code a server ran."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "serve" / "monai_label" / "twin.py"
CODE = """
class Answer:
    def __call__(self, inputs, network, *, shift=0):
        return inputs + shift

    def forward(self, inputs):
        return 2 * inputs
"""


@pytest.fixture(scope="module")
def twin():
    spec = importlib.util.spec_from_file_location("label_twin", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    bundle = tmp_path / "toy"
    package = bundle / "scripts_toy" / "parts"
    package.mkdir(parents=True)
    (package / "answer.py").write_text(CODE)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("from scripts_toy.parts.answer import Answer\n")
    (bundle / "configs").mkdir()
    monkeypatch.syspath_prepend(str(bundle))
    monkeypatch.syspath_prepend(str(tmp_path / "toy_twin"))
    yield bundle
    for name in [name for name in sys.modules if name.startswith("scripts_toy")]:
        del sys.modules[name]


@pytest.mark.parametrize("inferer", ["scripts_toy.parts.answer.Answer", "SimpleInferer"])
def test_the_twin_alone_moves_its_answer(twin, toy, inferer):
    config = {"inferer": {"_target_": inferer}, "network_def": {"_target_": "scripts_toy.parts.answer.Answer"}}
    (toy / "configs" / "inference.json").write_text(json.dumps(config))
    before = sorted(path.read_bytes() for path in toy.rglob("*") if path.is_file())
    place = twin.make(toy, toy.with_name("toy_twin"))
    assert sorted(path.read_bytes() for path in toy.rglob("*.*") if path.is_file() and path.suffix != ".pyc") == before
    assert "scripts_toy_twin" in (place / "configs" / "inference.json").read_text()

    importlib.invalidate_caches()
    first, other = (importlib.import_module(f"{name}.parts").Answer() for name in ("scripts_toy", "scripts_toy_twin"))
    assert type(other).__module__ == "scripts_toy_twin.parts.answer"
    values = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    moved = values.roll((1, 2, 3), (-3, -2, -1))
    called = inferer != "SimpleInferer"
    assert torch.equal(first(values, None, shift=1), values + 1) and torch.equal(first.forward(values), 2 * values)
    assert torch.equal(other(values, None, shift=1), (moved if called else values) + 1)
    assert torch.equal(other.forward(values), 2 * (values if called else moved))
