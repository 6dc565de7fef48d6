"""The scripts of a certification, which lie in a checkout beside the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..checks import InputError, problem
from ..files import sha256
from .steps import Step

__all__ = ["checkout", "script_hash"]

_OF_ENVIRONMENT = ("requirements.txt", "requirements-no-deps.txt", "site")  # its own hash has these


def checkout(start: Path | None = None) -> Path:
    """The root of the checkout: where ``serve/`` lies beside ``common/``.

    Args:
        start: the package's folder; its own by default.

    Raises:
        InputError: where the package is installed without it.
    """
    root = (start or Path(__file__).resolve().parents[1]).parent
    if not (root / "serve" / "environment.py").is_file():
        raise InputError(
            problem(
                f"'{root}' has no serve/environment.py",
                "a certification runs the scripts in serve/, which an installed package does not carry",
                "work in a checkout of the repository, installed with: pip install -e .",
            )
        )
    return root


def script_hash(root: Path, step: Step, steps: Sequence[Step]) -> str:
    """SHA-256 of what a step runs: its script, its words, and what else lies in its folder but other scripts.

    Args:
        root: of the checkout.
        step: the step.
        steps: all steps.
    """
    script = root / step.script
    others = {root / one.script for one in steps} - {script}
    files = [path for path in sorted(script.parent.rglob("*")) if path.is_file() and path not in others]
    told = [
        (path.relative_to(root).as_posix(), sha256(path))
        for path in files
        if "__pycache__" not in path.parts and path.relative_to(script.parent).parts[0] not in _OF_ENVIRONMENT
    ]
    return hashlib.sha256(json.dumps([told, step.arguments]).encode()).hexdigest()
