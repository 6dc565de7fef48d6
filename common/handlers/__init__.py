"""Ignite handlers: weights, per-case reports, pictures."""

from .case_report import CaseReport
from .prediction_report import PredictionReport
from .weights_loader import WeightsLoader

__all__ = ["CaseReport", "PredictionReport", "WeightsLoader"]
