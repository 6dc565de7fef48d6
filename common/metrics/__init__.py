"""Scores that need more than one call of MONAI's metrics: whole cases, tables, intervals."""

from .comparison import Comparison, paired_difference
from .lesions import Detection, LesionCounts, detection, lesion_counts
from .lits import lits_scores
from .lits_table import LitsTable
from .scores import METRICS, case_scores, region_recall
from .stages import StageTable
from .table import ScoreTable, mean_interval, summarise

__all__ = [
    "METRICS",
    "Comparison",
    "Detection",
    "LesionCounts",
    "LitsTable",
    "ScoreTable",
    "StageTable",
    "case_scores",
    "detection",
    "lesion_counts",
    "lits_scores",
    "mean_interval",
    "paired_difference",
    "region_recall",
    "summarise",
]
