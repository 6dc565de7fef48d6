"""Array and dictionary transforms, MONAI's conventions."""

from .annotated import AnnotatedSlices, AnnotatedSlicesd
from .body import BodyMask, BodyMaskd
from .check import CheckVolume, CheckVolumed
from .check_slices import CheckSlices, CheckSlicesd
from .class_weights import ClassWeights, ClassWeightsd, VoxelWeights, VoxelWeightsd
from .contour import AppendContour, AppendContourd
from .crop_to_label import CropToLabel, CropToLabeld
from .deform import RandDeformedPatch, RandDeformedPatchd
from .foreground import ForegroundChannels, ForegroundChannelsd, ForegroundLabel, ForegroundLabeld
from .gray import RandGrayCurve, RandGrayCurved
from .hounsfield import CheckHounsfield, CheckHounsfieldd, HounsfieldWindow, HounsfieldWindowd
from .lesion_patch import RandLesionPatch, RandLesionPatchd
from .one_hot import LabelledOneHot, LabelledOneHotd
from .project import ProjectVolume, ProjectVolumed
from .region import LoadRegion, LoadRegiond, region_path
from .region_label import RestrictLabel, RestrictLabeld
from .resize import ResizeSlices, ResizeSlicesd
from .save import AtomicSaveImaged, CaseNames
from .slab import RandSlab, RandSlabd
from .spacing import KeySpacingd
from .standardise import StandardiseBody, StandardiseBodyd
from .submission import SubmissionSaveImaged
from .subsample import Subsample, Subsampled
from .uncertainty import Uncertainty, Uncertaintyd

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
    "CheckSlices",
    "CheckSlicesd",
    "CheckVolume",
    "CheckVolumed",
    "ClassWeights",
    "ClassWeightsd",
    "CropToLabel",
    "CropToLabeld",
    "ForegroundChannels",
    "ForegroundChannelsd",
    "ForegroundLabel",
    "ForegroundLabeld",
    "HounsfieldWindow",
    "HounsfieldWindowd",
    "KeySpacingd",
    "LabelledOneHot",
    "LabelledOneHotd",
    "LoadRegion",
    "LoadRegiond",
    "ProjectVolume",
    "ProjectVolumed",
    "RandDeformedPatch",
    "RandDeformedPatchd",
    "RandGrayCurve",
    "RandGrayCurved",
    "RandLesionPatch",
    "RandLesionPatchd",
    "RandSlab",
    "RandSlabd",
    "ResizeSlices",
    "ResizeSlicesd",
    "RestrictLabel",
    "RestrictLabeld",
    "StandardiseBody",
    "StandardiseBodyd",
    "SubmissionSaveImaged",
    "Subsample",
    "Subsampled",
    "Uncertainty",
    "Uncertaintyd",
    "VoxelWeights",
    "VoxelWeightsd",
    "region_path",
]
