"""Inferers that run a whole method on a whole volume."""
