"""What all tests share: one thread a process, a cache of phantoms of its own, the folder of real volumes."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")

import pytest
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes, or a skip that says how to have it."""
    folder = os.environ.get("VOLSEG_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real volumes are not here: set VOLSEG_DATA to the folder that holds them")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
