"""The scores of vessels of an evaluation, and what the network's runs cost."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from ..checks import InputError, problem
from ..metrics.vessel_table import VesselTable
from ..metrics.vessels import vessel_scores
from ..visualize.palette import background_classes
from .cases import chosen_classes, closing_notes, without_paths
from .cost import PeakMemory, device_name
from .report import EvaluationReport

__all__ = ["VesselReport"]

logger = logging.getLogger(__name__)

_WHAT = (
    "Seconds are those from the loaded and preprocessed batch to the network's output: the way to the device, "
    "projections where the network makes them, and the network, without reading, preprocessing, postprocessing and "
    "saving; the first case has what a device does once."
)


class VesselReport(EvaluationReport):
    """Writes ``vessels.csv`` (a row a case and class), ``vessels.json`` and ``vessels.md``, and logs the table.

    The scores are those by which angermann2019random25d reports its results, and those of courses and connections:
    see :func:`~common.metrics.vessels.vessel_scores`. Beside them stand the seconds that the network takes for a case,
    and the peak of memory in them.

    Args:
        output_dir: folder of the results.
        class_names: one name a class, in class order.
        classes: numbers of the classes to score; None for all. "background" is never scored by itself.
        probability: key of the probabilities of classes 1, 2, ..., one channel each, on the grid of ``label``, for the
            Dice loss; None leaves it out.
    """

    missing = "there is no table of vessels in"

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        class_names: Sequence[str],
        classes: Sequence[int] | None = None,
        probability: str | None = None,
    ) -> None:
        background = background_classes(class_names)
        chosen = range(len(class_names)) if classes is None else classes
        self.classes = chosen_classes(class_names, [k for k in chosen if k not in background])
        self.class_names = [class_names[k] for k in self.classes]
        self.probability = probability
        super().__init__(output_dir)

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the evaluator; its postprocessing is registered before its handlers, so it has run by then.
        """
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._end)

    def _clear(self) -> None:
        self.table = VesselTable(self.class_names)
        self._memory: PeakMemory | None = None
        self._peak: float | None = None
        self._begun = self._seconds = 0.0
        super()._clear()

    def _begin(self, engine: Engine) -> None:
        self._memory = PeakMemory(engine.state.device)
        self._begun = _now(self._memory.device)

    def _end(self, engine: Engine) -> None:
        self._seconds = _now(self._memory.device) - self._begun
        peak = self._memory.mib()
        self._peak = peak if self._peak is None or peak is None else max(self._peak, peak)

    def _score_case(self, engine: Engine, item: Mapping[str, Any], case: str) -> None:
        """
        Raises:
            InputError: when the postprocessing leaves no probability.
        """
        if self.probability is not None and self.probability not in item:
            came = f"a case has no '{self.probability}' (it has {', '.join(sorted(map(str, item)))})"
            remedy = (
                "copy them in the postprocessing (CopyItemsd) before they become labels, or set probability to None"
            )
            raise InputError(problem(came, "the Dice loss is one of probabilities", remedy))
        probability = None if self.probability is None else item[self.probability]
        scores = vessel_scores(item[CommonKeys.PRED], item[CommonKeys.LABEL], self.classes, probability)
        self.table.add(case, scores, self._seconds / len(engine.state.output))

    def _write(self, engine: Engine, failed: list[str]) -> None:
        device = torch.device(engine.state.device)
        text = self.table.write(
            self.output_dir,
            {
                "what": _WHAT,
                "device": device_name(device),
                "peak_memory_mib": self._peak,
                "memory": self._memory.kind,
            },
            closing_notes(self._warning, failed),
            weights=without_paths(getattr(engine.state, "weights", None)),
            failed=failed,
        )
        logger.info("scores of vessels:\n\n%s\nwritten to %s", text, self.output_dir / "vessels.md")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
