"""What reports of an evaluation have in common."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from ..transforms.save import CaseNames
from .cases import image_source

__all__ = ["EvaluationReport"]

logger = logging.getLogger(__name__)


class EvaluationReport:
    """A handler that scores the cases of an evaluation one by one and writes files at its end; every run anew.

    A report says how it begins (`_clear`), how it scores a case (`_score_case`) and what it writes (`_write`).

    Args:
        output_dir: folder of the files.
    """

    missing = "nothing is written to"  # the folder: what the log says when no case was scored

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = Path(output_dir)
        self._clear()

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the evaluator; its postprocessing is registered before its handlers, so it has run by then.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._complete)

    def _start(self, engine: Engine) -> None:
        self._clear()

    def _clear(self) -> None:
        """Forget what an earlier run has scored."""
        self._names = CaseNames()
        self._scored = 0
        self._warning: str | None = None

    def _score(self, engine: Engine) -> None:
        self._warning = self._warning or getattr(engine.state, "warning", None)
        for item in engine.state.output:
            source = image_source(item)
            self._score_case(engine, item, self._names(source) if source else f"case_{self._scored + 1}")
            self._scored += 1  # a case that fails is none

    def _score_case(self, engine: Engine, item: Mapping[str, Any], case: str) -> None:
        """Score a case.

        Args:
            engine: the evaluator.
            item: one decollated case, postprocessed.
            case: its name in the files; no other case has it.
        """
        raise NotImplementedError

    def _complete(self, engine: Engine) -> None:
        if not self._scored:
            logger.warning("no case was scored: %s %s", self.missing, self.output_dir)
            return
        self._write(engine, [failure["case"] for failure in getattr(engine, "failures", ())])

    def _write(self, engine: Engine, failed: list[str]) -> None:
        """Write the files.

        Args:
            engine: the evaluator.
            failed: file names of the cases that failed.
        """
        raise NotImplementedError
