"""Scans by content reach the sidecar; they are read when a training starts, not when it is put together."""

from __future__ import annotations

import json

import pytest
from monai.bundle import ConfigWorkflow

from common.data.overlap import Contents


@pytest.mark.parametrize("epochs", [1, 0])
def test_a_training_notes_the_scans_that_it_saw(bundle, data, tmp_path, monkeypatch, epochs):
    monkeypatch.setenv("VOLSEG_CACHE", str(tmp_path / "cache"))
    flow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "train.json"),
        logging_file=False,
        workflow_type=None,
        meta_file=None,
        bundle_root=str(bundle),
        dataset_dir=str(data),
        epochs=epochs,
    )
    flow.initialize()
    contents = Contents(sorted(data.glob("image*.nii.gz")))
    calls = []
    monkeypatch.setattr(Contents, "__call__", lambda self: calls.append(self) or {"scans": ["a"], "lits": []})
    for stage in ("finder", "train"):
        flow.parser.get_parsed_content(f"{stage}::trainer").provenance = {"name": "toy", "contents": contents}
    assert calls == []
    flow.run()
    if epochs:
        info = json.loads((bundle / "models" / "model.json").read_text())
        assert info["contents"] == {"scans": ["a"], "lits": []} and info["name"] == "toy"
    assert calls == [contents] * 2 * epochs
