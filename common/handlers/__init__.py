"""Ignite handlers: weights, schedules, reports of cases and stages, pictures."""

from .case_report import CaseReport
from .key_metric import KeyMetric
from .lesion_report import LesionReport
from .prediction_report import PredictionReport
from .scored_checkpoint import ScoredCheckpointLoader
from .stage_report import StageReport
from .start_weights import StartWeights
from .two_path import TwoPathSchedule
from .vessel_report import VesselReport
from .weights_loader import WeightsLoader

__all__ = [
    "CaseReport",
    "KeyMetric",
    "LesionReport",
    "PredictionReport",
    "ScoredCheckpointLoader",
    "StageReport",
    "StartWeights",
    "TwoPathSchedule",
    "VesselReport",
    "WeightsLoader",
]
