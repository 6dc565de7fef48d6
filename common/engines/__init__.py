"""Trainers and evaluators."""

from .stage_trainer import StageTrainer

__all__ = ["StageTrainer"]
