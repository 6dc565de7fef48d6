"""The gate, open for every folder in ``bundles/`` and closed to none: no list of exemptions is possible here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.bundling.lint import RULES, lint

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.name for path in (REPOSITORY / "bundles").iterdir() if path.is_dir())


@pytest.fixture(params=BUNDLES)
def bundle(request) -> Path:
    return REPOSITORY / "bundles" / request.param


def test_there_are_bundles():
    assert "unet3d_sparse" in BUNDLES


def test_the_gate_has_no_findings(bundle):
    assert [str(finding) for finding in lint(bundle)] == []


def test_the_quick_gate_builds_nothing(bundle, monkeypatch):
    """What takes time is the building of networks and transforms; reading JSON does not."""

    def refuse(bundle):
        raise AssertionError("a rule that builds was asked")

    rules = tuple(replace(rule, check=refuse) if rule.needs == "code" else rule for rule in RULES)
    monkeypatch.setattr("common.bundling.lint.RULES", rules)
    assert [str(finding) for finding in lint(bundle, quick=True)] == []
    with pytest.raises(AssertionError, match="that builds"):
        lint(bundle)


def test_the_gate_judges_a_copy_elsewhere_alike(bundle, tmp_path):
    """Nothing that is found depends on where the bundle lies."""
    ignored = shutil.ignore_patterns("models", "eval")
    copy = shutil.copytree(bundle, tmp_path / bundle.name, ignore=ignored)
    assert [str(finding) for finding in lint(copy)] == []
    (copy / "docs" / "data_license.txt").unlink()
    assert [finding.rule for finding in lint(copy)] == ["documents"]


@pytest.mark.slow
def test_verify_net_in_out_as_a_user_runs_it(bundle):
    """The whole network on the CPU; the gate runs the same check without arithmetic."""
    configs = ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"]
    command = [sys.executable, "-m", "monai.bundle", "verify_net_in_out", "network_def", *configs, "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "data shape of network is verified with no error" in done.stdout + done.stderr
