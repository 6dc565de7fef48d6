"""Data lists, embedded phantoms, converters of public data sets."""

from .cases import inference_cases, training_cases
from .convert.hdf5 import convert_hdf5
from .labelled import labelled_classes
from .loader import CaseLoader
from .phantoms.registry import phantom_dataset
from .provenance import provenance

__all__ = [
    "CaseLoader",
    "convert_hdf5",
    "inference_cases",
    "labelled_classes",
    "phantom_dataset",
    "provenance",
    "training_cases",
]
