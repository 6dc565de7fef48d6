"""Clean environments for slow tests, built once and kept, as `volseg certify` keeps them."""

from __future__ import annotations

import os
from pathlib import Path

from common.certify.environments import Environments
from common.certify.steps import ENVIRONMENTS
from common.data.phantoms.registry import cache_folder

REPOSITORY = Path(__file__).resolve().parents[1]


def environments_folder() -> Path:
    """Where they are kept: the folder that VOLSEG_ENVIRONMENTS names, or one beside the phantoms."""
    return Path(os.environ.get("VOLSEG_ENVIRONMENTS") or Path(cache_folder()) / "environments").resolve()


def built_python(name: str, bundle: Path | None = None) -> Path:
    """The Python of an environment, which is made at the first call: minutes.

    Args:
        name: ``core``, ``monai_label`` or ``monai_deploy``.
        bundle: a packed bundle, for ``core``.
    """
    folder = environments_folder()
    (kind,) = (one for one in ENVIRONMENTS if one.name == name)
    return Environments(REPOSITORY, folder, folder / "home").get(kind, bundle or folder).python
