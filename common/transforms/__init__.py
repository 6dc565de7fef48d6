"""Array and dictionary transforms, MONAI's conventions."""

from .annotated import AnnotatedSlices, AnnotatedSlicesd
from .check import CheckVolume, CheckVolumed
from .deform import RandDeformedPatch, RandDeformedPatchd
from .gray import RandGrayCurve, RandGrayCurved
from .one_hot import LabelledOneHot, LabelledOneHotd
from .save import AtomicSaveImaged, CaseNames

__all__ = [
    "AnnotatedSlices",
    "AnnotatedSlicesd",
    "AtomicSaveImaged",
    "CaseNames",
    "CheckVolume",
    "CheckVolumed",
    "LabelledOneHot",
    "LabelledOneHotd",
    "RandDeformedPatch",
    "RandDeformedPatchd",
    "RandGrayCurve",
    "RandGrayCurved",
]
