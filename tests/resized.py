"""Slices resized by loops and matrices, for comparison."""

from __future__ import annotations

import numpy as np


def weights(length, size, antialias=True):
    """Matrix size x length of a triangle filter in voxel coordinates, row by row."""
    scale = length / size
    support = max(scale, 1.0) if antialias else 1.0
    matrix = np.zeros((size, length))
    for row in range(size):
        centre = (row + 0.5) * scale - 0.5
        if not antialias:
            centre = min(max(centre, 0), length - 1)
        for column in range(length):
            matrix[row, column] = max(0.0, 1 - abs(column - centre) / support)
    return matrix / matrix.sum(axis=1, keepdims=True)


def resized(volume, size, antialias=True):
    """Slices of X Y Z at another size, each between two matrices."""
    rows, columns = (weights(n, m, antialias) for n, m in zip(volume.shape[:2], size))
    return np.stack([rows @ volume[..., z] @ columns.T for z in range(volume.shape[2])], axis=2)
