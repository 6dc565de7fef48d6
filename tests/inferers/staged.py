"""Networks of one convolution for the stages of RA-UNet, a body for them, the inferer, and a slow one with loops."""

from __future__ import annotations

import numpy as np
import torch
from resized import resized
from scipy import ndimage
from torch import nn

from common.inferers import LiverTumourInferer, VotingInferer

MAPS = ("localiser", "box", "liver_probability", "tumour_probability")
LIVER, SPLEEN, TUMOUR, FLESH = 0.7, 0.72, 0.45, 0.2


class Bright(nn.Module):
    """Logits that rise or fall with brightness, not the same at each place of a window; double precision inside."""

    def __init__(self, dims, level, gain, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        kernel = (1, 1, *[3] * dims)
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.conv = conv(1, 1, 3, padding=1).double()
        noise = torch.randn(kernel, generator=generator, dtype=torch.float64)
        # mostly the voxel itself, so that a single slice between others is still seen
        middle = torch.zeros_like(noise)
        middle[(0, 0, *[1] * dims)] = 0.7
        self.conv.weight.data = gain * (0.3 / 3**dims + middle + 0.002 * noise)
        self.conv.bias.data[:] = -gain * level
        self.sizes = []

    def forward(self, windows):
        self.sizes.append(tuple(windows.shape))
        scores = self.conv(windows.double())
        # what lies in a window's first corner is seen otherwise than what lies in its last
        return scores + torch.linspace(-0.3, 0.3, scores[0].numel(), dtype=torch.float64).reshape(scores[0].shape)


class Stages(nn.Module):
    """Bright parts are the liver, its darker ones tumour."""

    def __init__(self, members=1):
        super().__init__()
        self.localiser = Bright(2, 0.5, 40.0)
        livers = [Bright(3, 0.36 + 0.03 * number, 30.0, 1 + number) for number in range(members)]
        tumours = [Bright(3, 0.52 + 0.03 * number, -40.0, 11 + number) for number in range(members)]
        self.liver = nn.ModuleList(livers) if members > 1 else livers[0]
        self.tumour = nn.ModuleList(tumours) if members > 1 else tumours[0]


class Constant(nn.Module):
    """The same logit for every voxel."""

    def __init__(self, logit, channels=1):
        super().__init__()
        self.logit, self.channels, self.sizes = logit, channels, []

    def forward(self, windows):
        self.sizes.append(tuple(windows.shape))
        return windows.new_full((len(windows), self.channels, *windows.shape[2:]), self.logit)


def ball(shape, centre, radii):
    """An ellipsoid, centre and radii in voxels."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    part = (grid - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))
    return (part**2).sum(0) <= 1


def body(*shape, liver=((0.38, 0.5, 0.5), (0.25, 0.3, 0.3)), spleen=0.6, tumour=True, items=1, seed=0):
    """Volumes B 1 X Y Z of 0 .. 1: flesh, a liver with a tumour, a spleen; centres and radii as parts of the size."""
    rng = np.random.default_rng(seed)
    volumes = []
    for item in range(items):
        volume = np.full(shape, FLESH)
        size = np.array(shape)
        centre, radii = (np.array(part) for part in liver)
        place, length = centre * size - 0.5 - item, np.maximum(radii * size, 0.6)
        volume[ball(shape, place, length)] = LIVER
        if spleen:
            volume[ball(shape, (0.85, 0.4, 0.5) * size, np.maximum(spleen * 0.15 * size, 0.6))] = SPLEEN
        if tumour:
            volume[ball(shape, place + length * (0.3, 0.2, 0), np.maximum(length * 0.35, 1))] = TUMOUR
        volumes.append(volume + rng.normal(0, 0.02, shape))
    return torch.from_numpy(np.stack(volumes)[:, None]).float()


def largest(mask):
    """The largest component, corners connect."""
    parts, found = ndimage.label(mask, np.ones((3, 3, 3)))
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1 if found else mask


def span(mask, axis):
    """First and one past the last index of an axis at which a mask is not empty."""
    where = [index for index in range(mask.shape[axis]) if np.take(mask, index, axis).any()]
    return where[0], where[-1] + 1


def grown(first, last, length, margin, least):
    """One axis of a box with its margin, then at least so long where the volume is."""
    first, last = max(first - margin, 0), min(last + margin, length)
    upper = True
    while last - first < min(least, length):
        if (upper and last < length) or first == 0:
            last += 1
        else:
            first -= 1
        upper = not upper
    return first, last


def averaged(volume, networks, roi, step, padding):
    """Mean probabilities X Y Z of networks over all windows of a volume, by loops over windows."""
    short = [max(window - length, 0) for window, length in zip(roi, volume.shape)]
    before = [missing // 2 for missing in short]
    around = [(low, missing - low) for low, missing in zip(before, short)]
    padded = np.pad(volume, around, mode="edge" if padding == "replicate" else "constant")
    starts = [
        sorted({*range(0, max(length - window, 0), move), max(length - window, 0)})
        for length, window, move in zip(padded.shape, roi, step)
    ]
    means = []
    for network in networks:
        total, count = np.zeros(padded.shape), np.zeros(padded.shape)
        for x in starts[0]:
            for y in starts[1]:
                for z in starts[2]:
                    place = (slice(x, x + roi[0]), slice(y, y + roi[1]), slice(z, z + roi[2]))
                    with torch.no_grad():
                        logits = network(torch.from_numpy(padded[place].copy())[None, None])[0, 0].double().numpy()
                    total[place] += 1 / (1 + np.exp(-logits))
                    count[place] += 1
        means.append(total / count)
    inside = tuple(slice(low, low + length) for low, length in zip(before, volume.shape))
    return (sum(means) / len(means))[inside]


def reference(
    volume,
    network,
    localiser_size,
    liver_size,
    slices,
    liver_step,
    tumour_roi,
    tumour_step,
    margin,
    margin_mm=0.0,
    spacing=(1.0, 1.0, 1.0),
    threshold_first=False,
):
    """Labels, localiser's mask, box and both probabilities of one volume X Y Z, by loops."""
    volume = volume.astype(np.float64)
    shape = volume.shape
    margin = [voxels + int(np.ceil(margin_mm / mm - 1e-6)) for voxels, mm in zip(margin, spacing)]
    found = np.zeros((*localiser_size, shape[2]), dtype=bool)
    for z in range(shape[2]):
        plane = resized(volume[..., z : z + 1], localiser_size)
        with torch.no_grad():
            found[..., z] = network.localiser(torch.from_numpy(plane[..., 0])[None, None])[0, 0].numpy() >= 0
    found = largest(found)
    maps = {"labels": np.zeros(shape, int), "localiser": resized(found.astype(float), shape[:2]) >= 0.5 - 1e-9}
    box = []
    for axis in range(3):
        first, last = span(found, axis)
        if axis < 2:
            # the first and the last voxel of the grid that shares ground with the span
            ratio = shape[axis] / localiser_size[axis]
            shared = [v for v in range(shape[axis]) if v + 1 > first * ratio + 1e-9 and v < last * ratio - 1e-9]
            first, last = shared[0], shared[-1] + 1
        box.append(slice(*grown(first, last, shape[axis], margin[axis], slices if axis == 2 else 1)))
    box = tuple(box)
    maps["box"] = np.zeros(shape, int)
    maps["box"][box] = 1

    livers = network.liver if isinstance(network.liver, nn.ModuleList) else [network.liver]
    inner = resized(volume[box], liver_size)
    small = averaged(inner, livers, (*liver_size, slices), (*liver_size, liver_step), "replicate")
    maps["liver_probability"] = np.zeros(shape)
    maps["liver_probability"][box] = resized(small, volume[box].shape[:2])
    if threshold_first:
        liver = resized((small >= 0.6).astype(float), volume[box].shape[:2]) >= 0.2 - 1e-9
    else:
        liver = maps["liver_probability"][box] >= 0.6
    maps["labels"][box] = largest(liver)

    liver = maps["labels"] > 0
    box = tuple(slice(*grown(*span(liver, axis), shape[axis], margin[axis], tumour_roi[axis])) for axis in range(3))
    tumours = network.tumour if isinstance(network.tumour, nn.ModuleList) else [network.tumour]
    probability = averaged(volume[box], tumours, tumour_roi, tumour_step, "constant")
    maps["tumour_probability"] = np.zeros(shape)
    maps["tumour_probability"][box] = probability * liver[box]
    maps["labels"][liver & (maps["tumour_probability"] >= 0.5)] = 2
    return maps


def inferer_of(
    liver_size=(22, 20), slices=8, liver_overlap=0.375, tumour=(8, 8, 8), tumour_overlap=0.5, tiles=None, **settings
):
    liver = VotingInferer(
        (*liver_size, slices),
        (0.0, 0.0, liver_overlap),
        output="probabilities",
        activation="sigmoid",
        padding_mode="replicate",
        **(tiles or {}),
    )
    tumour = VotingInferer(
        tumour,
        tumour_overlap,
        output="probabilities",
        activation="sigmoid",
        padding_mode="constant",
        **{"sw_batch_size": 4, **(tiles or {})},
    )
    given = {"localiser_size": (24, 20), "box_margin": (2, 2, 2), **settings}
    return LiverTumourInferer(liver_tiles=liver, tumour_tiles=tumour, liver_size=liver_size, **given)
