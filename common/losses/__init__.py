"""Losses that MONAI lacks: of partly labelled volumes, of weighted voxels, of regions of interest, of two paths."""

from .labelled import LabelledCrossEntropyLoss, LabelledDiceCELoss, LabelledDiceLoss
from .roi_aware import RoIAwareLoss
from .sampled import SampledBCELoss
from .two_path import TwoPathLoss, joint_weight
from .voxel_weighted import VoxelWeightedCELoss

__all__ = [
    "LabelledCrossEntropyLoss",
    "LabelledDiceCELoss",
    "LabelledDiceLoss",
    "RoIAwareLoss",
    "SampledBCELoss",
    "TwoPathLoss",
    "VoxelWeightedCELoss",
    "joint_weight",
]
