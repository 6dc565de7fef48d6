"""Networks of a few operations with the steps of a RU-Net, and a slow inferer for them."""

from __future__ import annotations

import weakref

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional


class Member(nn.Module):
    """Bright voxels are the region; its answer depends on all scales, and on the whole of a decoded region."""

    def __init__(self, bright=0.5, gain=12.0, spread=0.4):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(gain))
        self.locator = nn.Parameter(torch.tensor(gain))
        self.bright, self.spread = bright, spread
        self.decoded, self.alive, self.held = [], [], []

    def encode(self, x):
        self.held.append(sum(reference() is not None for reference in self.alive))
        f1 = torch.cat([x, 1 - x], dim=1) * (self.weight / self.weight.detach())
        f2 = functional.max_pool3d(f1, (1, 2, 2))
        f3 = functional.max_pool3d(f2, 2)
        self.alive.extend(weakref.ref(feature) for feature in (f1, f2, f3))
        return f1, f2, f3

    def locate(self, f3):
        return self.locator * (f3[:, :1] - self.bright)

    def decode(self, f1, f2, f3):
        self.decoded.append(tuple(f1.shape[2:]))
        near = functional.interpolate(f2[:, 1:], scale_factor=(1, 2, 2)) + functional.interpolate(
            f3[:, 1:], scale_factor=(2, 4, 4)
        )
        region = self.weight * (f1[:, :1] - self.bright + 0.05 * near - self.spread * f1[:, :1].mean((2, 3, 4), True))
        return region, 0.5 * region - near


class Ensemble(nn.Module):
    """Members that see the same volume differently."""

    def __init__(self, **members):
        super().__init__()
        self.members = nn.ModuleDict(members or {"one": Member(), "two": Member(0.6, 20.0), "three": Member(0.45, 6.0)})


class Marker(Member):
    """An identity: the probability of a voxel is its own value, 0 or 1, whatever lies around it."""

    def decode(self, f1, f2, f3):
        self.decoded.append(tuple(f1.shape[2:]))
        region = 1000 * (f1[:, :1] - 0.5)
        return region, -region


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.detach().double().numpy()))


def slow_boxes(heat, threshold, margin, top):
    """Boxes in cells, as slices: of each component, found cell by cell, the largest first."""
    labels, found = ndimage.label(heat >= threshold, ndimage.generate_binary_structure(3, 2))
    parts = []
    for number in range(1, found + 1):
        cells = np.argwhere(labels == number)
        box = [
            slice(max(0, low - grown), min(length, high + 1 + grown))
            for low, high, grown, length in zip(cells.min(0), cells.max(0), margin, heat.shape)
        ]
        parts.append((-len(cells), tuple(cells[0]), box))
    return [box for *_, box in sorted(parts, key=lambda part: part[:2])][:top]


def slow_member(volume, member, rois, threshold, normalise_heat, margin, top):
    """Region, contour and marked voxels of one volume X Y Z as arrays, box by box and voxel by voxel."""
    size = volume.shape
    padded = np.pad(volume.numpy(), [(0, -length % step) for length, step in zip(size, (2, 4, 4))], mode="edge")
    f1, f2, f3 = member.encode(torch.from_numpy(padded)[None, None])
    heat = sigmoid(member.locate(f3))[0, 0]
    if normalise_heat:
        heat = (heat - heat.min()) / (heat.max() - heat.min())
    boxes = slow_boxes(heat, threshold, margin, top) if rois == "located" else [[slice(0, n) for n in heat.shape]]
    sums, counts = np.zeros((2, *padded.shape)), np.zeros(padded.shape)
    for box in boxes:
        fine = [slice(axis.start * step, axis.stop * step) for axis, step in zip(box, (2, 4, 4))]
        middle = [slice(axis.start * 2, axis.stop * 2) for axis in box]
        heads = member.decode(f1[(..., *fine)], f2[(..., *middle)], f3[(..., *box)])
        for voxel in np.ndindex(*(axis.stop - axis.start for axis in fine)):
            place = tuple(index + axis.start for index, axis in zip(voxel, fine))
            counts[place] += 1
            for total, head in zip(sums, heads):
                total[place] += float(sigmoid(head[(0, 0, *voxel)]))
    inside = tuple(slice(0, length) for length in size)
    means = sums / np.maximum(counts, 1)
    return means[0][inside], means[1][inside], counts[inside] > 0, len(boxes), heat
