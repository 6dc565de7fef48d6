"""Recipes of a bundle: its configs as they are, or under an overlay and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..checks import InputError, problem

__all__ = ["PAPER", "Recipe", "folder_name", "parse_recipes"]

PAPER = "paper"


@dataclass(frozen=True)
class Recipe:
    """A way to train: overlays after those that all recipes share, and settings that are its own."""

    name: str
    overlays: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return folder_name(self.name)


def folder_name(name: str) -> str:
    """A name as that of a folder: small letters, digits and underscores.

    >>> folder_name("3D U-Net, BN")
    '3d_u_net_bn'
    """
    return re.sub(r"\W+", "_", name.lower())


def parse_recipes(names: str | Sequence[str]) -> list[Recipe]:
    """Recipes as they are written on a command line and in a config's ``rivals``.

    Args:
        names: separated by commas that stand in no brackets: an overlay, or ``paper`` for the configs as they are;
            after a colon settings of its own, separated by semicolons.

    Raises:
        InputError: for a setting without a value, a recipe without a name, and two that would share a folder.

    >>> [(one.name, one.overlays, one.settings) for one in parse_recipes("unet3d,paper:sectors=4;widths=[4,8]")]
    [('unet3d', ('unet3d',), {}), ('paper:sectors=4;widths=[4,8]', (), {'sectors': '4', 'widths': '[4,8]'})]
    """
    words = re.split(r",(?![^\[({]*[\])}])", names) if isinstance(names, str) else [str(name) for name in names]
    found = [_parse(word.strip()) for word in words if word.strip()]
    folders: dict[str, str] = {}
    for recipe in found:
        if (other := folders.setdefault(recipe.folder, recipe.name)) != recipe.name:
            came = f"the recipes '{other}' and '{recipe.name}' would share the folder '{recipe.folder}'"
            raise InputError(problem(came, "each has one of its own", "compare them in two folders (--out)"))
    return list({recipe.name: recipe for recipe in found}.values())


def _parse(word: str) -> Recipe:
    base, _, told = word.partition(":")
    pairs = [pair.partition("=") for pair in told.split(";") if pair.strip()]
    settings = {name.strip(): value.strip() for name, _, value in pairs}
    if not base or not all(equals and name.strip() and value.strip() for name, equals, value in pairs):
        raise InputError(
            problem(
                f"the recipe '{word}' is not understood",
                "it is an overlay, with settings after a colon: paper:sectors=4;epochs=10",
                "write it so",
            )
        )
    return Recipe(word, () if base == PAPER else (base,), settings)
