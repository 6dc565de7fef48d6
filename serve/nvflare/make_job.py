"""Write an NVFlare job that trains a packed bundle: ``python serve/nvflare/make_job.py PACKED JOB --data FOLDER``.

The job carries the bundle, code and all, in ``custom`` of its app, which NVFlare puts on the path of every site: each
site works in a copy of its own. Rounds are those of ``monai.fl.client.MonaiAlgo``: a site scores the weights of the
federation, trains them by its own data, and sends what it has learnt. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

METRIC = "val_mean_dice"  # of the bundle's own evaluation


def component(name: str, path: str, **arguments: Any) -> dict[str, Any]:
    """A component of NVFlare, as its configs write it."""
    return {"id": name, "path": path, "args": arguments}


def server(rounds: int, clients: int) -> dict[str, Any]:
    """The server: hands the weights out, waits for all sites, adds up what they have learnt, keeps the best."""
    waiting = {"min_clients": clients, "num_rounds": rounds, "start_round": 0, "wait_time_after_min_received": 0}
    ids = {"aggregator_id": "aggregator", "persistor_id": "persistor", "shareable_generator_id": "generator"}
    return {
        "format_version": 2,
        "task_data_filters": [],
        "task_result_filters": [],
        "components": [
            component("persistor", "monai_nvflare.monai_bundle_persistor.MonaiBundlePersistor", bundle_root="custom"),
            component(
                "generator",
                "nvflare.app_common.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator",
            ),
            component(
                "aggregator",
                "nvflare.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator",
                expected_data_kind="WEIGHT_DIFF",
            ),
            component("selector", "nvflare.app_common.widgets.intime_model_selector.IntimeModelSelector"),
        ],
        "workflows": [
            component(
                "rounds",
                "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
                **waiting,
                **ids,
                train_task_name="train",
                train_timeout=0,
            )
        ],
    }


def client(files: Sequence[str], values: Mapping[str, Any], training: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """A site.

    Args:
        files: configs of the training, from the bundle's folder.
        values: overrides of every run.
        training: further ones of the training.
        epochs: that every stage trains for in a round.
    """
    algorithm = {
        "bundle_root": "custom",
        "local_epochs": epochs,
        "send_weight_diff": True,
        "config_train_filename": list(files),
        "train_kwargs": {**values, **training},
        "eval_kwargs": dict(values),
    }
    executor = {"client_algo_id": "algorithm", "key_metric": METRIC}
    path = "monai_nvflare.client_algo_executor.ClientAlgoExecutor"
    return {
        "format_version": 2,
        "task_data_filters": [],
        "task_result_filters": [],
        "executors": [{"tasks": ["train"], "executor": component("executor", path, **executor)}],
        "components": [component("algorithm", "monai.fl.client.MonaiAlgo", **algorithm)],
    }


def make_job(
    bundle: Path,
    job: Path,
    clients: int = 2,
    rounds: int = 2,
    epochs: int = 1,
    values: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write the job.

    Args:
        bundle: packed, with its code.
        job: a folder that is not there.
        clients: how many sites take part.
        rounds: of the federation.
        epochs: that every stage trains for in a round.
        values: overrides of training and evaluation, such as ``dataset_dir``.
        training: overrides of the training alone.

    Raises:
        ValueError: when the bundle is no packed one, or the job is there.
    """
    if not list(bundle.glob("scripts_*/__init__.py")) or not (bundle / "configs" / "train.json").is_file():
        raise ValueError(f"'{bundle}' is no packed bundle: write one by 'volseg pack NAME'")
    if job.exists():
        raise ValueError(f"'{job}' is there already: name a folder that is not")
    configs = ["train", *(["federated"] if (bundle / "configs" / "federated.json").is_file() else [])]
    files = [f"configs/{name}.json" for name in configs]
    app = job / "app"
    shutil.copytree(bundle, app / "custom", ignore=shutil.ignore_patterns("eval", "models", "__pycache__"))
    (app / "config").mkdir()
    written = {
        app / "config" / "config_fed_server.json": server(rounds, clients),
        app / "config" / "config_fed_client.json": client(files, values or {}, training or {}, epochs),
        job / "meta.json": {
            "name": bundle.name,
            "resource_spec": {},
            "min_clients": clients,
            "deploy_map": {"app": ["@ALL"]},
        },
    }
    for path, content in written.items():
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def allow(workspace: Path) -> None:
    """Let a workspace build the components that the job names; NVFlare builds its own alone otherwise."""
    (workspace / "local").mkdir(parents=True, exist_ok=True)
    allowed = {"format_version": 2, "class_allow_list": ["nvflare.", "monai_nvflare.", "monai.fl."]}
    (workspace / "local" / "resources.json").write_text(json.dumps(allowed, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("job", type=Path)
    parser.add_argument("--data", help="where every site keeps its own Decathlon folder; left out, the phantom")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1, help="of every stage, in a round")
    parser.add_argument("--training", type=json.loads, default={}, help="overrides of the training, as JSON")
    parser.add_argument("--workspace", type=Path, help="a simulator's workspace to write the allow list into")
    given = parser.parse_args()
    values = {} if given.data is None else {"dataset_dir": given.data}
    try:
        make_job(given.bundle, given.job, given.clients, given.rounds, given.epochs, values, given.training)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.workspace:
        allow(given.workspace)
    print(given.job)
    return 0


if __name__ == "__main__":
    sys.exit(main())
