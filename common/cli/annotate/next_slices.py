"""``volseg annotate next``: which slices to draw next in a volume that was filled up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import aff2axcodes

from ...checks import InputError, problem
from ...data.arguments import parse_integer
from ...files import write_json
from ...geometry.next_slice import RankedPlane, rank_planes
from ...metrics.stages import markdown_grid
from ...visualize.densify import next_figure
from ...visualize.planes import unit_text
from ..densify.folder import read_filled

__all__ = ["annotate_next", "describe_planes", "next_table", "parse_axes", "plane_position"]


def annotate_next(folder: str, count: str = "5", axes: str = "xyz") -> int:
    """Print the slices that are expected to settle most, and write ``next.json`` and ``next.png`` beside the results.

    Args:
        folder: of ``volseg densify``.
        count: number of slices.
        axes: letters of the array axes across which they may lie.

    Returns:
        0.

    Raises:
        InputError: for a folder that is none of densify, or is not done, and other options than these.
    """
    number = parse_integer(count, "count")
    if number < 1:
        raise InputError(problem(f"count is {number}", "it must be 1 or more", "pass for example --count 5"))
    across = parse_axes(axes)
    try:
        volume, record = read_filled(folder)
    except FileNotFoundError as error:
        came = f"'{folder}' is not whole ({error})"
        raise InputError(problem(came, "it keeps all that volseg densify wrote", "fill the volume up anew")) from error
    planes, spacing = record["planes"], record["spacing"]
    ranked = rank_planes(volume.uncertainty, planes, number, across, spacing)
    rows = describe_planes(ranked, record)
    write_json(Path(folder) / "next.json", {"planes": rows, "annotated": planes, "axes": axes})
    if not ranked:
        print("Nothing is uncertain on the slices that are not drawn: none is worth more than another.")
        return 0
    print(next_table(rows))
    print(
        "\nGain: share of the volume's uncertainty that a slice is expected to settle, given those above it. It is a "
        'guess;\n"volseg annotate simulate" measures on a labelled volume whether random slices are as good.'
    )
    print(f"Written: {Path(folder) / 'next.json'}")
    if next_figure(volume, ranked, Path(folder) / "next.png", "What to draw next"):
        print(f"Written: {Path(folder) / 'next.png'}")
    return 0


def describe_planes(ranked: Sequence[RankedPlane], record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each plane as ``next.json`` has it: axis, index from 0, slice from 1, position, gain.

    Args:
        ranked: the planes, best first.
        record: of the folder of ``volseg densify``: ``shape``, ``affine``, ``placed``, ``spacing``, ``unit``.
    """
    return [
        {
            "axis": "xyz"[plane.axis],
            "index": plane.index,
            "slice": plane.index + 1,
            "position": plane_position(plane.axis, plane.index, record),
            "gain": plane.gain,
        }
        for plane in ranked
    ]


def next_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Planes as a table; viewers such as ITK-SNAP count slices from 1, programs from 0."""
    lines = [["", "across", "slice, from 1", "index, from 0", "position", "gain"]]
    for number, row in enumerate(rows, start=1):
        cells = (row["axis"], str(row["slice"]), str(row["index"]), row["position"], f"{100 * row['gain']:.1f} %")
        lines.append([str(number), *cells])
    return markdown_grid(lines, 2)


def plane_position(axis: int, index: int, record: Mapping[str, Any]) -> str:
    """Where a plane lies: in the world, its centre along the direction that it faces; else from the first slice.

    Args:
        axis: the array axis that it lies across.
        index: its number from 0.
        record: see :func:`describe_planes`.

    >>> record = {"placed": False, "spacing": [1, 1, 0.5], "unit": "micron"}
    >>> plane_position(2, 7, record)
    '3.5 µm'
    """
    unit = unit_text(record["unit"], record["placed"])
    if not record["placed"]:
        return f"{index * record['spacing'][axis]:.4g} {unit}"
    affine = np.asarray(record["affine"], dtype=float)
    centre = [(size - 1) / 2 for size in record["shape"]]
    centre[axis] = index
    letter = aff2axcodes(affine)[axis]
    place = affine[:3, :3] @ centre + affine[:3, 3]
    world = next(row for row, letters in enumerate(("LR", "PA", "IS")) if letter in letters)
    low, high = ("LR", "PA", "IS")[world]
    return f"{high if place[world] >= 0 else low} {abs(place[world]):.4g} {unit}"


def parse_axes(axes: str) -> tuple[int, ...]:
    """Array axes from their letters.

    Raises:
        InputError: for anything but letters among x, y and z.

    >>> parse_axes("xz")
    (0, 2)
    """
    letters = [letter for letter in str(axes).lower() if letter not in " ,[]'\""]
    if not letters or not set(letters) <= set("xyz"):
        came = f"--axes is {axes}"
        raise InputError(problem(came, "it holds the letters of the array axes: x, y, z", "pass for example --axes xz"))
    return tuple(sorted({"xyz".index(letter) for letter in letters}))
