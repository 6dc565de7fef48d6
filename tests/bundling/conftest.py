"""A tiny package and a tiny bundle on it: what packing does is seen on a page of code."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest

_count = itertools.count()

FILES = {
    "__init__.py": '"""A package."""\n\nfrom .checks import rule\n\n__version__ = "1.2"\n__all__ = ["rule"]\n',
    "checks.py": "def rule():\n    return 'rule'\n",
    "unused.py": "raise RuntimeError('nobody needs this')\n",
    "cli.py": "from .checks import rule\n",
    "nets/__init__.py": '"""Nets."""\n\nfrom .heavy import Heavy\nfrom .net import Net\n\n__all__ = ["Heavy", "Net"]\n',
    "nets/heavy.py": "class Heavy:\n    pass\n",
    "nets/net.py": (
        '"""A net."""\n\nimport torch\n\n'
        "from .. import __version__\nfrom ..checks import rule\nfrom . import late\n\n\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, channels=2):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Conv3d(1, channels, 3, padding=1)\n\n"
        "    def forward(self, x):\n"
        "        return self.head(x)\n\n"
        "    def marker(self):\n"
        "        from ..tools.deep import inside\n\n"
        "        return inside() + rule() + late.NAME + __version__\n\n"
        "    @classmethod\n"
        "    def narrow(cls):\n"
        "        return cls(channels=1)\n"
    ),
    "nets/late.py": "NAME = 'late'\n",
    "nets/table.csv": "a,b\n",
    "tools/__init__.py": "",
    "tools/deep.py": "def inside():\n    return 'inside'\n",
    "tools/table.json": "{}\n",
    "lonely/__init__.py": "",
    "lonely/data.txt": "not carried\n",
}


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def tiny_package(tmp_path, monkeypatch):
    """Folder of an importable package with a name of its own."""
    root = tmp_path / f"tiny{next(_count)}"
    write_tree(root, FILES)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == root.name]:
        del sys.modules[name]


@pytest.fixture
def tiny_bundle(tmp_path, tiny_package):
    """Folder of a bundle whose configs reach the tiny package."""
    net = {"_target_": f"{tiny_package.name}.nets.Net", "channels": "@channels"}
    trainer = {"_target_": "some.StageTrainer", "stage": "head"}
    configs = {
        "metadata.json": {
            "name": "toy",
            "version": "0.3.0",
            "network_data_format": {
                "inputs": {"image": {"num_channels": 1, "spatial_shape": [16, 16, 16]}},
                "outputs": {"pred": {"num_channels": 2, "spatial_shape": [16, 16, 16]}},
            },
        },
        "inference.json": {"channels": 2, "patch_size": [16, 16, 16], "network_def": net, "run": ["$print('common')"]},
        "train.json": {"channels": 2, "rate": 0.1, "network_def": net, "train": {"trainer": trainer, "size": 4}},
        "narrow.json": {"channels": 1, "patch_size": [8, 8, 8], "train::size": 5},
    }
    root = tmp_path / "toy"
    write_tree(root, {f"configs/{name}": json.dumps(config) for name, config in configs.items()})
    write_tree(root, {"configs/logging.conf": "[loggers]\n", "docs/README.md": "# Toy\n", "LICENSE": "free\n"})
    write_tree(root, {"eval/left.txt": "of a run\n", "models/resume_head.pt": "not weights\n"})
    return root
