"""Scores that need more than one call of MONAI's metrics: whole cases, tables, intervals."""

from .comparison import Comparison, paired_difference
from .lesions import Detection, LesionCounts, detection, lesion_counts
from .lits import lits_scores
from .lits_table import LitsTable
from .scores import METRICS, case_scores, region_recall
from .stages import StageTable
from .table import ScoreTable, mean_interval, summarise
from .uncertainty import uncertainty_scores, uncertainty_text
from .vessel_table import VesselTable
from .vessels import VESSEL_METRICS, soft_dice_loss, vessel_scores

__all__ = [
    "METRICS",
    "VESSEL_METRICS",
    "Comparison",
    "Detection",
    "LesionCounts",
    "LitsTable",
    "ScoreTable",
    "StageTable",
    "VesselTable",
    "case_scores",
    "detection",
    "lesion_counts",
    "lits_scores",
    "mean_interval",
    "paired_difference",
    "region_recall",
    "soft_dice_loss",
    "summarise",
    "uncertainty_scores",
    "uncertainty_text",
    "vessel_scores",
]
