"""An evaluator in which one bad case does not end the batch."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from ..checks import InputError, WeightsError, problem
from ..data.loader import innermost_text
from ..handlers.cases import image_source

__all__ = ["CaseEvaluator", "CasesFailed"]

logger = logging.getLogger(__name__)


class CasesFailed(InputError):
    """Some or all cases of a run failed; the text says how many of how many, and why."""


class CaseEvaluator(SupervisedEvaluator):
    """``SupervisedEvaluator`` that notes a failing case, goes on with the next, and raises at the end.

    What goes wrong between network and saving is caught here; what goes wrong in loading is noted by
    :class:`~common.data.loader.CaseLoader` (any other loader ends the run, as in MONAI). A failed case fires no
    ``ITERATION_COMPLETED``, and a run without a good case no ``EPOCH_COMPLETED``, so metrics and other handlers see
    whole cases only. KeyboardInterrupt ends the run at once.

    Args:
        args: as ``monai.engines.SupervisedEvaluator``.
        kwargs: as ``monai.engines.SupervisedEvaluator``.
    """

    @functools.wraps(SupervisedEvaluator.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._failed: list[dict[str, str]] = []
        self._broken = False
        super().__init__(*args, **kwargs)

    @property
    def failures(self) -> list[dict[str, str]]:
        """One ``{"case": file name, "error": text}`` for each case of this run that failed, loading included."""
        return [*getattr(self.data_loader, "failures", ()), *self._failed]

    def run(self, global_epoch: int = 1) -> None:
        """Run all cases.

        Raises:
            CasesFailed: at the end, when a case failed.
            InputError: when there was no case at all.
        """
        self._failed = []
        if not isinstance(self.data_loader, Sized):
            # what an earlier run counted; ignite would start the loader over to reach it
            self.state.epoch_length = None
        super().run(global_epoch)
        failures, total = self.failures, self._total()
        if failures:
            told = "; ".join(f"{failure['case']}: {failure['error']}" for failure in failures[:5])
            more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
            raise CasesFailed(
                problem(
                    f"{len(failures)} of {total} cases failed ({told}{more})",
                    "every case must be read, predicted and saved",
                    "mend or leave out these cases and run them again; results of the others are in place",
                )
            )
        if not total:
            raise InputError(
                problem(
                    "there is no case to work on",
                    "at least one image is needed",
                    "check dataset_dir or the list of files",
                )
            )

    def _total(self) -> int:
        counted = self.state.iteration + len(getattr(self.data_loader, "failures", ()))
        return int(getattr(self.data_loader, "total", counted))

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, torch.Tensor]) -> Any:
        case = Path(image_source(batchdata)).name or f"case {engine.state.iteration}"
        self._broken = False
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:  # any fault of one case, of whatever library, must leave the others alone
            self._broken = True
            text = _told(error)
            self._failed.append({"case": case, "error": text})
            logger.error("%s failed: %s", case, text)
            logger.debug("where %s failed", case, exc_info=True)
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
        engine.state.batch = []
        if out_of_memory:
            # out here, where no traceback holds the tensors any more
            torch.cuda.empty_cache()
        return []

    def _fire_event(self, event_name: Any, *event_args: Any, **event_kwargs: Any) -> None:
        if event_name == Events.ITERATION_COMPLETED and self._broken:
            return
        if event_name == Events.EPOCH_COMPLETED and self.state.iteration == len(self._failed):
            return  # metrics of no case are errors of their own
        super()._fire_event(event_name, *event_args, **event_kwargs)


def _told(error: BaseException) -> str:
    """The text of the error of ours in the chain, which says what to do; else that of the first cause."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    ours = next((str(one) for one in chain if isinstance(one, (InputError, WeightsError))), None)
    return ours or innermost_text(error)
