"""Which classes a data set has labels of: many public ones label some of the organs only."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checks import InputError, problem
from ..visualize.palette import background_classes
from .decathlon import read_dataset

__all__ = ["labelled_classes"]

logger = logging.getLogger(__name__)


def labelled_classes(dataset_dir: str | os.PathLike[str], class_names: Sequence[str]) -> list[int]:
    """The classes, without the background, that a data set says are labelled in it.

    They are what can be scored: in the test set of roth2017hierarchical liver, spleen and pancreas
    alone are labelled. What is said is ``"labels"`` in ``dataset.json``, from number to name as in the Decathlon;
    letter case and ``_`` for a space make no difference. Without it all classes count as labelled.

    Args:
        dataset_dir: folder with ``dataset.json``.
        class_names: one name a class, in class order.

    Returns:
        class numbers in order; one warning in the log names the classes left out.

    Raises:
        InputError: for a folder that is no data set, ``"labels"`` of another form, a number with another name than
            its class or without a class, or when no class is left.
    """
    folder, content = read_dataset(dataset_dir)
    path = folder / "dataset.json"
    background = background_classes(class_names)
    foreground = [k for k in range(len(class_names)) if k not in background]
    if not content.get("labels"):
        return foreground
    labels = _numbered(content["labels"], path)
    for number, name in labels.items():
        _check_name(number, name, class_names, path)
    found = [k for k in foreground if k in labels]
    if not found:
        raise InputError(
            problem(
                f"'{path}' labels {_listed(labels.values())}",
                f"at least one of {_listed(class_names[k] for k in foreground)} must be labelled",
                "name another data set, or complete 'labels' in that file",
            )
        )
    if absent := [class_names[k] for k in foreground if k not in labels]:
        logger.warning(
            "%s not labelled in this data set: left out of scores; training on it teaches them as background.",
            ", ".join(absent),
        )
    return found


def _numbered(labels: Any, path: Path) -> dict[int, str]:
    try:
        return {int(number): str(name) for number, name in labels.items()}
    except (AttributeError, ValueError) as error:
        raise InputError(
            problem(
                f"'labels' in '{path}' is {labels!r}",
                'it must go from number to name, as in {"0": "background", "1": "liver"}',
                "turn it round or mend it",
            )
        ) from error


def _check_name(number: int, name: str, class_names: Sequence[str], path: Path) -> None:
    """Refuse a number that means another structure here; what background is called is all the same."""
    known = {_plain(expected): k for k, expected in enumerate(class_names)}
    if number in background_classes(class_names) and _plain(name) not in known:
        return
    if known.get(_plain(name)) == number:
        return
    if 0 <= number < len(class_names):
        rule = f"class {number} is '{class_names[number]}'"
    else:
        rule = f"classes are 0 to {len(class_names) - 1}"
    place = known.get(_plain(name))
    remedy = "convert the data" if place is None else f"renumber the labels ('{name}' is {place}) or convert the data"
    raise InputError(
        problem(
            f"'{path}' says that label {number} is '{name}'",
            rule,
            f"{remedy}; where only the name differs, change it in that file, or train with these --class_names",
        )
    )


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
