"""What can be watched while a stage is trained: a progress bar, TensorBoard scalars, a picture of the curves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.utils import is_scalar, optional_import
from tqdm import tqdm

from ..visualize.curves import training_curves

SummaryWriter, has_tensorboard = optional_import("torch.utils.tensorboard", name="SummaryWriter")

__all__ = ["StageRecords"]

# drawing takes longer than a short epoch
SECONDS_BETWEEN_CURVES = 30.0
_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"


class StageRecords:
    """Records of one stage, kept by the one process that writes.

    The bar, on a terminal only, runs once over all epochs, validations included, so that the time it tells is that of
    the stage. ignite's ``ProgressBar`` counts the iterations of each epoch anew, or epochs alone.

    Args:
        stage: name of the stage.
        output_dir: where ``tensorboard/STAGE`` and ``curves_STAGE.png`` go.
        may_end_early: whether the stage may end before its last epoch, so that the time left is told as the most.
    """

    def __init__(self, stage: str, output_dir: Path, may_end_early: bool = False) -> None:
        self.stage, self.output_dir = stage, output_dir
        self.writer: Any = None
        self._most = "at most " if may_end_early else ""
        self._opened = False
        self._drawn = time.monotonic()
        self._bar: tqdm | None = None
        self._begun, self._before = time.monotonic(), 0

    def open(self, trainer: Engine) -> None:
        """Begin them; once, however often the trainer is run."""
        if self._opened:
            return
        self._opened = True
        trainer.add_event_handler(Events.STARTED, self._start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        trainer.add_event_handler(Events.COMPLETED, self._close)
        if has_tensorboard:
            self.writer = SummaryWriter(str(self.output_dir / "tensorboard" / self.stage))

    def add(self, history: Sequence[Mapping[str, float]], metrics: Mapping[str, Any]) -> None:
        """Note the last epoch of the history, and all metrics of its validation."""
        row = history[-1]
        if self.writer is not None:
            scalars = {**{f"train_{name}": row[name] for name in ("loss", "learning_rate")}, **metrics}
            for name, value in scalars.items():
                if is_scalar(value):
                    self.writer.add_scalar(name, value, row["epoch"])
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_CURVES:
            self._draw(history)

    def end(self, history: Sequence[Mapping[str, float]]) -> None:
        """Draw the curves of the whole stage and leave nothing unwritten."""
        self._draw(history)
        if self.writer is not None:
            self.writer.flush()

    def time_left(self, trainer: Engine) -> str:
        """How long the epochs to come will take, if they take what those of this run took: "at most 4 min left"."""
        done = trainer.state.iteration - self._before
        to_do = _iterations(trainer) - trainer.state.iteration
        seconds = (time.monotonic() - self._begun) * to_do / max(done, 1)
        told = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        told = told if seconds < 6000 else f"{seconds / 3600:.1f} h"
        return f"{self._most}{told} left"

    def _start(self, trainer: Engine) -> None:
        self._close()  # of a run that an error ended
        self._begun, self._before = time.monotonic(), trainer.state.iteration
        # smoothing 0: the mean over all iterations, in which each validation has its share
        self._bar = tqdm(
            total=_iterations(trainer),
            initial=self._before,
            desc=self.stage,
            bar_format=_FORMAT.replace("{remaining}", self._most + "{remaining}"),
            smoothing=0,
            leave=False,
            ncols=100,
            disable=None,
        )

    def _advance(self, trainer: Engine) -> None:
        if self._bar is not None:
            # before the update, which decides whether it is time to draw
            self._bar.set_postfix_str(f"epoch {trainer.state.epoch} of {trainer.state.max_epochs}", refresh=False)
            self._bar.update()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, history: Sequence[Mapping[str, float]]) -> None:
        training_curves(history, self.output_dir / f"curves_{self.stage}.png", title=self.stage)
        self._drawn = time.monotonic()


def _iterations(trainer: Engine) -> int:
    return int(trainer.state.max_epochs or 0) * int(trainer.state.epoch_length or 0)
