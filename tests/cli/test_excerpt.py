"""Tracebacks are held back whole, everything else passes at once, and the error shown is the one that was raised."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.cli.excerpt import TracebackFilter, user_error

CHAIN = """\
import sys; sys.path.insert(0, {root!r})
from common.checks import InputError
print("before", file=sys.stderr)
try:
    try:
        raise InputError("no dataset.json in 'x'\\nand no images either")
    except InputError as error:
        raise KeyError("inner") from error
except KeyError as error:
    raise RuntimeError("Failed to evaluate '@train'") from error
"""


@pytest.fixture(scope="module")
def chain(repository) -> str:
    """What Python itself prints for a chain of three errors."""
    code = CHAIN.format(root=str(repository))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr


def _filtered(text: str, size: int) -> tuple[str, str]:
    passed: list[str] = []
    part = TracebackFilter(passed.append)
    for start in range(0, len(text), size):
        part.feed(text[start : start + size])
    part.close()
    return "".join(passed), "".join(part.held)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_chain_is_held_whole(chain, size, newline):
    text = chain.replace("\n", newline)
    passed, held = _filtered(text, size)
    assert passed == f"before{newline}"
    assert passed + held == text


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_nothing_is_lost_around_a_traceback(chain, size):
    text = (
        "\rcases: 10%\rcases: 20%" + chain.removeprefix("before\n") + "2026-01-01 12:00:00 - INFO - next epoch\nmore\n"
    )
    passed, held = _filtered(text, size)
    assert passed == "\rcases: 10%\rcases: 20%2026-01-01 12:00:00 - INFO - next epoch\nmore\n"
    assert held.startswith("Traceback") and held.endswith("Failed to evaluate '@train'\n")


def test_text_after_a_blank_line_passes():
    passed, held = _filtered("Traceback (most recent call last):\n  File x\nValueError: y\n\nDone.\n", 5)
    assert passed == "Done.\n"
    assert held.endswith("ValueError: y\n\n")


def test_unfinished_lines_pass_at_once():
    passed: list[str] = []
    part = TracebackFilter(passed.append)
    part.feed("\rTraining: 3/10")
    assert passed == ["\rTraining: 3/10"]


def test_the_error_raised_is_the_one_shown(chain):
    assert user_error(chain) == ("InputError", "no dataset.json in 'x'\nand no images either")


def test_what_is_said_about_several_cases_comes_before_what_one_of_them_said():
    text = (
        "common.checks.InputError: bad\n\nThe above ...\n\ncommon.engines.case_evaluator.CasesFailed: 2 of 3 failed\n"
    )
    assert user_error(text) == ("CasesFailed", "2 of 3 failed")


def test_an_error_of_the_code_is_not_for_the_user():
    assert user_error("Traceback (most recent call last):\n  File x\nValueError: InputError: not one\n") is None
