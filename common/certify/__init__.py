"""Proof that packed bundles work where the repository is not: in clean environments, by the tools that read them."""

from .steps import ENVIRONMENTS, STEPS, Environment, Step

__all__ = ["ENVIRONMENTS", "STEPS", "Environment", "Step"]
