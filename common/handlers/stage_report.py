"""What every stage or member of a method adds, in the layout of the cascade's paper."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine
from monai.data.utils import affine_to_spacing
from monai.utils import CommonKeys

from ..metrics.scores import case_scores, region_recall
from ..metrics.stages import StageTable
from ..visualize.palette import background_classes
from .cases import affine_in_mm, chosen_classes, closing_notes, entry, figures, inferer_report
from .report import EvaluationReport

__all__ = ["StageReport"]

logger = logging.getLogger(__name__)


class StageReport(EvaluationReport):
    """Writes ``stages.csv`` (a row a case, stage and organ), ``stages.json`` and ``stages.md``, and logs the table.

    The table is that of roth2017hierarchical: Dice of each stage and organ in percent, its mean, standard
    deviation, median, minimum and maximum over cases, and the average over organs. Below it stand, case by case, the
    recall of the candidate region (fig. 2: the share of the reference that stage 2 gets to see), and what the
    inferer tells of its call (``inferer.report``): the regions' shares of the volume, windows and seconds; then what
    the inferer says of these names (``inferer.legend``, sentences by part of a name).

    Args:
        output_dir: folder of the results.
        class_names: one name a class, in class order.
        classes: numbers of the classes to score; None for all.
        stages: for every stage, the key of its prediction (class indices, 1 X Y Z, on the grid of ``label``), and
            its title in the table.
        candidate: key of the candidate region, 1 X Y Z, on the same grid; None for methods without one.
        recall: name of the candidate region's recall in the tables.
        kind: what `stages` are in the tables: "stage", or "network" for the members of an ensemble.
        distances: whether HD95 and ASSD (mm) go to ``stages.csv`` and ``stages.json``, too; they take seconds.
    """

    missing = "there is no table of stages in"

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        class_names: Sequence[str],
        classes: Sequence[int] | None,
        stages: Mapping[str, str],
        candidate: str | None = "pred_candidate",
        recall: str = "candidate_recall",
        kind: str = "stage",
        distances: bool = False,
    ) -> None:
        self.classes = chosen_classes(class_names, classes)
        self.class_names = [class_names[k] for k in self.classes]
        self.stages = dict(stages)
        self.candidate, self.recall, self.kind, self.distances = candidate, recall, kind, distances
        super().__init__(output_dir)

    def _clear(self) -> None:
        self.table = StageTable(self.class_names, list(self.stages.values()), self.kind, distances=self.distances)
        super()._clear()

    def _score_case(self, engine: Engine, item: Mapping[str, Any], case: str) -> None:
        """
        Raises:
            InputError: when the postprocessing leaves no prediction of a stage, or no candidate region.
        """
        self.table.legend = dict(getattr(engine.inferer, "legend", None) or {})
        label = item[CommonKeys.LABEL]
        spacing = affine_to_spacing(affine_in_mm(label)).tolist()
        unmeasured = background_classes(self.class_names) if self.distances else self.classes
        scores = {
            title: case_scores(entry(item, key), label, spacing, without_surface=unmeasured, classes=self.classes)
            for key, title in self.stages.items()
        }
        told = figures(inferer_report(engine))
        if self.candidate is not None:
            recall = region_recall(entry(item, self.candidate), label, self.classes)
            told = {self.recall: recall, **told}
            if math.isnan(recall):
                logger.info("%s: nothing is labelled that a candidate region could hold", case)
            else:
                logger.info("%s: the candidate region holds %.2f %% of what is labelled", case, 100 * recall)
        self.table.add(case, scores, told)

    def _write(self, engine: Engine, failed: list[str]) -> None:
        text = self.table.write(self.output_dir, closing_notes(self._warning, failed), failed=failed)
        logger.info("scores by stage:\n\n%s\nwritten to %s", text, self.output_dir / "stages.md")
