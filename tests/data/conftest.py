"""What the tests of data share."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data import phantom_dataset


@pytest.fixture(scope="session")
def kidney(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small kidney phantoms."""
    return Path(phantom_dataset("kidney", cases=2, size=(64, 56, 32), cache_dir=tmp_path_factory.mktemp("cache")))
