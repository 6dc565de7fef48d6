"""What the tests of servers share: the modules of MONAI Label's guard, as the server's process finds them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def guard(repository: Path) -> Iterator[SimpleNamespace]:
    """The guard's modules, as the server's process finds them."""
    pytest.importorskip("nrrd")
    folder = str(repository / "serve" / "monai_label")
    sys.path.insert(0, folder)
    try:
        names = ("archives", "body", "incoming", "refused", "rules", "series", "training", "volumes", "weights")
        yield SimpleNamespace(**{name: importlib.import_module(f"guard.{name}") for name in names})
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split(".")[0] == "guard"]:
            del sys.modules[name]


@pytest.fixture
def refuses(guard):
    """Expect a refusal: its status and a part of its text."""

    @contextmanager
    def expect(status: int, match: str):
        with pytest.raises(guard.refused.Refused, match=match) as caught:
            yield
        assert caught.value.status == status and all(caught.value.parts.values())

    return expect
