"""Losses that MONAI lacks, first of all those that leave unlabelled voxels out."""

from .labelled import LabelledCrossEntropyLoss, LabelledDiceCELoss, LabelledDiceLoss

__all__ = ["LabelledCrossEntropyLoss", "LabelledDiceCELoss", "LabelledDiceLoss"]
