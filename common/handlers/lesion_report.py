"""The scores of the LiTS challenge of an evaluation, and what each stage keeps of the organ."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.data.utils import affine_to_spacing
from monai.utils import CommonKeys

from ..checks import InputError, problem
from ..metrics.lits import LESION, ORGAN, lits_scores
from ..metrics.lits_table import LitsTable
from ..metrics.scores import case_scores, region_recall
from ..metrics.stages import StageTable
from .cases import affine_in_mm, closing_notes, entry, figures, inferer_report, without_paths
from .report import EvaluationReport

__all__ = ["LesionReport"]

logger = logging.getLogger(__name__)


class LesionReport(EvaluationReport):
    """Writes ``lits.csv`` (a row a case), ``lits.json`` and ``lits.md``, and logs the table.

    The scores are those by which jin2020raunet reports its results: see :func:`~common.metrics.lits.lits_scores` and
    :func:`~common.metrics.lesions.lesion_counts`. Below them stand the organ's Dice of every stage, the share of the
    organ that lies in the box to which the first stage narrows the volume, and what the inferer tells of its call
    (``inferer.report``): shares, windows and seconds.

    Labels are 1 for the organ and 2 for lesions; the organ is both, so that a lesion taken for healthy organ costs
    the organ nothing. No case is left out, however bad its score.

    Args:
        output_dir: folder of the results.
        organ: name of the organ.
        lesion: name of the lesions.
        classes: labels that the references have (:func:`~common.data.labelled.labelled_classes`); None for both.
            Lesions that are not labelled are not scored, the organ must be.
        stages: for every stage, the key of its prediction (1 X Y Z, not 0 in the organ, on the grid of ``label``), and
            its title in the table; None for ``pred`` alone.
        box: key of the box, 1 X Y Z, not 0 inside, on the same grid; None for methods without one.
    """

    missing = "there is no table of LiTS scores in"

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        organ: str = "liver",
        lesion: str = "tumour",
        classes: Sequence[int] | None = None,
        stages: Mapping[str, str] | None = None,
        box: str | None = None,
    ) -> None:
        if classes is not None and ORGAN not in classes:
            raise InputError(
                problem(
                    f"the {organ} (label {ORGAN}) is not among the labelled classes, {list(classes)}",
                    f"the report scores the {organ}, and lesions as a share of it",
                    "name another data set, or take the report out of the evaluator's handlers",
                )
            )
        self.organ, self.lesion = organ, lesion if classes is None or LESION in classes else None
        self.stages = {str(CommonKeys.PRED): "prediction"} if stages is None else dict(stages)
        self.box = box
        super().__init__(output_dir)

    def _clear(self) -> None:
        self.table = LitsTable(self.organ, self.lesion)
        self.stage_table = StageTable([self.organ], list(self.stages.values()))
        super()._clear()

    def _score_case(self, engine: Engine, item: Mapping[str, Any], case: str) -> None:
        """
        Raises:
            InputError: when the postprocessing leaves no prediction of a stage, or no box.
        """
        self.stage_table.legend = dict(getattr(engine.inferer, "legend", None) or {})
        label = item[CommonKeys.LABEL]
        spacing = affine_to_spacing(affine_in_mm(label)).tolist()
        scores = lits_scores(entry(item, CommonKeys.PRED), label, spacing, self.lesion is not None)
        reference = _organ(label)
        by_stage = {
            title: case_scores(_organ(entry(item, key)), reference, spacing, without_surface=[1], classes=[1])
            for key, title in self.stages.items()
        }
        told = figures(inferer_report(engine))
        if self.box is not None:
            recall = region_recall(entry(item, self.box), reference, [1])
            told = {"box_recall": recall, **told}
            if math.isfinite(recall):
                logger.info("%s: the box holds %.2f %% of the %s", case, 100 * recall, self.organ)
        self.stage_table.add(case, by_stage, told)
        self.table.add(case, scores, {**{f"dice {title}": row[0]["dice"] for title, row in by_stage.items()}, **told})

    def _write(self, engine: Engine, failed: list[str]) -> None:
        text = self.table.write(
            self.output_dir,
            [self.stage_table.markdown()],
            closing_notes(self._warning, failed),
            stages={"dice_percent": self.stage_table.statistics(), "rules": self.stage_table.rules},
            weights=without_paths(getattr(engine.state, "weights", None)),
            failed=failed,
        )
        logger.info("LiTS scores:\n\n%s\nwritten to %s", text, self.output_dir / "lits.md")


def _organ(volume: torch.Tensor) -> torch.Tensor:
    """Label 1 for the organ with its lesions, uint8, of the volume's shape."""
    return (torch.as_tensor(volume).as_subclass(torch.Tensor) >= ORGAN).to(torch.uint8)
