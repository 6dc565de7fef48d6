"""One look at every case of a data set, before hours are spent on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.utils import optional_import

from ..checks import InputError, problem
from .loader import innermost_text

tqdm, _ = optional_import("tqdm", name="tqdm")

__all__ = ["check_cases"]


def check_cases(dataset: Sequence[Any], what: str = "held-out") -> None:
    """Load every case through its preprocessing, and name all that can not be used.

    A training reads its held-out cases at the first validation only, which may be hours after it began.

    Args:
        dataset: cases; asking for one runs its transforms.
        what: what the error calls them.

    Raises:
        InputError: naming the cases and their faults.
    """
    faults = []
    for index in tqdm(range(len(dataset)), desc=f"checking {what} cases", unit="case", leave=False, disable=None):
        try:
            dataset[index]
        except Exception as error:  # whatever the fault is, the other cases are looked at too
            faults.append(innermost_text(error))
    if faults:
        told = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise InputError(
            problem(
                f"{len(faults)} of {len(dataset)} {what} cases can not be used ({told})",
                "every case of the list must be readable and right",
                "mend these cases, or take them out of dataset.json",
            )
        )
