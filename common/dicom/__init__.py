"""DICOM series in: unpacked, found, chosen, read as volumes, staged as NIfTI; labels out, as DICOM SEG."""

from .archive import unpacked
from .segmentation import Algorithm, check_segments, write_segmentation
from .series import Series, choose_series, find_series, series_table
from .volume import SeriesVolume, read_series, stage_series

__all__ = [
    "Algorithm",
    "Series",
    "SeriesVolume",
    "check_segments",
    "choose_series",
    "find_series",
    "read_series",
    "series_table",
    "stage_series",
    "unpacked",
    "write_segmentation",
]
