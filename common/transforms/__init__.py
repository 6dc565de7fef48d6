"""Array and dictionary transforms, MONAI's conventions."""

from .annotated import AnnotatedSlices, AnnotatedSlicesd
from .body import BodyMask, BodyMaskd
from .check import CheckVolume, CheckVolumed
from .class_weights import ClassWeights, ClassWeightsd, VoxelWeights, VoxelWeightsd
from .contour import AppendContour, AppendContourd
from .deform import RandDeformedPatch, RandDeformedPatchd
from .gray import RandGrayCurve, RandGrayCurved
from .hounsfield import CheckHounsfield, CheckHounsfieldd, HounsfieldWindow, HounsfieldWindowd
from .one_hot import LabelledOneHot, LabelledOneHotd
from .region import LoadRegion, LoadRegiond, region_path
from .region_label import RestrictLabel, RestrictLabeld
from .save import AtomicSaveImaged, CaseNames
from .spacing import KeySpacingd
from .standardise import StandardiseBody, StandardiseBodyd
from .subsample import Subsample, Subsampled

__all__ = [
    "AnnotatedSlices",
    "AnnotatedSlicesd",
    "AppendContour",
    "AppendContourd",
    "AtomicSaveImaged",
    "BodyMask",
    "BodyMaskd",
    "CaseNames",
    "CheckHounsfield",
    "CheckHounsfieldd",
    "CheckVolume",
    "CheckVolumed",
    "ClassWeights",
    "ClassWeightsd",
    "HounsfieldWindow",
    "HounsfieldWindowd",
    "KeySpacingd",
    "LabelledOneHot",
    "LabelledOneHotd",
    "LoadRegion",
    "LoadRegiond",
    "RandDeformedPatch",
    "RandDeformedPatchd",
    "RandGrayCurve",
    "RandGrayCurved",
    "RestrictLabel",
    "RestrictLabeld",
    "StandardiseBody",
    "StandardiseBodyd",
    "Subsample",
    "Subsampled",
    "VoxelWeights",
    "VoxelWeightsd",
    "region_path",
]
