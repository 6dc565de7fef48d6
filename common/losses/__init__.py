"""Losses that MONAI lacks, first of all those that leave unlabelled voxels out."""
