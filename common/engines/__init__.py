"""Trainers, evaluators and what runs between stages."""

from .case_evaluator import CaseEvaluator, CasesFailed
from .member_trainer import MemberTrainer
from .region_maps import RegionMaps
from .round_trainer import RoundTrainer
from .stage_trainer import StageTrainer

__all__ = ["CaseEvaluator", "CasesFailed", "MemberTrainer", "RegionMaps", "RoundTrainer", "StageTrainer"]
