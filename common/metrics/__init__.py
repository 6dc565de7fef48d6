"""Scores that need more than one call of MONAI's metrics: whole cases, tables, intervals."""

from .scores import METRICS, case_scores, region_recall
from .stages import StageTable
from .table import ScoreTable, mean_interval, summarise

__all__ = ["METRICS", "ScoreTable", "StageTable", "case_scores", "mean_interval", "region_recall", "summarise"]
