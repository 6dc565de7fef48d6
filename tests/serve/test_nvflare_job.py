"""The NVFlare job of a packed bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def packed(tmp_path) -> Path:
    """What the script looks at of a packed bundle of two stages."""
    root = tmp_path / "toy"
    for file in ("configs/train.json", "configs/federated.json", "scripts_toy/__init__.py", "models/model.pt"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("{}")
    return root


def make(repository: Path, *words: object) -> subprocess.CompletedProcess[str]:
    script = repository / "serve" / "nvflare" / "make_job.py"
    return subprocess.run([sys.executable, str(script), *map(str, words)], capture_output=True, text=True, check=False)


def arguments(job: Path, side: str) -> dict[str, dict]:
    """Arguments of the components of a side, by id."""
    config = json.loads((job / "app" / "config" / f"config_fed_{side}.json").read_text())
    listed = [
        *config["components"],
        *config.get("workflows", []),
        *(one["executor"] for one in config.get("executors", [])),
    ]
    return {component["id"]: component["args"] for component in listed}


def test_the_job_carries_the_bundle_and_trains_all_its_stages(repository, packed, tmp_path):
    job, workspace = tmp_path / "job", tmp_path / "space"
    words = ("--rounds", 5, "--clients", 3, "--data", "/data/own", "--training", '{"val_interval": 2}')
    done = make(repository, packed, job, *words, "--workspace", workspace)
    assert done.returncode == 0, done.stderr
    carried = {path.relative_to(job / "app" / "custom").as_posix() for path in (job / "app" / "custom").rglob("*.*")}
    # weights are handed out by the server
    assert carried == {"configs/train.json", "configs/federated.json", "scripts_toy/__init__.py"}
    site, server = arguments(job, "client"), arguments(job, "server")
    assert site["algorithm"]["config_train_filename"] == ["configs/train.json", "configs/federated.json"]
    assert site["algorithm"]["train_kwargs"] == {"dataset_dir": "/data/own", "val_interval": 2}
    assert site["algorithm"]["eval_kwargs"] == {"dataset_dir": "/data/own"}
    assert site["executor"] == {"client_algo_id": "algorithm", "key_metric": "val_mean_dice"}
    assert server["rounds"]["num_rounds"] == 5 and server["rounds"]["min_clients"] == 3
    assert site["algorithm"]["bundle_root"] == server["persistor"]["bundle_root"] == "custom"
    named = {server["rounds"][key] for key in ("aggregator_id", "persistor_id", "shareable_generator_id")}
    assert named <= set(server)
    assert json.loads((job / "meta.json").read_text())["min_clients"] == 3
    allowed = json.loads((workspace / "local" / "resources.json").read_text())["class_allow_list"]
    config = json.loads((job / "app" / "config" / "config_fed_client.json").read_text())
    paths = [one["path"] for one in config["components"]] + [config["executors"][0]["executor"]["path"]]
    assert all(any(path.startswith(start) for start in allowed) for path in paths)


def test_a_bundle_of_one_stage_needs_no_overlay(repository, packed, tmp_path):
    (packed / "configs" / "federated.json").unlink()
    assert make(repository, packed, tmp_path / "job").returncode == 0
    assert arguments(tmp_path / "job", "client")["algorithm"]["config_train_filename"] == ["configs/train.json"]


@pytest.mark.parametrize(
    ("spoil", "told"), [("code", "is no packed bundle: write one by"), ("job", "is there already")]
)
def test_what_can_not_be_made_is_refused(repository, packed, tmp_path, spoil, told):
    if spoil == "code":
        (packed / "scripts_toy" / "__init__.py").unlink()
    else:
        (tmp_path / "job").mkdir()
    done = make(repository, packed, tmp_path / "job")
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
