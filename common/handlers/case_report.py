"""Scores of every case of an evaluation, as tables and pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import affine_to_spacing
from monai.utils import CommonKeys

from ..files import check_writable
from ..metrics.scores import METRICS, case_scores
from ..metrics.table import ScoreTable
from ..visualize.palette import background_classes
from ..visualize.prediction import check_view, has_matplotlib, prediction_figure
from .cases import (
    affine_in_mm,
    chosen_classes,
    class_indices,
    entry,
    figures_text,
    image_on_grid,
    inferer_report,
    without_paths,
    write_failures,
)
from .report import EvaluationReport

__all__ = ["CaseReport"]

logger = logging.getLogger(__name__)

_KEY = "val_mean_{}"  # as the key metrics of the trainings are named


class CaseReport(EvaluationReport):
    """Writes ``metrics.csv`` (a row a case and class), ``metrics.json`` (means and intervals too) and a picture a case.

    Under :class:`~common.engines.case_evaluator.CaseEvaluator` cases that failed are told in ``failures.json`` and
    named in ``metrics.json``; scores are those of the others.

    Prediction and reference are one-hot, by :class:`~common.transforms.one_hot.LabelledOneHotd` in the evaluator's
    postprocessing where some voxels are unlabelled, or class indices on one grid. Where the inferer tells of its last
    call (``inferer.report``), its numbers are logged and all that it tells is in ``metrics.json``. The means over cases
    and classes are among ``engine.state.metrics`` too (``val_mean_dice``, ``val_mean_iou``, ...), where federated
    learning and trackers look for them. MONAI's ``MetricsSaver`` writes what single metrics keep; it knows neither the
    spacing of each case nor intervals, nor is its writing atomic.

    Args:
        output_dir: folder of the results.
        class_names: one name a class, in class order; no surface is measured for "background".
        classes: numbers of the classes that have a row and are in the mean over classes; None for all. Leave out the
            background where it is only what the organs leave over, and classes that the references lack
            (:func:`~common.data.labelled.labelled_classes`).
        nsd_tolerance: tolerance of NSD in mm; about two voxels is usual, 1 mm would pass anything under a microscope.
        picture: whether to draw pictures (needs matplotlib).
        candidate: key of the candidate region, to be drawn dashed, on the grid of the label; None for none.
        view: what pictures show: "slices" and a surface, or "mip" for vessels and other thin structures: maximum
            projections with the errors over them.

    Raises:
        InputError: when there is no such view, or no such class.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        class_names: Sequence[str],
        classes: Sequence[int] | None = None,
        nsd_tolerance: float = 1.0,
        picture: bool = True,
        candidate: str | None = None,
        view: str = "slices",
    ) -> None:
        self.class_names = list(class_names)
        self.classes = chosen_classes(class_names, classes)
        self.nsd_tolerance = nsd_tolerance
        self.picture, self.candidate = picture, candidate
        self.view = check_view(view)
        super().__init__(output_dir)

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: as of the parent.
        """
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)

    def _start(self, engine: Engine) -> None:
        """
        Raises:
            InputError: when the folder can not be written to.
        """
        check_writable(self.output_dir)  # before every case is predicted in vain
        for metric in METRICS:
            engine.state.metrics.pop(_KEY.format(metric), None)  # of an earlier run
        super()._start(engine)

    def _tell(self, engine: Engine) -> None:
        engine.state.metrics |= {_KEY.format(metric): mean for metric, mean in self.table.means().items()}

    def _clear(self) -> None:
        self.table = ScoreTable([self.class_names[k] for k in self.classes], self.nsd_tolerance)
        self._inferer: dict[str, Any] = {}
        super()._clear()

    def _score_case(self, engine: Engine, item: Mapping[str, Any], case: str) -> None:
        pred, label = item[CommonKeys.PRED], item[CommonKeys.LABEL]
        affine = affine_in_mm(label)
        scores = case_scores(
            pred,
            label,
            affine_to_spacing(affine).tolist(),
            self.nsd_tolerance,
            background_classes(self.class_names),
            self.classes,
        )
        if self.picture:
            self._draw(item, case, affine, getattr(engine.state, "warning", None))
        # last: a case whose picture fails is a failed one, and must not be in the table as well
        self.table.add(case, scores, dense=label.shape[0] == 1 or bool(torch.as_tensor(label).any(dim=0).all()))
        if told := inferer_report(engine):
            self._inferer[case] = told
            logger.info("%s: %s", case, figures_text(told))

    def _draw(self, item: Mapping[str, Any], case: str, affine: torch.Tensor, warning: str | None) -> None:
        if not has_matplotlib:
            logger.warning(
                "matplotlib is not installed: there will be no pictures. Install it with: pip install matplotlib"
            )
            self.picture = False
            return
        # the scored prediction is empty where nothing is labelled; the picture is of the whole one
        pred, label = item.get(f"{CommonKeys.PRED}_indices", item[CommonKeys.PRED]), item[CommonKeys.LABEL]
        image = image_on_grid(item, label)
        if image is None:
            return
        prediction_figure(
            image,
            class_indices(pred),
            self.output_dir / f"{case}_evaluation.png",
            label=class_indices(label),
            affine=affine,
            class_names=self.class_names,
            title=case,
            warning=warning,
            region=None if self.candidate is None else entry(item, self.candidate),
            view=self.view,
        )

    def _complete(self, engine: Engine) -> None:
        write_failures(self.output_dir, list(getattr(engine, "failures", ())))
        super()._complete(engine)

    def _write(self, engine: Engine, failed: list[str]) -> None:
        self.table.write(
            self.output_dir / "metrics.csv",
            self.output_dir / "metrics.json",
            weights=without_paths(getattr(engine.state, "weights", None)),
            warning=self._warning,
            failed=failed,
            **({"inferer": self._inferer} if self._inferer else {}),
        )
        logger.info("scores, with 95 %% intervals of the mean:\n%s\nwritten to %s", self.table, self.output_dir)
