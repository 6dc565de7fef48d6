"""The embedded data sets: physical phantoms, made once and kept."""

from .registry import PHANTOMS, cache_folder, phantom_dataset

__all__ = ["PHANTOMS", "cache_folder", "phantom_dataset"]
