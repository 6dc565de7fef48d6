"""One form for every error that a user can cause: what came, what the rule is, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "WeightsError", "nearest", "problem", "parse_flag"]


class InputError(ValueError):
    """Input that breaks a stated rule; the text says what came, what the rule is and what to do."""


class WeightsError(RuntimeError):
    """Missing, unreadable or foreign weights."""


def problem(came: str, rule: str, remedy: str) -> str:
    """Join the three parts of an error text.

    Args:
        came: what was found, naming the file or argument.
        rule: what is required.
        remedy: what the reader can do about it.

    >>> problem("dataset_dir '/x' does not exist", "it must be a folder", "pass --dataset_dir PATH")
    "dataset_dir '/x' does not exist: it must be a folder. To mend it, pass --dataset_dir PATH."
    """
    return f"{came.rstrip('.')}: {rule.rstrip('.')}. To mend it, {remedy.rstrip('.')}."


def nearest(word: str, known: Iterable[str]) -> str:
    """The entry of `known` closest in spelling to `word`, or an empty string.

    >>> nearest("epoch", ["epochs", "widths"])
    'epochs'
    """
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else ""


def parse_flag(value: bool | int | str, name: str = "flag") -> bool:
    """A boolean from what a command line may hand over (``--resume false`` arrives as the string ``"false"``).

    Raises:
        InputError: for anything but true/false, yes/no, 1/0 in any case.

    >>> parse_flag("False")
    False
    """
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("true", "yes", "1", "on"):
        return True
    if text in ("false", "no", "0", "off", "none", ""):
        return False
    raise InputError(
        problem(f"{name} is {value!r}", "it must be true or false", f"pass --{name} true or --{name} false")
    )
