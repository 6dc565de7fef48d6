"""Array and dictionary transforms, MONAI's conventions."""

from .annotated import AnnotatedSlices, AnnotatedSlicesd
from .check import CheckVolume, CheckVolumed
from .deform import RandDeformedPatch, RandDeformedPatchd
from .gray import RandGrayCurve, RandGrayCurved
from .one_hot import LabelledOneHot, LabelledOneHotd
from .save import AtomicSaveImaged, CaseNames
from .spacing import KeySpacingd

__all__ = [
    "AnnotatedSlices",
    "AnnotatedSlicesd",
    "AtomicSaveImaged",
    "CaseNames",
    "CheckVolume",
    "CheckVolumed",
    "KeySpacingd",
    "LabelledOneHot",
    "LabelledOneHotd",
    "RandDeformedPatch",
    "RandDeformedPatchd",
    "RandGrayCurve",
    "RandGrayCurved",
]
