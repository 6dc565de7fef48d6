"""DICOM series in."""

from .series import Series, choose_series, find_series, series_table

__all__ = ["Series", "choose_series", "find_series", "series_table"]
