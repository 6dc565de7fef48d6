"""Data lists, embedded phantoms, converters of public data sets."""

from .annotation import read_annotation
from .cases import inference_cases, training_cases
from .check_cases import check_cases
from .convert.amos import convert_amos
from .convert.btcv import convert_btcv
from .convert.costa import convert_costa
from .convert.hdf5 import convert_hdf5
from .convert.ircadb import convert_ircadb
from .convert.ixi import convert_ixi
from .convert.topcow import convert_topcow
from .convert.totalsegmentator import convert_totalsegmentator
from .deferred import DeferredCacheDataset
from .labelled import labelled_classes
from .loader import CaseLoader
from .phantoms.registry import phantom_dataset
from .provenance import provenance
from .volume_file import read_volume, write_like

__all__ = [
    "CaseLoader",
    "DeferredCacheDataset",
    "check_cases",
    "convert_amos",
    "convert_btcv",
    "convert_costa",
    "convert_hdf5",
    "convert_ircadb",
    "convert_ixi",
    "convert_topcow",
    "convert_totalsegmentator",
    "inference_cases",
    "labelled_classes",
    "phantom_dataset",
    "provenance",
    "read_annotation",
    "read_volume",
    "training_cases",
    "write_like",
]
