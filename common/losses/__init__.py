"""Losses that MONAI lacks: of partly labelled volumes, of weighted voxels, of regions of interest."""

from .labelled import LabelledCrossEntropyLoss, LabelledDiceCELoss, LabelledDiceLoss
from .roi_aware import RoIAwareLoss
from .sampled import SampledBCELoss
from .voxel_weighted import VoxelWeightedCELoss

__all__ = [
    "LabelledCrossEntropyLoss",
    "LabelledDiceCELoss",
    "LabelledDiceLoss",
    "RoIAwareLoss",
    "SampledBCELoss",
    "VoxelWeightedCELoss",
]
