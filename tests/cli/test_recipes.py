"""Recipes as they are written on a command line and in configs."""

from __future__ import annotations

import re

import pytest

from common.checks import InputError
from common.cli.recipes import Recipe, parse_recipes


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("paper", [Recipe("paper")]),
        ("paper, unet3d", [Recipe("paper"), Recipe("unet3d", ("unet3d",))]),
        (
            ["unet3d", "paper:sectors=4"],
            [Recipe("unet3d", ("unet3d",)), Recipe("paper:sectors=4", (), {"sectors": "4"})],
        ),
        (
            "slice2d:widths=[2,4];epochs=3,paper",
            [
                Recipe("slice2d:widths=[2,4];epochs=3", ("slice2d",), {"widths": "[2,4]", "epochs": "3"}),
                Recipe("paper"),
            ],
        ),
        ("paper:x::y=a=b", [Recipe("paper:x::y=a=b", (), {"x::y": "a=b"})]),
        ("paper,,paper,", [Recipe("paper")]),
    ],
)
def test_recipes_are_read(written, meant):
    assert parse_recipes(written) == meant


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("paper:sectors", "recipe 'paper:sectors' is not understood.*write it so"),
        ("paper:sectors=", "recipe 'paper:sectors=' is not understood"),
        (":sectors=4", "recipe ':sectors=4' is not understood"),
        ("paper:x=1,paper:x=-1", "'paper:x=1' and 'paper:x=-1' would share the folder 'paper_x_1'"),
    ],
)
def test_what_is_no_recipe_is_refused(written, text):
    with pytest.raises(InputError, match=text):
        parse_recipes(written)


def test_folders_are_plain_names():
    for recipe in parse_recipes("paper:sectors=4;lr=1e-3,configs/My own.json"):
        assert re.fullmatch(r"\w+", recipe.folder)
