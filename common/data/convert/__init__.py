"""Converters from other layouts to the Decathlon folder."""

from .amos import amos_command, convert_amos
from .btcv import btcv_command, convert_btcv
from .hdf5 import convert_hdf5, hdf5_command
from .ircadb import convert_ircadb, ircadb_command
from .totalsegmentator import convert_totalsegmentator, totalsegmentator_command

__all__ = [
    "amos_command",
    "btcv_command",
    "convert_amos",
    "convert_btcv",
    "convert_hdf5",
    "convert_ircadb",
    "convert_totalsegmentator",
    "hdf5_command",
    "ircadb_command",
    "totalsegmentator_command",
]
