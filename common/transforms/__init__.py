"""Array and dictionary transforms, MONAI's conventions."""

from .annotated import AnnotatedSlices, AnnotatedSlicesd
from .deform import RandDeformedPatch, RandDeformedPatchd
from .gray import RandGrayCurve, RandGrayCurved
from .one_hot import LabelledOneHot, LabelledOneHotd
from .save import AtomicSaveImaged, CaseNames

__all__ = [
    "AnnotatedSlices",
    "AnnotatedSlicesd",
    "AtomicSaveImaged",
    "CaseNames",
    "LabelledOneHot",
    "LabelledOneHotd",
    "RandDeformedPatch",
    "RandDeformedPatchd",
    "RandGrayCurve",
    "RandGrayCurved",
]
