"""The scores of the LiTS challenge of an evaluation, and what each stage keeps of the organ."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.data.utils import affine_to_spacing
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from ..checks import InputError, problem
from ..metrics.lits import LESION, ORGAN, lits_scores
from ..metrics.lits_table import LitsTable
from ..metrics.scores import case_scores, region_recall
from ..metrics.stages import StageTable
from ..transforms.save import CaseNames
from .cases import affine_in_mm, closing_notes, entry, figures, image_source, inferer_report, without_paths

__all__ = ["LesionReport"]

logger = logging.getLogger(__name__)


class LesionReport:
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
        self.output_dir = Path(output_dir)
        self.organ, self.lesion = organ, lesion if classes is None or LESION in classes else None
        self.stages = {str(CommonKeys.PRED): "prediction"} if stages is None else dict(stages)
        self.box = box
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
        self.table = LitsTable(self.organ, self.lesion)
        self.stage_table = StageTable([self.organ], list(self.stages.values()))
        self._names = CaseNames()
        self._warning: str | None = None

    def _score(self, engine: Engine) -> None:
        """
        Raises:
            InputError: when the postprocessing leaves no prediction of a stage, or no box.
        """
        self._warning = self._warning or getattr(engine.state, "warning", None)
        self.stage_table.legend = dict(getattr(engine.inferer, "legend", None) or {})
        for item in engine.state.output:
            label = item[CommonKeys.LABEL]
            source = image_source(item)
            case = self._names(source) if source else f"case_{len(self.table.cases) + 1}"
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
            self.table.add(
                case, scores, {**{f"dice {title}": row[0]["dice"] for title, row in by_stage.items()}, **told}
            )

    def _complete(self, engine: Engine) -> None:
        if not self.table.cases:
            logger.warning("no case was scored: there is no table of LiTS scores in %s", self.output_dir)
            return
        failed = [failure["case"] for failure in getattr(engine, "failures", ())]
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
