"""Converters from other layouts to the Decathlon folder."""

from .hdf5 import convert_hdf5, hdf5_command

__all__ = ["convert_hdf5", "hdf5_command"]
