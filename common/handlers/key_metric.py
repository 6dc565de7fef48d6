"""The score of a validation, for a learning rate that waits for it."""

from __future__ import annotations

import math

from ignite.engine import Engine

__all__ = ["KeyMetric"]


class KeyMetric:
    """The last key metric of an evaluator, as ``step_transform`` of a ``LrScheduleHandler`` (``ReduceLROnPlateau``).

    Between validations it stays what it was, which a plateau counts as no improvement, and so it counts the -inf before
    the first: patience is in epochs, whatever the interval, and a run that was killed resumes to the same rates.

    Args:
        evaluator: the validator of the stage.

    >>> KeyMetric(Engine(print))(None)
    -inf
    """

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator = evaluator

    def __call__(self, engine: Engine) -> float:
        """The metric, whatever `engine` is; -inf before the first validation and for what is not a number."""
        state = self.evaluator.state
        value = float(state.metrics.get(getattr(state, "key_metric_name", None), -math.inf))
        return -math.inf if math.isnan(value) else value
