"""Ignite handlers: weights, per-case reports, pictures."""
