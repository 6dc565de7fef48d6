"""Numbers and sizes as they arrive from a configuration or, as text, from a command line."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from typing import Any

from ..checks import InputError, problem

__all__ = [
    "parse_amount",
    "parse_integer",
    "parse_integers",
    "parse_names",
    "parse_numbers",
    "parse_optional_integer",
    "parse_planes",
    "parse_share",
    "parse_triple",
]

_NONE = ("", "none", "null")


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
        raise InputError(problem(f"{name} is {value!r}", "it must be a whole number", f"pass for example --{name} 2"))
    return int(number)


def parse_optional_integer(value: Any, name: str) -> int | None:
    """As `parse_integer`, with None, ``"None"``, ``"null"`` and the empty text standing for None."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    return parse_integer(value, name)


def parse_integers(value: Any, name: str) -> int | tuple[int, ...] | None:
    """One whole number, several of them, or None: a setting of which the text does not say what it is.

    Raises:
        InputError: for anything else.

    >>> parse_integers("[7, 5, 21]", "slices"), parse_integers("2", "fold"), parse_integers("null", "folds")
    ((7, 5, 21), 2, None)
    """
    parts = _parts(value)
    several = not isinstance(parts, str) and isinstance(parts, Sequence)
    if several and not (isinstance(value, str) and len(parts) < 2):
        return tuple(parse_integer(part, name) for part in parts)
    return parse_optional_integer(value, name)


def parse_planes(value: Any, name: str) -> tuple[tuple[int, ...], ...] | None:
    """Indices of planes, ascending, for each of three axes, or None.

    Raises:
        InputError: for anything else, no plane at all, and indices below 0.

    >>> parse_planes("[[12, 4], [], [7]]", "held_out"), parse_planes("None", "held_out")
    (((4, 12), (), (7,)), None)
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    axes = value
    if isinstance(value, str):
        try:
            axes = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            axes = None
    if not _is_list(axes) or len(axes) != 3 or not all(_is_list(of_axis) for of_axis in axes):
        planes = ()
    else:
        planes = tuple(tuple(sorted({parse_integer(index, name) for index in of_axis})) for of_axis in axes)
    if not any(planes) or min(index for of_axis in planes for index in of_axis) < 0:
        raise InputError(
            problem(
                f"{name} is {value!r}",
                "it must be three lists of planes, counted from 0 along each array axis, and not all empty",
                f"pass for example --{name} [[12,40],[],[7]]",
            )
        )
    return planes


def parse_names(value: Any, name: str) -> tuple[int | str, ...] | None:
    """Entries of a list by their places, from 0, or by name; one stands for a list of one; None for no choice.

    Raises:
        InputError: for an empty list, or what is neither a whole number nor text.

    >>> parse_names("[0, kidney_2]", "cases"), parse_names(1, "cases"), parse_names("null", "cases")
    ((0, 'kidney_2'), (1,), None)
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    parts = [part.strip(" \t'\"") for part in value.strip(" []()").split(",")] if isinstance(value, str) else value
    parts = list(parts) if _is_list(parts) else [parts]
    if not parts or any(part == "" for part in parts):
        raise InputError(
            problem(f"{name} is {value!r}", "it must name at least one of a list", f"pass for example --{name} [0,2]")
        )
    return tuple(_place_or_text(part, name) for part in parts)


def _place_or_text(part: Any, name: str) -> int | str:
    if isinstance(part, str) and not re.fullmatch(r"[+-]?[0-9]+", part):
        return part
    return parse_integer(part, name)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def parse_triple(value: Any, name: str) -> tuple[int, int, int]:
    """Three positive whole numbers, one for each axis, from a sequence or text such as ``"96,88,56"``.

    Raises:
        InputError: for another count, or a number below 1.

    >>> parse_triple("(96, 88, 56)", "size")
    (96, 88, 56)
    """
    parts = _parts(value)
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


def parse_amount(value: Any, name: str, most: int, unit: str) -> int | None:
    """A whole number from 0 to `most`, or None.

    Raises:
        InputError: for anything else.

    >>> parse_amount("12", "noise", 200, "HU")
    12
    """
    number = parse_optional_integer(value, name)
    if number is not None and not 0 <= number <= most:
        raise InputError(
            problem(f"{name} is {number}", f"it must lie between 0 and {most} {unit}", f"pass for example --{name} 5")
        )
    return number


def parse_share(value: Any, name: str) -> float:
    """A share, 0 to 1, from a number or text.

    Raises:
        InputError: for anything else.

    >>> parse_share("0.25", "no_tumour")
    0.25
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError(
            problem(f"{name} is {value!r}", "it must be a share from 0 to 1", f"pass for example --{name} 0.25")
        )
    return number


def parse_numbers(value: Any, name: str, count: int) -> tuple[float, ...]:
    """So many finite numbers, from a sequence or text such as ``"[0.28,0.13,0.13]"``.

    Raises:
        InputError: for another count, or what is no number.

    >>> parse_numbers("[0.28, 0.13, 0.13]", "spacing", 3)
    (0.28, 0.13, 0.13)
    """
    try:
        numbers = tuple(float(part) for part in _parts(value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        example = ",".join(["1.0"] * count)
        came = f"{name} is {value!r}"
        raise InputError(problem(came, f"it must be {count} numbers", f"pass for example --{name} [{example}]"))
    return numbers


def _parts(value: Any) -> Any:
    """The numbers of a list that came as text, still as text; anything else as it is."""
    return re.findall(r"[^\s,x\[\]()]+", value) if isinstance(value, str) else value
