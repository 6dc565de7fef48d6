"""What can be watched while a stage is trained: a progress bar, TensorBoard scalars, a picture of the curves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from ignite.handlers import ProgressBar
from monai.utils import is_scalar, optional_import

from ..visualize.curves import training_curves

SummaryWriter, has_tensorboard = optional_import("torch.utils.tensorboard", name="SummaryWriter")

__all__ = ["StageRecords"]

# drawing takes longer than a short epoch
SECONDS_BETWEEN_CURVES = 30.0


class StageRecords:
    """Records of one stage, kept by the one process that writes.

    Args:
        stage: name of the stage.
        output_dir: where ``tensorboard/STAGE`` and ``curves_STAGE.png`` go.
    """

    def __init__(self, stage: str, output_dir: Path) -> None:
        self.stage, self.output_dir = stage, output_dir
        self.writer: Any = None
        self._opened = False
        self._drawn = time.monotonic()

    def open(self, trainer: Engine) -> None:
        """Begin them; once, however often the trainer is run."""
        if self._opened:
            return
        self._opened = True
        ProgressBar(desc=self.stage, persist=False, ncols=100, disable=None).attach(trainer)
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

    def _draw(self, history: Sequence[Mapping[str, float]]) -> None:
        training_curves(history, self.output_dir / f"curves_{self.stage}.png", title=self.stage)
        self._drawn = time.monotonic()
