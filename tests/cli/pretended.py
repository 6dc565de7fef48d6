"""Bundles of configs only, and processes that pretend to train and to score."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common.cli import runs as machinery

# what a run leaves: Dice is told by the epochs and the fold, IoU is half of it; without epochs there is no record
_SCRIPT = """
import json, pathlib, sys, time
config, words = sys.argv[1], sys.argv[2:]
told = dict(zip((word[2:] for word in words[::2]), words[1::2]))
out = pathlib.Path(told["output_dir"])
with open(out.parents[1] / "lines.txt", "a") as stream:
    stream.write(json.dumps([config, told]) + "\\n")
epochs = 0 if "untrained" in config else int(told.get("epochs", 9))
if "evaluate" not in config:
    if (out.parents[1] / "wait").exists():
        time.sleep(60)
    if epochs == 13:
        sys.path.insert(0, ROOT)
        from common.checks import InputError
        raise InputError("the number is unlucky")
    if epochs:
        record = {"seconds": 120.0, "peak_memory_mib": 512.0, "memory": "resident", "device": "cpu, 1 threads"}
        (out / "training.json").write_text(json.dumps(record))
        (out / "resume_model.pt").touch()
else:
    fold = int(told.get("fold", told.get("slice_fold", 0)))
    dice = epochs / 10 + fold / 100
    vessel = {"dice": {"mean": dice}, "iou": {"mean": dice / 2}, "hd95_mm": {"mean": None}}
    groups = {"vessel": vessel, "all classes": {"dice": {"mean": dice}, "iou": {"mean": dice / 2}}}
    cases = [{"case": "case" + told.get("cases", told.get("fold", "s")).strip("[]"), "class": "vessel"}]
    (out / "metrics.json").write_text(json.dumps({"summary": groups, "failed": [], "cases": cases}))
"""


def pretended_bundle(
    folder: Path, configs: Mapping[str, Any], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A bundle whose lines are run by a script that pretends to.

    Args:
        folder: where it and the script go.
        configs: by name.
        repository: root of the checkout.
        monkeypatch: of the test.
    """
    bundle = folder / "toy"
    (bundle / "configs").mkdir(parents=True)
    for name, content in {**configs, "metadata": {"name": "toy", "version": "0.1.0"}}.items():
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(content))
    script = folder / "pretend.py"
    script.write_text(_SCRIPT.replace("ROOT", repr(str(repository))))

    def command(configs, overrides):
        words = [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
        return [sys.executable, str(script), "+".join(path.stem for path in configs), *words]

    monkeypatch.setattr(machinery, "bundle_command", command)
    return bundle


def lines(out: Path) -> list[tuple[str, dict[str, str]]]:
    """What was run under a folder: configs, and overrides by name."""
    return [tuple(json.loads(line)) for line in (out / "lines.txt").read_text().splitlines()]
