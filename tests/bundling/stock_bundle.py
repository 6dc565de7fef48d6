"""A whole bundle of stock MONAI parts, on which the gate takes about a second: faults are planted in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

README = "# Stock\n\nLaid over train.json: `evaluate`, and `narrow` for a narrow network.\n"
LOGGING = """[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=line
[logger_root]
level=INFO
handlers=console
[handler_console]
class=StreamHandler
formatter=line
args=(sys.stdout,)
[formatter_line]
format=%(message)s
"""


def _tensor(channels: int, size: int) -> dict[str, Any]:
    shape = {"num_channels": channels, "spatial_shape": [size] * 3, "dtype": "float32", "value_range": [0, 1]}
    return {"type": "image", "format": "magnitude", **shape}


CODES = ["91723000", "SCT", "Anatomical Structure"], ["10200004", "SCT", "Liver"]


def _metadata(name: str) -> dict[str, Any]:
    return {
        "schema": "https://project-monai.github.io/schema/meta_schema_20240725.json",
        "name": name,
        "version": "0.2.0",
        "changelog": {"0.1.0": "first", "0.2.0": "second"},
        **{"monai_version": "1.6.1", "pytorch_version": "2.13.0", "numpy_version": "2.4.6"},
        "required_packages_version": {},
        **{"task": "none", "description": "none", "authors": "us", "copyright": "ours", "data_source": "none"},
        "intended_use": "tests",
        "eval_metrics": {"IoU": "see docs"},
        "references": ["a paper"],
        "expected_input": {"source": "a paper", "modality": ["CT"], "spacing_mm": {"in_plane": [0.5, 1.0]}},
        "dicom_segments": {"1": {"label": "Yes", "category": CODES[0], "type": CODES[1]}},
        "network_data_format": {"inputs": {"image": _tensor(1, 8)}, "outputs": {"pred": _tensor(2, 8)}},
    }


NETWORK = {
    "_target_": "UNet",
    **{"spatial_dims": 3, "in_channels": 1, "out_channels": "@num_classes", "channels": "@widths", "strides": [2]},
}
SCALE = {
    "_target_": "ScaleIntensityRanged",
    "keys": "image",
    "a_min": 0,
    "a_max": "@bright",
    "b_min": 0.0,
    "b_max": 1.0,
}
COMMON = {
    "bundle_root": ".",
    "dataset_dir": ".",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "cpu",
    "num_classes": 2,
    "widths": [2, 4],
    "bright": 100,
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
}


def _dataset(preprocessing: str, keys: str) -> dict[str, Any]:
    data = f"$[{{key: torch.zeros(1, 8, 8, 8) for key in {keys}}}]"
    return {"_target_": "Dataset", "data": data, "transform": preprocessing}


def _engine(kind: str, prefix: str, **more: Any) -> dict[str, Any]:
    shared = {"device": "@device", "network": "@network", "inferer": f"@{prefix}inferer"}
    return {"_target_": kind, **shared, **more}


def _train() -> dict[str, Any]:
    steps = [{"_target_": "EnsureTyped", "keys": ["image", "label"]}, {**SCALE}]
    crop = {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": "@flip"}
    validation = {"validator": "@validate::evaluator", "interval": "@val_interval"}
    train = {
        "preprocessing": {"_target_": "Compose", "transforms": [*steps, crop]},
        "dataset": _dataset("@train::preprocessing", "('image', 'label')"),
        "dataloader": {"_target_": "DataLoader", "dataset": "@train::dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [{"_target_": "ValidationHandler", **validation}],
        "trainer": _engine(
            "SupervisedTrainer",
            "train::",
            max_epochs="@epochs",
            train_data_loader="@train::dataloader",
            optimizer="@optimizer",
            loss_function="@loss",
            train_handlers="@train::handlers",
        ),
    }
    discrete = {"_target_": "AsDiscreted", "keys": "label", "to_onehot": "@num_classes"}
    validate = {
        "preprocessing": {"_target_": "Compose", "transforms": [*steps, discrete]},
        "dataset": _dataset("@validate::preprocessing", "('image', 'label')"),
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate::dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": _engine(
            "SupervisedEvaluator",
            "validate::",
            val_data_loader="@validate::dataloader",
            val_handlers="@validate::handlers",
        ),
    }
    return {
        **COMMON,
        **{
            "seed": 0,
            "epochs": 3,
            "val_interval": 1,
            "flip": 0.5,
            "learning_rate": 0.1,
            "class_names": ["background", "yes"],
        },
        "loss": {"_target_": "DiceLoss", "softmax": True},
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate"},
        "train": train,
        "validate": validate,
        "initialize": ["$monai.utils.set_determinism(@seed)"],
        "run": ["$@train::trainer.run()"],
        "training": "@run",
    }


def _inference() -> dict[str, Any]:
    ensure = {"_target_": "EnsureTyped", "keys": "image"}
    return {
        **COMMON,
        "preprocessing": {"_target_": "Compose", "transforms": [ensure, {**SCALE}]},
        "dataset": _dataset("@preprocessing", "('image',)"),
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "evaluator": _engine("SupervisedEvaluator", "", val_data_loader="@dataloader"),
        "run": ["$@evaluator.run()"],
        "inference": "@run",
    }


def configs(name: str) -> dict[str, dict[str, Any]]:
    """Contents of all configs by file name."""
    handlers = [{"_target_": "StatsHandler", "name": "$'-'.join(@class_names)"}]
    return {
        "metadata.json": _metadata(name),
        "train.json": _train(),
        "inference.json": _inference(),
        "evaluate.json": {"validate::handlers": handlers, "run": ["$@validate::evaluator.run()"]},
        "multi_gpu_train.json": {"device": "cpu", "finalize": ["$torch.distributed.destroy_process_group()"]},
        "modern.json": {"loss": {"_target_": "DiceCELoss", "softmax": True, "lambda_ce": 0.5}},
        "small.json": {"widths": [2, 2]},
        "demo.json": {"epochs": 1},
        "narrow.json": {"widths": [2, 3], "flip": 0.0},
    }


def write(root: Path) -> Path:
    """Make the bundle in a folder and give that back."""
    for folder in ("configs", "docs"):
        (root / folder).mkdir(parents=True)
    for name, content in configs(root.name).items():
        (root / "configs" / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    (root / "configs" / "logging.conf").write_text(LOGGING, encoding="utf-8")
    texts = {"docs/README.md": README, "docs/data_license.txt": "none\n", "LICENSE": "free\n"}
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    return root
