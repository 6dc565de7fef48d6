"""Scores that need more than one call of MONAI's metrics: whole cases, tables, intervals."""

from .comparison import Comparison, paired_difference
from .scores import METRICS, case_scores, region_recall
from .stages import StageTable
from .table import ScoreTable, mean_interval, summarise

__all__ = [
    "METRICS",
    "Comparison",
    "ScoreTable",
    "StageTable",
    "case_scores",
    "mean_interval",
    "paired_difference",
    "region_recall",
    "summarise",
]
