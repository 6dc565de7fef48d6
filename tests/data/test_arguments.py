from __future__ import annotations

import math

import pytest

from common.checks import InputError
from common.data.arguments import (
    parse_amount,
    parse_integer,
    parse_integers,
    parse_numbers,
    parse_optional_integer,
    parse_share,
    parse_triple,
)


@pytest.mark.parametrize(("value", "expected"), [(3, 3), ("3", 3), (3.0, 3), (" -2 ", -2)])
def test_whole_numbers_are_taken_in_any_form(value, expected):
    assert parse_integer(value, "fold") == expected


@pytest.mark.parametrize("value", [1.5, "x", math.nan, "nan", math.inf, None, True, [1]])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(InputError, match="fold is .*it must be a whole number.*--fold 2"):
        parse_integer(value, "fold")


@pytest.mark.parametrize("value", [None, "None", "null", "", " none "])
def test_none_may_be_text(value):
    assert parse_optional_integer(value, "folds") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("null", None),
        ("None", None),
        (None, None),
        ("", None),
        ("3", 3),
        (0, 0),
        ("[7,5,21]", (7, 5, 21)),
        ("(7, 0, 21)", (7, 0, 21)),
        ([7.0, "5"], (7, 5)),
    ],
)
def test_one_number_several_or_none(value, expected):
    assert parse_integers(value, "slices") == expected


@pytest.mark.parametrize("value", ["seven", "[7,five]", [1.5], {"a": 1}, True])
def test_other_than_numbers(value):
    with pytest.raises(InputError, match="slices is .*it must be a whole number"):
        parse_integers(value, "slices")


@pytest.mark.parametrize("value", [(96, 88, 56), [96, 88, 56], "96,88,56", "[96, 88, 56]", "96x88x56"])
def test_sizes(value):
    assert parse_triple(value, "size") == (96, 88, 56)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("96,88", "must be three whole numbers"),
        ((1, 2, 0), "at least 1"),
        (5, "must be three"),
        ("1,2,a", "whole number"),
    ],
)
def test_wrong_sizes(value, text):
    with pytest.raises(InputError, match=f"size is .*{text}"):
        parse_triple(value, "size")


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (1, 1), ("0.25", 0.25), (0.5, 0.5)])
def test_shares(value, expected):
    assert parse_share(value, "share") == expected


@pytest.mark.parametrize("value", [-0.01, 1.01, "half", math.nan, None, True, [0.5]])
def test_other_than_a_share(value):
    with pytest.raises(InputError, match="share is .*it must be a share from 0 to 1"):
        parse_share(value, "share")


@pytest.mark.parametrize(("value", "expected"), [(0, 0), ("50", 50), (None, None), ("None", None)])
def test_amounts(value, expected):
    assert parse_amount(value, "noise", 50, "HU") == expected


@pytest.mark.parametrize("value", [-1, "51"])
def test_an_amount_out_of_range(value):
    with pytest.raises(InputError, match=f"noise is {value}: it must lie between 0 and 50 HU"):
        parse_amount(value, "noise", 50, "HU")


@pytest.mark.parametrize("value", [(0.28, 1, 2), [0.28, "1", 2.0], "[0.28,1,2]", "(0.28, 1, 2)", "0.28 x 1 x 2"])
def test_so_many_numbers(value):
    assert parse_numbers(value, "spacing", 3) == (0.28, 1.0, 2.0)


@pytest.mark.parametrize("value", ["1,2", [1, 2, 3, 4], "a,b,c", 1.0, None, (1, 2, math.nan), [1, [2], 3]])
def test_other_than_so_many_numbers(value):
    with pytest.raises(InputError, match=r"spacing is .*: it must be 3 numbers.*--spacing \[1.0,1.0,1.0\]"):
        parse_numbers(value, "spacing", 3)
