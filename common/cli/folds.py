"""The folds of a comparison: which parts of the cases, or of their annotated slices, its runs hold out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import InputError, problem
from ..data.arguments import parse_optional_integer
from .runs import Runs, Variant

__all__ = ["FoldRuns"]


class FoldRuns(Runs):
    """Runs that each hold out another fold.

    Folds are parts of the cases (``fold`` of ``folds``). Where neither the configs nor the caller say how many, and the
    configs hold out annotated slices, they are parts of these (``slice_fold`` of ``slice_folds``).

    Run number n holds out fold ``n % folds``; from ``n = folds`` on, of a split and a training with the next seed.
    (Slices are split without a seed: there only the training differs.)

    Args:
        bundle, out, data, overlays, given, jobs: see :class:`~common.cli.runs.Runs`.
        folds: number of parts that the cases are split into; None takes the configs'.

    Raises:
        InputError: when no number of folds is known.
    """

    def __init__(
        self,
        bundle: Path,
        out: str | os.PathLike[str],
        data: str | os.PathLike[str] | None = None,
        folds: int | None = None,
        overlays: Sequence[str] = (),
        given: Mapping[str, Any] | None = None,
        jobs: int = 1,
    ) -> None:
        super().__init__(bundle, out, data, overlays, given, jobs)
        self.folds = self.planned.get("folds") if folds is None else folds
        self.of_slices = self.folds is None and self.planned.get("slice_folds") is not None
        if self.of_slices:
            self.folds = parse_optional_integer(self.planned["slice_folds"], "slice_folds")
            self.given.pop("slice_folds", None)
        if not isinstance(self.folds, int) or self.folds < 2:
            rule = "a comparison needs two folds or more"
            raise InputError(problem(f"folds is {self.folds}", rule, "pass for example --folds 4"))
        self._own |= {"fold", "folds", *(("slice_fold", "slice_folds") if self.of_slices else ())}
        self._plan = {"folds": self.folds, **({"of": "slices"} if self.of_slices else {})}

    def variant(self, number: int) -> Variant:
        """What run `number` of every recipe holds out."""
        fold, seed = number % self.folds, self.seed(number)
        settings: dict[str, Any] = {"seed": seed} if number >= self.folds else {}
        if self.of_slices:
            settings |= {"folds": None, "slice_fold": fold, "slice_folds": self.folds}
        else:
            settings |= {"fold": fold, "folds": self.folds}
        folder = f"fold{fold}" + (f"_seed{seed}" if number >= self.folds else "")
        return Variant(folder.replace("_", ", "), settings, folder)

    def seed(self, number: int) -> int:
        """The seed of a run's split and training."""
        return int(self.planned.get("seed", 0)) + number // self.folds
