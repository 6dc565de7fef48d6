"""Inferers that run a whole method on a whole volume."""

from .voting import VotingInferer

__all__ = ["VotingInferer"]
