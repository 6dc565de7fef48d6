"""Batches of one case from a data set in which single cases may fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.data import list_data_collate

from ..checks import InputError
from .faults import file_fault

__all__ = ["CaseLoader", "case_label", "innermost_text"]

_logger = logging.getLogger(__name__)


class CaseLoader:
    """Yields each case of a data set as a batch of one; a case that can not be loaded is noted and passed over.

    It has no length on purpose: how many batches come is known only at the end, and an engine given a length would
    start over to fill it.

    Args:
        dataset: a map-style data set whose items are dictionaries (or lists of them, for several patches of a case).

    Attributes:
        failures: one ``{"case": file name, "error": text}`` for each case passed over, of the newest pass.

    >>> [batch["x"].tolist() for batch in CaseLoader([{"x": 1}, {"x": 2}])]
    [[1], [2]]
    """

    def __init__(self, dataset: Sequence[Any]) -> None:
        self.dataset = dataset
        self.failures: list[dict[str, str]] = []

    @property
    def total(self) -> int:
        """How many cases the data set lists, those that will fail included."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        self.failures = []
        for index in range(self.total):
            try:
                batch = list_data_collate([self.dataset[index]])
            except Exception as error:  # any fault of one case, of whatever library, must leave the others alone
                self._note(index, error)
                continue
            yield batch

    def _note(self, index: int, error: Exception) -> None:
        paths = _image_paths(self.dataset, index)
        text = next((fault for fault in map(file_fault, paths) if fault), None) or innermost_text(error)
        case = case_label(paths, index)
        self.failures.append({"case": case, "error": text})
        _logger.error("case %d of %d (%s) is passed over: %s", index + 1, self.total, case, text)


def innermost_text(error: BaseException) -> str:
    """The text of an error's first cause, or of the first error on the way there that was written for the reader.

    MONAI wraps what a transform raised in errors of its own; an `InputError` says more than what caused it.
    """
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        if isinstance(error, InputError):
            break
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__) or error
    return str(error) or type(error).__name__


def case_label(paths: Sequence[str], index: int) -> str:
    """The file name of a case's image, or its number where the data set does not tell."""
    return Path(paths[0]).name if paths else f"case {index + 1}"


def _image_paths(dataset: Any, index: int) -> list[str]:
    """Files of the case as listed in the data set, the image first; empty where it lists none."""
    data = getattr(dataset, "data", dataset)
    item = data[index] if isinstance(data, Sequence) and index < len(data) else None
    if not isinstance(item, dict):
        return []
    values = [item[key] for key in sorted(item, key=lambda key: key != "image")]
    flat = [one for value in values for one in (value if isinstance(value, (list, tuple)) else [value])]
    return [str(one) for one in flat if isinstance(one, (str, Path))]
