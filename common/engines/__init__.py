"""Trainers and evaluators."""
