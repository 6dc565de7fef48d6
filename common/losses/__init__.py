"""Losses that MONAI lacks, first of all those that leave unlabelled voxels out."""

from .labelled import LabelledCrossEntropyLoss, LabelledDiceCELoss, LabelledDiceLoss
from .voxel_weighted import VoxelWeightedCELoss

__all__ = ["LabelledCrossEntropyLoss", "LabelledDiceCELoss", "LabelledDiceLoss", "VoxelWeightedCELoss"]
