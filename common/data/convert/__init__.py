"""Converters from other layouts to the Decathlon folder."""

from .amos import amos_command, convert_amos
from .btcv import btcv_command, convert_btcv
from .costa import convert_costa, costa_command
from .hdf5 import convert_hdf5, hdf5_command
from .ircadb import convert_ircadb, ircadb_command
from .ixi import convert_ixi, ixi_command
from .topcow import convert_topcow, topcow_command
from .totalsegmentator import convert_totalsegmentator, totalsegmentator_command

__all__ = [
    "amos_command",
    "btcv_command",
    "convert_amos",
    "convert_btcv",
    "convert_costa",
    "convert_hdf5",
    "convert_ircadb",
    "convert_ixi",
    "convert_topcow",
    "convert_totalsegmentator",
    "costa_command",
    "hdf5_command",
    "ircadb_command",
    "ixi_command",
    "topcow_command",
    "totalsegmentator_command",
]
