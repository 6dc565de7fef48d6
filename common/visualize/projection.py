"""Depth-shaded view of a label volume from one side."""

from __future__ import annotations

import numpy as np

__all__ = ["surface_view"]


def surface_view(
    labels: np.ndarray, painted: list[int], colours: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """What a viewer in front of the volume sees: the first painted voxel along the second axis, lit from above.

    In RAS volumes that is the view from the patient's front. A class of less than a fifth of the volume of the one
    before it shines through, so that a tumour inside an organ shows.

    Args:
        labels: class indices, X Y Z; rays run along Y from the last voxel to the first.
        painted: classes that are solid; all others are air.
        colours: R G B of each class in 0..1, K 3.
        spacing: voxel size along X, Y, Z in mm.

    Returns:
        R G B A in 0..1, X Z 4; alpha is 0 where a ray meets nothing.
    """
    labels = labels[:, ::-1, :]
    solid = np.isin(labels, painted)
    hit = solid.any(axis=1)
    depth_voxels = solid.argmax(axis=1)
    seen = np.take_along_axis(labels, depth_voxels[:, None, :], axis=1)[:, 0, :]
    depth = np.where(hit, depth_voxels * spacing[1], np.nan)

    near, far = (np.nanmin(depth), np.nanmax(depth)) if hit.any() else (0.0, 1.0)
    # a missing neighbour lies as deep as the volume allows, so outlines darken as a rounded body's would
    filled = np.where(hit, depth, far + (far - near) * 0.25)
    slope_x = np.gradient(filled, spacing[0], axis=0) if filled.shape[0] > 1 else np.zeros_like(filled)
    slope_z = np.gradient(filled, spacing[2], axis=1) if filled.shape[1] > 1 else np.zeros_like(filled)
    normal = np.stack((slope_x, np.ones_like(filled), slope_z), axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.array((0.35, 0.85, 0.40))
    lit = 0.45 + 0.55 * np.clip(normal @ (light / np.linalg.norm(light)), 0, 1)
    fog = 1.0 - 0.45 * (np.where(hit, depth, far) - near) / max(far - near, 1e-6)

    view = np.zeros((*hit.shape, 4))
    paint = colours[np.clip(seen, 0, len(colours) - 1)]
    volumes = np.array([np.count_nonzero(labels == k) if k in painted else 0 for k in range(len(colours))])
    for k in sorted(painted, key=volumes.__getitem__, reverse=True):
        hidden = (labels == k).any(axis=1) & (seen != k) & hit & (volumes[np.clip(seen, 0, None)] > 5 * volumes[k])
        paint[hidden] = 0.45 * paint[hidden] + 0.55 * colours[k]
    view[..., :3] = np.clip(paint * (lit * fog)[..., None], 0, 1)
    view[..., 3] = hit
    return view
