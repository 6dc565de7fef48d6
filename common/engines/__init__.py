"""Trainers and evaluators."""

from .case_evaluator import CaseEvaluator, CasesFailed
from .stage_trainer import StageTrainer

__all__ = ["CaseEvaluator", "CasesFailed", "StageTrainer"]
