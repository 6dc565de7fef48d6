"""Numbers and sizes as they arrive from a configuration or, as text, from a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from ..checks import InputError, problem

__all__ = ["parse_integer", "parse_optional_integer", "parse_triple"]


def parse_integer(value: Any, name: str) -> int:
    """A whole number from an int, a whole float or text.

    Raises:
        InputError: for anything else, NaN and booleans included.

    >>> parse_integer("3", "fold")
    3
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number != int(number):
        raise InputError(problem(f"{name} is {value!r}", "it must be a whole number", f"pass for example --{name} 0"))
    return int(number)


def parse_optional_integer(value: Any, name: str) -> int | None:
    """As `parse_integer`, with None, ``"None"``, ``"null"`` and the empty text standing for None."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null")):
        return None
    return parse_integer(value, name)


def parse_triple(value: Any, name: str) -> tuple[int, int, int]:
    """Three positive whole numbers, one for each axis, from a sequence or text such as ``"96,88,56"``.

    Raises:
        InputError: for another count, or a number below 1.

    >>> parse_triple("(96, 88, 56)", "size")
    (96, 88, 56)
    """
    parts = re.findall(r"[^\s,x\[\]()]+", value) if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or len(parts) != 3:
        raise InputError(
            problem(
                f"{name} is {value!r}",
                "it must be three whole numbers, one for each axis",
                f"pass for example --{name} [96,88,56]",
            )
        )
    triple = tuple(parse_integer(part, name) for part in parts)
    if min(triple) < 1:
        raise InputError(
            problem(f"{name} is {value!r}", "each number must be at least 1", f"pass for example --{name} [96,88,56]")
        )
    return triple  # type: ignore[return-value]
