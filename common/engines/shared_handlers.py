"""Handlers of one stage that others take over: callers add theirs to the last stage and mean every one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from monai.handlers import LrScheduleHandler, ValidationHandler

__all__ = ["handlers_for_stage"]


def handlers_for_stage(shared: Sequence[Any], own: Sequence[Any], stage: str) -> list[Any]:
    """Copies of the shared handlers that the stage lacks, so named that its records stand apart."""
    copies = []
    # a validator and a schedule belong to the stage that they were made for
    lacking = (
        {type(handler) for handler in shared}
        - {type(handler) for handler in own}
        - {ValidationHandler, LrScheduleHandler}
    )
    for handler in shared:
        if type(handler) not in lacking:
            continue
        clone = copy.copy(handler)
        if isinstance(getattr(clone, "tag_name", None), str):
            clone.tag_name = f"{stage}_{clone.tag_name}"
        if hasattr(clone, "run_name"):
            clone.run_name = f"{clone.run_name}_{stage}" if clone.run_name else stage
        copies.append(clone)
    return copies
