"""The files of a data set as others hand it out: where they lie, which image belongs to which labels.

What is wrong with the whole folder is an `InputError`; a file without its partner is a refused case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...checks import InputError, problem
from ...files import case_name, read_json
from .sources import Case

__all__ = [
    "case_number",
    "find_base",
    "find_bases",
    "numbered_cases",
    "only_source",
    "pair_files",
    "plain_name",
    "volume_files",
]

_CHANNEL = re.compile(r"(?<=\d)_0000$")
_DEPTH = 4  # levels of folders that archives put above the images


def only_source(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Path:
    """The one folder that a data set is converted from.

    Raises:
        InputError: when several are named, or it is none.
    """
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if len(given) != 1:
        raise InputError(
            problem(f"{len(given)} sources were named", "it is one, the folder of the data set", "convert them apart")
        )
    path = Path(given[0]).expanduser()
    if not path.is_dir():
        came = "is a file" if path.exists() else "does not exist"
        raise InputError(
            problem(f"'{path}' {came}", "it must be the folder of the unpacked data set", "unpack it, check the path")
        )
    return path


def numbered_cases(
    source: Path, layouts: Mapping[tuple[str, str], str | None], numbers: Mapping[int, str]
) -> list[Case]:
    """Cases of a data set whose images and labels share a number.

    Args:
        source: its folder, at whatever level it was unpacked.
        layouts: the names of a folder of images and one of labels, with the part of the data set that lies there.
        numbers: organs by number, compared with a ``dataset.json`` beside the folders.

    Raises:
        InputError: no such folders, several data sets, organs of other numbers, two files of one number.
    """
    base = find_base(source, list(layouts))
    _check_numbering(base / "dataset.json", numbers)
    cases = []
    for (images, labels), split in layouts.items():
        if (base / images).is_dir() and (base / labels).is_dir():
            files = volume_files(base / images), volume_files(base / labels)
            cases += pair_files(*files, lambda name: case_number(name) or name, split)
    return cases


def volume_files(folder: str | Path) -> list[Path]:
    """The NIfTI files of a folder by name, hidden ones left out; a file stands for itself."""
    folder = Path(folder).expanduser()
    children = [folder] if folder.is_file() else sorted(folder.iterdir())
    return [one for one in children if one.name.lower().endswith((".nii", ".nii.gz")) and not one.name.startswith(".")]


def find_bases(source: Path, layouts: Sequence[tuple[str, str]]) -> list[Path]:
    """The folders at or below `source` that hold a folder of images and one of labels; the first level that has any.

    Args:
        source: the data set's folder, at whatever level it was unpacked.
        layouts: the names of a folder of images and one of labels.

    Raises:
        InputError: when there is none.
    """
    level = [source]
    for _ in range(_DEPTH + 1):
        found = [base for base in level if any((base / one).is_dir() and (base / two).is_dir() for one, two in layouts)]
        if found:
            return found
        level = [one for base in level for one in sorted(base.iterdir()) if one.is_dir() and one.name[0] != "."]
    wanted = ", ".join(f"{one} and {two}" for one, two in layouts)
    raise InputError(
        problem(
            f"'{source}' has no folders of images and labels", f"they are called {wanted}", "name the folder above them"
        )
    )


def find_base(source: Path, layouts: Sequence[tuple[str, str]]) -> Path:
    """The one folder that `find_bases` finds.

    Raises:
        InputError: when there is none, or several.
    """
    found = find_bases(source, layouts)
    if len(found) > 1:
        names = ", ".join(str(base.relative_to(source)) for base in found)
        raise InputError(
            problem(
                f"'{source}' holds several data sets ({names})",
                "one is converted at a time",
                "name the folder of one of them",
            )
        )
    return found[0]


def plain_name(name: str) -> str:
    """A case's name without the number of its only channel.

    >>> plain_name("amos_0012_0000"), plain_name("amos_0012")
    ('amos_0012', 'amos_0012')
    """
    return _CHANNEL.sub("", name)


def case_number(name: str) -> int | None:
    """The last number in a case's name, a channel's ``_0000`` left aside.

    >>> case_number("img0021_0000"), case_number("DET0000101_avg_seg"), case_number("scan")
    (21, 101, None)
    """
    digits = re.findall(r"\d+", plain_name(name))
    return int(digits[-1]) if digits else None


def pair_files(
    images: Sequence[Path], labels: Sequence[Path], key: Callable[[str], Any], split: str | None = None
) -> list[Case]:
    """Cases from two lists of files; one that lacks its partner is a refused case.

    Args:
        images: files of images; a case is named after its image.
        labels: files of labels.
        key: function from a file's case name to what the two have in common.
        split: the part that the data set's authors gave them to.

    Raises:
        InputError: when two images or two labels have one key.
    """
    held = []
    for kind, files in (("images", images), ("labels", labels)):
        keyed: dict[Any, Path] = {}
        for file in files:
            name = key(case_name(file))
            if name in keyed:
                raise InputError(
                    problem(
                        f"'{keyed[name].name}' and '{file.name}' are {kind} of one case",
                        "each case has one image and one label",
                        "move one of them elsewhere",
                    )
                )
            keyed[name] = file
        held.append(keyed)
    first, second = held
    cases = []
    for name, image in first.items():
        label = second.get(name)
        refused = None if label else "it has no label"
        cases.append(Case(plain_name(case_name(image)), image, label, split, refused))
    lone = [file for name, file in second.items() if name not in first]
    return cases + [Case(case_name(file), None, file, split, "its label has no image") for file in lone]


def _check_numbering(path: Path, numbers: Mapping[int, str]) -> None:
    """Refuse a data set whose own list gives an organ another number; names that are not known here do not matter."""
    expected = {re.sub(r"[^a-z]", "", organ): number for number, organ in numbers.items()}
    labels = read_json(path).get("labels") if path.is_file() else None
    for one, other in (labels if isinstance(labels, dict) else {}).items():
        number, name = (one, other) if str(one).isdigit() else (other, one)
        wanted = expected.get(re.sub(r"[^a-z]", "", str(name).lower()))
        if wanted is not None and str(number) != str(wanted):
            raise InputError(
                problem(
                    f"'{path}' gives {name} the number {number}",
                    f"in the data set as published it is {wanted}",
                    "convert the files as published, or correct the list where it is wrong",
                )
            )
