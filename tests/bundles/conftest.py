"""What the tests of packed bundles share: a folder, and a module's own bundle in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from packed import make_work, pack_tiny


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the repository is not on the path."""
    return make_work(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest, repository: Path, work: Path) -> Path:
    """The bundle that a test module calls `NAME`, packed by its overlay `TINY`."""
    return pack_tiny(repository / "bundles" / request.module.NAME, work, request.module.TINY)
