"""One colour a class, the same in every picture."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["BACKGROUND", "background_classes", "class_colour"]

# Told apart under the common kinds of colour blindness: the qualitative sets of Okabe and Ito (without black and
# yellow, which fight with grey images and white paper), then of Tol ("muted").
_COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#0072B2",
    "#DDCC77",
    "#AA4499",
    "#88CCEE",
    "#999933",
    "#CC6677",
    "#44AA99",
    "#882255",
    "#332288",
)

BACKGROUND = "background"


def class_colour(index: int) -> str:
    """Colour of class `index` as ``#rrggbb``; it repeats after 14 classes.

    >>> class_colour(0), class_colour(14)
    ('#E69F00', '#E69F00')
    """
    return _COLOURS[index % len(_COLOURS)]


def background_classes(class_names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the classes named "background": they are not painted, and their surface is not measured.

    >>> background_classes(["inside", "tubule", "background"])
    (2,)
    """
    return tuple(index for index, name in enumerate(class_names) if name.strip().lower() == BACKGROUND)
